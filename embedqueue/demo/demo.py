"""``python -m embedqueue demo``: the whole journey on real parts, with a worker killed half-way.

A private Redis 8 with its search module, a real embedding model, real text, two worker processes. Everything that
it says is measured in this very run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import redis

from embedqueue.embedders import LocalEmbedder
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.vectors import FLOAT32

from .localredis import LocalRedis, NoRedis
from .text import QUESTIONS, BadInput, read_documents, reference_passages
from .watched import watched
from .worker import COUNTERS, LEASE_SECONDS, make_queue

PREFIX = "demo:"
INDEX = "demo_index"
#: Part of the documents that is embedded when a worker is killed.
KILL_AT = 0.3
#: Seconds without any progress after which the demo gives up.
STALL_SECONDS = 30.0
#: Results for each question.
RESULTS = 3

Document = tuple[str, str, str]  # key, title, text


def say(text: str = "") -> None:
    """Print at once: the demo is watched."""
    print(text, flush=True)


class Progress:
    """A bar where rich and a terminal are there, else a line now and then."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._said = -1
        self._bar: Any = None
        if sys.stdout.isatty() and importlib.util.find_spec("rich"):
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("  embedding"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns)
            self._task = self._bar.add_task("", total=total)
            self._bar.start()

    def show(self, done: int) -> None:
        """So many are embedded."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
        elif done * 5 // self._total > self._said:
            self._said = done * 5 // self._total
            say(f"  embedded {done} of {self._total}")

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bar.console.print(text, highlight=False) if self._bar is not None else say(text)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()


@contextlib.contextmanager
def open_redis() -> Iterator[tuple[redis.Redis, str | None, bool]]:
    """A client, the URL for other processes (None where there can be none), and whether it can search."""
    try:
        server = LocalRedis(search=True).start()
    except NoRedis as missing:
        import fakeredis

        say(f"Redis: fakeredis, inside this process ({missing})")
        say("       so there is no process to kill, and the search is done here by numpy")
        yield fakeredis.FakeRedis(), None, False
        return
    try:
        client = server.client(protocol=2)  # RESP3 would give the search's answers another shape
        info: Any = client.info("server")
        valkey = info.get("valkey_version")  # which tells a version of Redis as well
        name = f"Valkey: {valkey}" if valkey else f"Redis: {info['redis_version']}"
        note = "with its search module" if server.has_search else "without a search module: numpy searches"
        say(f"{name}, private, on a unix socket, append-only, {note}")
        yield client, server.url, server.has_search
    finally:
        server.close()


class Workers:
    """Two worker processes."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-m", "embedqueue.demo.worker", url]
        self._processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(2)]

    def kill_one(self) -> int:
        """SIGKILL: no handler, no farewell. Returns its process id."""
        victim = self._processes[0]
        victim.kill()
        victim.wait(timeout=10)
        return victim.pid

    def failed(self) -> bool:
        """Whether none is left."""
        return all(process.poll() is not None for process in self._processes)

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)


def drain(client: redis.Redis, queue: EmbeddingBatchQueue, workers: Workers | None, total: int) -> None:
    """Watch until everything is embedded, and kill a worker on the way.

    Raises:
        RuntimeError: nothing moves any more.
    """
    progress = Progress(total)
    killed, last, moved_mono = workers is None, -1, time.monotonic()
    try:
        while True:
            stats = queue.stats()
            done = total - stats.waiting - stats.in_flight - stats.dead
            progress.show(done)
            if not killed and workers is not None and done >= total * KILL_AT and stats.in_flight:
                pid = workers.kill_one()
                held = queue.stats().in_flight
                progress.say(f"  kill -9 {pid}: one of two workers is gone, {held} documents are claimed just now")
                progress.say(f"  what it held comes back when its lease of {LEASE_SECONDS:.0f} s runs out")
                killed = True
            if done + stats.dead >= total:
                return
            if done != last:
                last, moved_mono = done, time.monotonic()
            if time.monotonic() - moved_mono > STALL_SECONDS or (workers is not None and workers.failed()):
                raise RuntimeError(f"{total - done} documents are still queued, and nobody works on them")
            time.sleep(0.05)
    finally:
        progress.close()


def verify(client: redis.Redis, documents: Sequence[Document]) -> int:
    """How many documents carry exactly the vector that the model gives for their text."""
    fresh = LocalEmbedder().embed_batch([text for _, _, text in documents], "wordllama")
    right = 0
    for (key, _, _), vector in zip(documents, np.asarray(fresh, dtype=FLOAT32), strict=True):
        stored: Any = client.hget(PREFIX + key, "embedding")
        if stored is not None and len(stored) == vector.nbytes:
            right += bool(np.allclose(np.frombuffer(stored, dtype=FLOAT32), vector, atol=1e-6))
    return right


def nearest(
    client: Any, queue: EmbeddingBatchQueue, documents: Sequence[Document], question: str
) -> list[tuple[float, str]]:
    """Keys of the nearest documents, with their cosine similarity, where Redis cannot search: by numpy."""
    vector = np.asarray(queue.embed_query(question), dtype=FLOAT32)
    rows = [np.frombuffer(bytes(client.hget(PREFIX + key, "embedding") or b""), FLOAT32) for key, _, _ in documents]
    scores = np.stack(rows) @ vector
    return [(float(scores[i]), documents[i][0]) for i in np.argsort(-scores)[:RESULTS]]


