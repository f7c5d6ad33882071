"""multiprocessing, asyncio, and the end of an interpreter, each in a process of its own."""

from __future__ import annotations

import asyncio
import signal

import pytest

from embedqueue import EmbeddingBatchQueue
from embedqueue.settings.settings import read
from tests.parts import PATIENCE_SECONDS
from tests.web.servers import DJANGO, Running


@pytest.fixture
def queue(redis_client, redis_server, provider):
    """A queue of this process."""
    settings = read(
        {
            "REDIS_URL": redis_server.url,
            "PROVIDER": "openai",
            "BASE_URL": provider.openai_url,
            "API_KEY": "test-key",
            "DIMENSIONS": 16,
        }
    )
    with settings.queue() as queue:
        yield queue


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing_have_their_own_worker(env, redis_client, method):
    """A queue made before the fork, or anew after a spawn, serves in each child; everybody ends in silence."""
    with Running(["-m", "tests.web.children", method], env, afresh=True) as running:
        assert running.ended() == 0, running.output
        assert "done 3" in running.output
        running.assert_quiet()
    assert redis_client.zcard("embed_queue:inflight") == 0


def test_a_child_gives_back_what_it_had_claimed(env, redis_client, provider):
    """multiprocessing's children skip atexit: even so nothing has to wait for a lease."""
    provider.hold()
    with Running(["-m", "tests.web.children", "fork", "leave"], env) as running:
        assert running.ended() == 0, running.output
        running.assert_quiet()
    provider.release()
    assert redis_client.zcard("embed_queue:inflight") == 0
    assert redis_client.zcard("embed_queue:pending") == 3


ENDS = """
import time
from embedqueue.settings.settings import read_environment

queue = read_environment().queue().start()
queue.enqueue("note:1", "x")
queue.flush_now()
while queue.stats().in_flight == 0:
    time.sleep(0.01)
print("last line")
"""


def test_an_interpreter_ends_though_a_call_hangs(env, redis_client, provider):
    """A script that just ends is not kept by a worker, a listener or a call; its items go back."""
    provider.hold()
    with Running(["-c", ENDS], env, afresh=True) as running:
        assert running.ended() == 0, running.output
        assert "last line" in running.output
        running.assert_quiet()
    provider.release()
    assert redis_client.zcard("embed_queue:pending") == 1


SECOND_SIGNAL = (
    """
import atexit, signal, sys

signal.signal(signal.SIGALRM, lambda *_: sys.exit(1))
"""
    + ENDS
    + """
atexit.register(signal.setitimer, signal.ITIMER_REAL, 0.1)  # called before the queue stops, which takes its time
"""
)


def test_a_second_signal_at_the_end_gives_items_back(env, redis_client, provider):
    """Ctrl-C under gunicorn reaches a worker twice: by the terminal, and by the master."""
    provider.hold()
    with Running(["-c", SECOND_SIGNAL], env) as running:
        running.ended(PATIENCE_SECONDS)
        assert "last line" in running.output
        running.assert_quiet()
    provider.release()
    assert redis_client.zcard("embed_queue:inflight") == 0
    assert redis_client.zcard("embed_queue:pending") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("command", ["flask", "django"])
def test_a_dedicated_worker_ends_on_a_signal(env, redis_client, provider, command, number):
    """`flask embedqueue worker` and `manage.py embedqueue worker`: items go back, exit code 0."""
    pytest.importorskip(command, reason=f"{command} is not installed: pip install embedqueue[{command}]")
    client_queue = read({"REDIS_URL": env["EMBEDQUEUE_REDIS_URL"], "WORKER": False, "PROVIDER": "local"}).queue()
    client_queue.enqueue("note:1", "hello")
    provider.hold()
    module = {
        "flask": ["-m", "flask", "--app", "tests.web.flask_site", "embedqueue", "worker", "--grace", "0.2"],
        "django": ["-m", "django", "embedqueue", "worker", "--grace", "0.2"],
    }[command]
    with Running(module, {**env, **DJANGO}, afresh=number == signal.SIGTERM) as running:
        running.wait_for("at work")
        assert provider.wait_for_calls(1)
        running.send(number)
        assert running.ended(PATIENCE_SECONDS) == 0, running.output
        assert "nothing is claimed any more" in running.output
        running.assert_quiet()
    provider.release()
    client_queue.stop()
    assert redis_client.zcard("embed_queue:pending") == 1


def test_asyncio_code_awaits_a_future(queue: EmbeddingBatchQueue):
    """asyncio.wrap_future: the loop goes on while vectors are made, and many awaits share a call."""

    async def main():
        return await asyncio.wait_for(
            asyncio.gather(*(asyncio.wrap_future(queue.enqueue(f"note:{n}", f"text {n}")) for n in range(10))), 20
        )

    queue.flush_now()
    vectors = asyncio.run(main())
    assert [len(vector) for vector in vectors] == [16] * 10
