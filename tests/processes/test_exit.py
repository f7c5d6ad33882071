"""Programs that end: quickly, silently, and with everything given back that they held."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests import nursery
from tests.parts import PATIENCE_SECONDS, PROGRAM_SECONDS

#: Seconds that a program may take to end while a call hangs: the grace for calls, which is a second where they take no
#: time, twice where two signals come; and the interpreter's own time on a busy machine. The call itself hangs longer.
END_SECONDS = 45.0


def _hanging(make_peer, provider):
    peer = make_peer()
    peer.run("queue.enqueue('doc:first', 'first').result(45)")
    provider.hold()
    peer.run("future = queue.enqueue('doc:1', 'hello')")
    peer.ask("future.result(45)")
    assert provider.wait_for_calls(2, PATIENCE_SECONDS)
    return peer


def _given_back(client) -> bool:
    return (client.zcard("embed_queue:pending"), client.zcard("embed_queue:inflight")) == (1, 0)


def test_normal_exit(make_peer, provider, redis_client):
    """A program that ends while an API call hangs ends at once and without a word; its items are free for others."""
    peer = _hanging(make_peer, provider)
    began_mono = time.monotonic()
    assert peer.leave() == 0
    assert time.monotonic() - began_mono < END_SECONDS
    assert _given_back(redis_client)
    assert redis_client.hlen("embed_queue:claims") == 0
    assert peer.errors == ""


def test_sigterm(make_peer, provider, redis_client):
    """A server that exits at SIGTERM gives its claims back at once."""
    peer = _hanging(make_peer, provider)
    peer.run("# main thread\nimport signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))")
    peer.signal(signal.SIGTERM)
    assert peer.wait(END_SECONDS) == 0
    assert _given_back(redis_client)
    assert peer.errors == ""


def test_stop_in_a_handler(make_peer, provider, redis_client):
    """A handler that stops the queue, called twice, ends the program."""
    peer = _hanging(make_peer, provider)
    peer.run(
        "# main thread\nimport signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (say('handling'), queue.stop(), sys.exit(0)))"
    )
    peer.signal(signal.SIGTERM)
    peer.heard("handling")
    peer.signal(signal.SIGTERM)
    assert peer.wait(END_SECONDS) == 0
    assert _given_back(redis_client)


def test_signals_in_the_midst_of_everything(redis_server, redis_client, provider):
    """A handler that raises may come wherever a program is in the queue's code: what goes on works, and it ends."""
    code = f"""
import signal, subprocess, sys, redis
from embedqueue import EmbeddingBatchQueue, OpenAIEmbedder
queue = EmbeddingBatchQueue(OpenAIEmbedder("test-key", {provider.openai_url!r}), redis.from_url({redis_server.url!r}))
queue.start()
armed = []
signal.signal(signal.SIGTERM, lambda *_: armed and sys.exit(armed.pop()))
sys.unraisablehook = lambda _: None  # Python drops what is raised inside of a __del__; then the next signal does it

def work():
    number = 0
    while True:
        number += 1
        armed[:] = [0]
        queue.enqueue(f"doc:{{number % 50}}", f"text {{number}}")
        for _ in range(20):  # so that most signals come where no time goes into Redis
            queue.flush_now()

# From another process, for a thread of this one would send while this one's main thread stands still.
send = '''
import os, random, time
parent = os.getppid()
while os.getppid() == parent:
    time.sleep(random.uniform(0.0005, 0.002))
    os.kill(parent, 15)
'''
with subprocess.Popen([sys.executable, "-c", send]) as sender:
    for _ in range(500):
        try:
            work()
        except SystemExit:
            pass
        except BaseException:  # so that it is told: an end while signals come would be that of a signal
            sender.kill()
            raise
    sender.kill()
queue.enqueue("doc:last", "last").result({PATIENCE_SECONDS})
sys.exit(7)
"""
    done = nursery.run("-c", code, timeout=PROGRAM_SECONDS)
    assert done.returncode == 7, done.stderr
    assert done.stderr == ""