def search(queue: EmbeddingBatchQueue, question: str) -> list[tuple[float, str]]:
    """Keys of the nearest documents, the nearest first, with their similarity."""
    hits = queue.search(question, RESULTS, index=INDEX, return_fields=[])
    return [(hit.score, hit.redis_key.removeprefix(PREFIX)) for hit in hits]


def snippet(text: str, width: int = 88) -> str:
    """The beginning of a text."""
    return text if len(text) <= width else text[: width - 3].rsplit(" ", 1)[0] + "..."


def load(options: argparse.Namespace) -> tuple[list[Document], str]:
    """The documents, and a word of where they come from."""
    if options.file:
        found = [(key, "", text) for key, text in read_documents(options.file)]
        source = "standard input" if options.file == "-" else options.file
    else:
        passages = reference_passages()
        found = [(f"{number:04}", title, text) for number, (title, text) in enumerate(passages, 1)]
        source = "the Python language reference (PSF licence)"
    return found[: options.count], source


def run(options: argparse.Namespace) -> int:
    """The demo."""
    began_mono = time.monotonic()
    documents, source = load(options)
    say(f"Text:  {len(documents)} documents from {source}")
    say("Model: wordllama, offline, 256 dimensions, given the latency of a hosted API")
    with open_redis() as (client, url, can_search):
        pipeline = client.pipeline(transaction=False)
        for key, title, text in documents:
            pipeline.hset(PREFIX + key, mapping={"title": title, "text": text})
        pipeline.execute()
        queue = make_queue(client, worker=url is None)
        try:
            with watched(queue, options.port):
                right = journey(client, queue, url, can_search, documents, options)
                say(f"\nDone in {time.monotonic() - began_mono:.1f} s.")
                if options.stay:
                    stay()
        finally:
            queue.stop()
    return 0 if right else 1


def journey(
    client: redis.Redis,
    queue: EmbeddingBatchQueue,
    url: str | None,
    can_search: bool,
    documents: Sequence[Document],
    options: argparse.Namespace,
) -> bool:
    """From the first enqueue to the last answer; whether all vectors are right."""
    if can_search:
        queue.create_index(INDEX, PREFIX)  # Redis keeps it up to date from here on
    right = embed(client, queue, url, documents)
    if right != len(documents):
        say(f"{len(documents) - right} documents have no right vector: this must not happen")
        return False
    titles = {key: (title, text) for key, title, text in documents}
    for question in options.query or ([] if options.file else QUESTIONS):
        say(f"\n? {question}")
        for score, key in search(queue, question) if can_search else nearest(client, queue, documents, question):
            title, text = titles[key]
            say(f"  {score:.2f}  {title + ': ' if title else ''}{snippet(text)}")
    return True


def stay() -> None:
    """Until Ctrl-C, so that the dashboard can be looked at."""
    say("The dashboard stays until Ctrl-C.")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def embed(client: redis.Redis, queue: EmbeddingBatchQueue, url: str | None, documents: Sequence[Document]) -> int:
    """Enqueue, drain, kill, verify; returns how many vectors are right."""
    workers = Workers(url) if url is not None else None
    try:
        began_mono = time.monotonic()
        queue.enqueue_many([(PREFIX + key, text) for key, _, text in documents])
        seconds = time.monotonic() - began_mono
        say(f"\nEnqueued {len(documents)} documents in {seconds * 1000:.0f} ms; they are durable now.")
        queue.flush_now()
        drain(client, queue, workers, len(documents))
    finally:
        if workers is not None:
            workers.close()
    right = verify(client, documents)
    counted: Any = client.hgetall(COUNTERS)
    texts, distinct = int(counted[b"texts"]), len({text for _, _, text in documents})
    say(f"{right} of {len(documents)} documents carry the vector of their text, each compared with the model's own.")
    again = (
        f"{texts - distinct} of them again, for their call died with the worker" if texts > distinct else "none twice"
    )
    say(f"{int(counted[b'calls'])} calls, {texts} texts sent, {again}.")
    return right


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code: 0, 1 when something went wrong, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m embedqueue demo", description=__doc__)
    parser.add_argument("--file", help="your own text: a document a line, or JSONL with key and text; - for stdin")
    parser.add_argument("--query", action="append", help="what to search for; may be given several times")
    parser.add_argument("--count", type=_at_least_one, default=None, help="use only the first so many documents")
    parser.add_argument("--port", type=int, default=0, help="of the dashboard on loopback; any free one by default")
    parser.add_argument("--stay", action="store_true", help="keep the dashboard in the end, until Ctrl-C")
    options = parser.parse_args(arguments)
    try:
        return run(options)
    except BadInput as error:
        print(f"embedqueue demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nembedqueue demo: interrupted", file=sys.stderr)
        return 130
    except (ImportError, RuntimeError) as error:
        print(f'embedqueue demo: {error} (does this environment have "embedqueue[demo]"?)', file=sys.stderr)
        return 1


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
