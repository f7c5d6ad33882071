"""An application's queues, as a signal's handler may come while they are made."""

from __future__ import annotations

import contextlib

from embedqueue.settings.application import Queues
from embedqueue.settings.settings import Settings, read_queues
from embedqueue.testing import FakeEmbedder
from tests.inside import worker_threads
from tests.parts import PATIENCE_SECONDS


def test_a_handler_uses_a_queue_that_is_being_made(redis_server, monkeypatch):
    """It waits for nothing that its own thread holds, and everybody has one queue afterwards."""
    make, handled = Settings.queue, []

    def interrupted(settings, **options):
        if not handled:
            handled.append(None)
            handled[0] = queues["default"]
        return make(settings, **options)

    monkeypatch.setattr(Settings, "queue", interrupted)
    queues = Queues(lambda: read_queues({"REDIS_URL": redis_server.url, "EMBEDDER": FakeEmbedder, "MODEL": "fake"}))
    with contextlib.ExitStack() as at_end:
        at_end.callback(queues.reset)
        assert queues["default"] is handled[0]
        assert queues["default"].enqueue("doc:1", "one").result(PATIENCE_SECONDS)
        assert worker_threads() == 1


def test_tests_begin_after_the_application_has_looked_at_a_queue(redis_server):
    """As in Django's ``AppConfig.ready``: no test reaches the Redis of the settings all the same."""
    tested = []
    settings = {"REDIS_URL": redis_server.url, "EMBEDDER": FakeEmbedder, "MODEL": "fake"}
    queues = Queues(lambda: read_queues(settings), lambda: bool(tested))
    with contextlib.ExitStack() as at_end:
        at_end.callback(queues.reset)
        assert queues.look().pending_count() == 0
        tested.append("now")
        assert queues["default"].enqueue("order:1", "one").done()
        assert queues.redis().hexists("order:1", "embedding")
        assert redis_server.client().keys("order:*") == []