HANDLERS_THAT_USE_THE_QUEUE = """
import gc, itertools, random, signal, subprocess, sys, redis
from embedqueue import EmbeddingBatchQueue, QueueStopped
from embedqueue.testing import FakeEmbedder
client = redis.from_url({url!r})
queue = EmbeddingBatchQueue(FakeEmbedder(8), client, flush_interval=0.5, worker={worker}).start()
numbers, made, busy = itertools.count(), [], []
sys.unraisablehook = lambda what: made.append(what.exc_value)

def use():
    number = next(numbers)
    made.append(queue.enqueue(f"handled:{{number}}", f"by a handler, {{number}}"))
    queue.flush_now()
    queue.stats()

def handle(*_):
    if not busy:  # else the next signal may come before this one is handled, and so on, until the stack is full
        busy.append(1)
        use()
        busy.clear()

class Draft:
    def __init__(self):
        self.itself = self  # so that the garbage collector finds it, wherever it comes by
    def __del__(self):
        if len(made) < {count}:
            use()

signal.signal(signal.SIGUSR1, handle)
gc.freeze()  # so that it goes through what comes from now on, again and again, and not through all libraries
gc.set_threshold(50)
send = '''
import os, random, time
parent = os.getppid()
while os.getppid() == parent:
    time.sleep(random.uniform(0.0002, 0.002))
    os.kill(parent, 10)
'''
kept = []
with subprocess.Popen([sys.executable, "-c", send]) as sender:
    for number in itertools.count():
        {draft}
        kept.append(queue.enqueue(f"doc:{{number % 50}}", f"text {{number}}"))
        queue.enqueue(f"dropped:{{number % 50}}", f"text {{number}}")
        if number % 50 == 0:
            kept[-1].add_done_callback(lambda _: None)
            queue.enqueue(f"doc:{{number % 50}}", "")
        if len(made) >= {count}:
            break
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    sender.kill()
for future in made:
    assert future.result({seconds}), future
for future in kept:
    future.result({seconds})
print(len(made), number)
queue.stop()
"""


@pytest.mark.parametrize("draft", ["pass", "Draft()"], ids=["handler", "__del__"])
@pytest.mark.parametrize("worker", [True, False], ids=["worker", "producer"])
def test_handlers_use_the_queue(redis_server, redis_client, make_queue, worker, draft):
    """A signal's handler, and a ``__del__``, enqueue, flush and look wherever they come: all of it works."""
    if not worker:
        make_queue()
    code = HANDLERS_THAT_USE_THE_QUEUE.format(
        url=redis_server.url, worker=worker, draft=draft, count=500, seconds=PATIENCE_SECONDS
    )
    if draft != "pass":
        code = code.replace("signal.SIGUSR1, handle", "signal.SIGUSR1, signal.SIG_IGN")
    done = nursery.run("-c", code, timeout=PROGRAM_SECONDS)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_sigterm_without_a_handler(make_peer, provider, redis_client):
    """Python ends at SIGTERM without any farewell unless a handler is set: then the lease has to end first."""
    peer = _hanging(make_peer, provider)
    peer.signal(signal.SIGTERM)
    assert peer.wait(END_SECONDS) == -signal.SIGTERM
    assert redis_client.zcard("embed_queue:inflight") == 1
    provider.release()


def test_exit_of_a_waiting_producer(make_peer):
    """A producer with unfinished futures and a thread in ``.result()`` ends at once and without a word."""
    peer = make_peer(worker=False)
    peer.run("future = queue.enqueue('doc:1', 'hello')")
    peer.ask("future.result(45)")
    peer.run("while not inside(queue).waiters.any_wanted(): pass")
    assert peer.leave() == 0
    assert peer.errors == ""


@pytest.mark.parametrize("ending", ["raise SystemExit(3)", "1 / 0", "queue.stop()", "del queue"])
def test_last_line(redis_server, redis_client, provider, ending):
    """However a program comes to its end with items in the queue, it ends soon and says nothing of ours."""
    code = f"""
import redis
from embedqueue import EmbeddingBatchQueue, OpenAIEmbedder
queue = EmbeddingBatchQueue(OpenAIEmbedder("test-key", {provider.openai_url!r}), redis.from_url({redis_server.url!r}))
queue.start()
queue.enqueue_many((f"doc:{{i}}", f"text {{i}}") for i in range(200))
{ending}
"""
    if ending == "1 / 0":  # as a user starts it: with a traceback of its own lines alone
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_SECONDS)
    else:
        done = nursery.run("-c", code, timeout=PROGRAM_SECONDS)
    assert done.returncode == {"raise SystemExit(3)": 3, "1 / 0": 1}.get(ending, 0)
    assert "embedqueue" not in done.stderr.replace("import", "")
    assert ("ZeroDivisionError" in done.stderr) == (ending == "1 / 0")


def test_exit_of_a_multiprocessing_child(redis_server, redis_client, provider):
    """A worker process made by multiprocessing (fork) gives back what it held when its function returns."""
    provider.hold()
    code = f"""
import multiprocessing, warnings, redis
from embedqueue import EmbeddingBatchQueue, OpenAIEmbedder
from tests.inside import inside
warnings.simplefilter("ignore")  # 3.12 and later warn of every fork beside threads
embedder = OpenAIEmbedder("test-key", {provider.openai_url!r}, dimensions=8)
queue = EmbeddingBatchQueue(embedder, redis.from_url({redis_server.url!r}))
def work():
    queue.start()  # the parent's worker would take at once what this one gives back
    queue.enqueue("doc:1", "hello")
    queue.flush_now()
    while not inside(queue).calls: pass
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join({PATIENCE_SECONDS})
print(child.exitcode, flush=True)
import os; os._exit(0)  # the parent gives nothing back: what is free, the child has freed
"""
    done = nursery.run("-c", code, timeout=2 * PATIENCE_SECONDS)
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert _given_back(redis_client)
