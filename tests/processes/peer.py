"""Another process with a queue of its own, that does what a test tells it, line by line.

The child reads JSON lines from its standard input, runs the code that they hold, and answers on its standard output::

    peer.run("future = queue.enqueue('doc:1', 'hello')")
    vector = peer.get("future.result(45)")          # waits for the answer
    answer = peer.ask("future.result(45)")          # does not; the child is busy with it in a thread of its own
    peer.kill()

Names that the code finds: ``queue``, ``client``, ``embedder``, ``inside`` (see there), ``say`` (says a word to the
test, see ``Peer.heard``), ``die`` (SIGKILL to itself) and ``fork`` (does something in a forked child, see there).
Code that begins with the words ``# main thread`` runs there, everything else in a thread of its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import queue as queues
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from tests import nursery
from tests.parts import DIMENSIONS, PATIENCE_SECONDS


class Failed(AssertionError):
    """The code raised in the child; ``kind`` names the error."""

    def __init__(self, kind: str, trace: str) -> None:
        super().__init__(trace)
        self.kind = kind


class Answer:
    """What a child will have answered.

    Args:
        threads: tells what the threads of the child are at, where no answer comes.
    """

    def __init__(self, threads: Callable[[], str]) -> None:
        self._threads = threads
        self._lines: queues.SimpleQueue[dict[str, Any]] = queues.SimpleQueue()

    def put(self, line: dict[str, Any]) -> None:
        self._lines.put(line)

    def get(self, timeout: float = PATIENCE_SECONDS) -> Any:
        try:
            line = self._lines.get(timeout=timeout)
        except queues.Empty:
            raise AssertionError(f"the child does not answer:\n{self._threads()}") from None
        if "error" in line:
            raise Failed(line["error"], line["trace"])
        return line["value"]


class Peer:
    """The test's side of a child."""

    def __init__(self, redis_url: str, provider_url: str, **options: Any) -> None:
        self._errors = tempfile.TemporaryFile("w+b")
        setup = {"redis": redis_url, "provider": provider_url, "options": options}
        self.process = nursery.start(
            __name__,
            json.dumps(setup),
            stdin=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # whatever it forks ends with it, see close()
        )
        self._answers: dict[int, Answer] = {}
        self._said: dict[str, Answer] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            line = json.loads(raw)
            with self._lock:
                place: Any = self._said if "said" in line else self._answers
                answer = place.setdefault(line.get("said", line.get("number")), Answer(self._dump))
            answer.put(line if "number" in line else {"value": None})

    def ask(self, code: str) -> Answer:
        """Start to evaluate an expression, or to run statements, in a new thread of the child."""
        with self._lock:
            number = len(self._answers) + 1
            answer = self._answers[number] = Answer(self._dump)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"number": number, "code": code}).encode() + b"\n")
        self.process.stdin.flush()
        return answer

    def get(self, code: str, timeout: float = PATIENCE_SECONDS) -> Any:
        """Evaluate an expression in the child."""
        return self.ask(code).get(timeout)

    run = get

    def heard(self, word: str, timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until the child says this word."""
        with self._lock:
            answer = self._said.setdefault(word, Answer(self._dump))
        answer.get(timeout)

    def _dump(self) -> str:
        """What the threads of the child are at, if it still lives."""
        with contextlib.suppress(OSError, ProcessLookupError):
            self.process.send_signal(signal.SIGUSR2)
            time.sleep(1)  # the child writes it by itself, whatever it is at
        return self.errors

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int:
        """Wait for the end of the child; gives its exit code."""
        return self.process.wait(timeout)

    def leave(self) -> int:
        """Let the child end as a program does that reaches its last line; gives its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.wait()

    @property
    def errors(self) -> str:
        """What the child wrote to its standard error."""
        self._errors.seek(0)
        return self._errors.read().decode()

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)  # nobody has the other end any more; closed under it, its read would raise
        print(self.errors, file=sys.stderr)  # shown if the test fails
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            stream.close()


def _answer(line: dict[str, Any]) -> None:
    with _WRITING:
        os.write(sys.stdout.fileno(), json.dumps(line).encode() + b"\n")


#: Reentrant, for a signal's handler may speak while the main thread does.
_WRITING = threading.RLock()


def _perform(order: dict[str, Any], names: dict[str, Any]) -> None:
    try:
        try:
            code = compile(order["code"], "<test>", "eval")
        except SyntaxError:
            exec(compile(order["code"], "<test>", "exec"), names)
            value = None
        else:
            value = eval(code, names)
        _answer({"number": order["number"], "value": json.loads(json.dumps(value, default=repr))})
    except Exception as error:  # a handler may raise SystemExit before the answer is out
        _answer({"number": order["number"], "error": type(error).__name__, "trace": traceback.format_exc()})


def fork(work: Callable[[], Any], alone: contextlib.AbstractContextManager[Any] | None = None) -> Callable[[], Any]:
    """Do something in a forked child; gives what waits for its end and answers what it answered.

    Args:
        work: what the child does.
        alone: held by the parent while it forks.
    """
    reading, writing = os.pipe()
    with alone or contextlib.nullcontext():
        pid = os.fork()
        if pid == 0:
            try:
                value = json.dumps(work(), default=repr)
            except BaseException:
                value = json.dumps(traceback.format_exc())
            os.write(writing, value.encode())
            os._exit(0)
    os.close(writing)

    def join() -> Any:
        told = b""
        while select.select([reading], [], [], PATIENCE_SECONDS)[0]:
            part = os.read(reading, 65536)
            told += part
            if not part:
                os.close(reading)
                os.waitpid(pid, 0)
                return json.loads(told)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return "the forked child hangs"

    return join


def _lines() -> Iterator[bytes]:
    """Standard input by lines. A signal that came to another thread wakes this one as well, and is handled at once."""
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    orders, rest = sys.stdin.fileno(), b""
    while True:
        if orders not in select.select([orders, awake], [], [])[0]:
            os.read(awake, 4096)
            continue
        part = os.read(orders, 1 << 16)
        if not part:
            return
        *lines, rest = (rest + part).split(b"\n")
        yield from lines


def main() -> None:
    """The child."""
    import redis

    from embedqueue import Budget, EmbeddingBatchQueue, Limits, OpenAIEmbedder
    from tests.inside import inside

    faulthandler.register(signal.SIGUSR2)
    setup = json.loads(sys.argv[1])
    options = setup["options"]
    start = options.pop("start", True)
    if isinstance(options.get("limits"), dict):
        options["limits"] = Limits(**options["limits"])
    if "budget" in options:
        options["budget"] = Budget(**options["budget"])
    client = redis.Redis.from_url(setup["redis"])
    embedder = OpenAIEmbedder("test-key", setup["provider"], dimensions=DIMENSIONS)
    queue = EmbeddingBatchQueue(embedder, client, **options)
    if start:
        queue.start()

    def say(word: str) -> None:
        _answer({"said": word})

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    names = {"queue": queue, "client": client, "embedder": embedder, "inside": inside}
    names |= {"say": say, "die": die, "fork": fork}
    for line in _lines():
        order = json.loads(line)
        if order["code"].startswith("# main thread"):
            _perform(order, names)
        else:
            threading.Thread(target=_perform, args=(order, names), daemon=True).start()


if __name__ == "__main__":
    main()
