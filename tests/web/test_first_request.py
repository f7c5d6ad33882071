"""What an earlier run left is drained though nobody enqueues: the first request of any kind starts the queue."""

from __future__ import annotations

import pytest
import requests

from embedqueue import EmbeddingBatchQueue
from embedqueue.testing import FakeEmbedder
from tests.parts import PATIENCE_SECONDS, eventually
from tests.web.servers import DJANGO, gunicorn, site_of


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
@pytest.mark.parametrize("framework", ["flask", "django"])
def test_what_was_left_is_drained(env, redis_client, framework, preload):
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    pytest.importorskip("gunicorn", reason="gunicorn is not installed: pip install gunicorn")
    left = EmbeddingBatchQueue(FakeEmbedder(16), redis_client, worker=False)
    left.enqueue("note:left", "text")
    left.stop()
    site = {"app": "tests.web.djsite.wsgi"} if framework == "django" else {}
    with gunicorn({**env, **(DJANGO if site else {})}, "--workers", "1", *preload, **site) as running:
        requests.get(f"{site_of(running).url}/nothing-here", timeout=PATIENCE_SECONDS)
        eventually(lambda: redis_client.hexists("note:left", "embedding"), "embedded")
