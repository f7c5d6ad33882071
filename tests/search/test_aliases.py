"""An index that takes the place of another one."""

from __future__ import annotations

import time

import pytest

from embedqueue.search.aliases import Aliases
from embedqueue.search.search import Search


def test_an_index_that_is_not_built_in_time_is_told(monkeypatch, fake_redis):
    """The old one is searched on."""
    monkeypatch.setattr("embedqueue.search.aliases.POLL_SECONDS", 0.01)
    monkeypatch.setattr(Search, "info", lambda *_: [b"percent_indexed", b"0.5"])
    with pytest.raises(TimeoutError, match="still building the index 'docs'"):
        Aliases(fake_redis).await_built("docs", "embedding", time.monotonic() + 0.02)
