"""The dashboard of a queue on a cluster: every page, and what its buttons do."""

from __future__ import annotations

import pytest

pytest.importorskip("flask", reason='the dashboard is in the extra "embedqueue[dashboard]"')

from embedqueue import EmbeddingBatchQueue, InputRejected  # noqa: E402
from embedqueue.testing import FakeEmbedder  # noqa: E402
from tests.dashboard.test_dashboard import PAGES, change, client_of  # noqa: E402
from tests.parts import PATIENCE_SECONDS  # noqa: E402


def test_the_dashboard_on_a_cluster(client):
    """Items are listed, found and explained wherever their hashes lie; letters are put back."""
    embedder = FakeEmbedder(8, rule=lambda texts: InputRejected("no") if "bad" in texts else None)
    with EmbeddingBatchQueue(embedder, client, model="m", max_batch_size=1) as queue:
        queue.enqueue("doc:good", "good").result(PATIENCE_SECONDS)
        queue.enqueue("doc:bad", "bad").exception(PATIENCE_SECONDS)
        pages = client_of(queue, allow_changes=True)
        for path in PAGES:
            assert pages.get(path).status_code == 200, path
        assert 'id="item-state">written<' in pages.get("/item?key=doc:good").text
        assert 'id="item-state">dead<' in pages.get("/item?key=doc:bad").text
        assert "doc:bad" in pages.get("/find?words=bad").text
        embedder.rule = None
        assert change(pages, "retry:all", sure="yes").status_code == 303
        queue.flush(PATIENCE_SECONDS)
        assert 'id="item-state">written<' in pages.get("/item?key=doc:bad").text
