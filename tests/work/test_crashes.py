"""A text takes its server down, which is away for longer than a call waits: it is found, and all others are served."""

from __future__ import annotations

import pytest

from embedqueue import ItemRejected, Observer, TransientError
from embedqueue.testing import FakeEmbedder
from tests.inside import CRASH_PAUSE_SECONDS, FIRST_PAUSE_SECONDS, RESTART_SECONDS
from tests.parts import ONE_TRY, PATIENCE_SECONDS, eventually, in_flight


class Server(FakeEmbedder, Observer):
    """One that some texts take down. It is up again when a pause has begun, and no sooner."""

    def __init__(self, *bad):
        super().__init__()
        self.bad, self.up, self.times, self.pauses = set(bad), True, 0, []

    def embed_batch(self, texts, model):
        if not self.up:
            raise TransientError("refused", cause="connection")
        if self.bad & set(texts):
            self.up, self.times = False, self.times + 1
            raise TransientError("cut", cause="connection", suspect_input=True)
        return super().embed_batch(texts, model)

    def released(self, report):
        self.pauses.append(report.pause_seconds)
        self.up = True


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Nobody waits for long."""
    for limit, seconds in ((FIRST_PAUSE_SECONDS, 0.4), (CRASH_PAUSE_SECONDS, 0.1), (RESTART_SECONDS, (0.001, 0.001))):
        monkeypatch.setattr(*limit, seconds)


@pytest.mark.parametrize("many", [1, 120])
def test_a_text_that_takes_its_server_down_is_given_up_and_all_others_are_served(make_queue, redis_client, many):
    server = Server("text 0")
    queue = make_queue(embedder=server, observers=[server], retry=ONE_TRY)
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(many))
    queue.flush_now()
    eventually(lambda: len(queue.dead_letters()) == 1 and queue.pending_count() == in_flight(redis_client) == 0)
    for i in range(1, many):
        assert redis_client.hget(f"doc:{i}", "embedding") == server.bytes_of(f"text {i}")
    (letter,) = queue.dead_letters()
    assert letter.redis_key == "doc:0" and "went away" in letter.reason
    assert max(server.pauses) < 1.0, "they do not grow meanwhile"
    assert queue.enqueue("doc:after", "after").result(PATIENCE_SECONDS), "the queue is open again"
    server.bad.clear()
    assert queue.retry_dead("doc:0") == 1
    queue.flush(PATIENCE_SECONDS)
    assert redis_client.hget("doc:0", "embedding") == server.bytes_of("text 0")


def test_the_future_of_such_a_text_tells_so(make_queue):
    server = Server("text 0")
    queue = make_queue(embedder=server, observers=[server], retry=ONE_TRY)
    while True:  # each probe that fails tells whoever waits
        future = queue.enqueue("doc:0", "text 0")
        error = future.exception(PATIENCE_SECONDS)
        if isinstance(error, ItemRejected):
            break
        assert server.times <= 40
