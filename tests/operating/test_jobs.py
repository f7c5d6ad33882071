"""A batch job that is sent to try the provider's lane, outside of any queue."""

from __future__ import annotations

import pytest

from embedqueue import EmbedQueueError
from embedqueue.operating.jobs import try_economy


def test_where_nothing_could_be_uploaded_nothing_is_deleted(monkeypatch):
    """What the provider has said is told, and not that it does not know a file."""

    class Refusing:
        def upload(self, texts, label):
            raise EmbedQueueError("no room for files")

        def delete(self, *_):
            pytest.fail("it deletes what it has never made")

    monkeypatch.setattr("embedqueue.operating.jobs.batch_jobs_of", lambda *_: Refusing())
    with pytest.raises(EmbedQueueError, match="no room"):
        try_economy(None, "m", 1, print)
