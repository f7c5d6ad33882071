"""A real queue with a provider that fails now and then, and its dashboard: for the browser's tests and the screenshots.

As a process: ``python -m tests.dashboard.site --port 8787`` until Ctrl-C. Commands on standard input, a line each:
``outage`` and ``well``.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from redis import Redis
from werkzeug.serving import make_server

from embedqueue import Budget, EmbeddingBatchQueue, Limits, OpenAIEmbedder
from embedqueue.dashboard import dashboard_app
from embedqueue.demo.localredis import LocalRedis
from embedqueue.observers.spending import figures_of_saved, figures_of_sent
from tests.provider import Provider, fail

MODEL = "google/gemini-embedding-001"
WORDS = """the bicycle chain jumps on biggest sprocket tighten cable quarter turn invoice shipping refund
customer meeting notes plan garden tomato soil water harbour fog lights""".split()
#: Texts with one of these are refused, with these words.
REFUSALS = {
    "[long]": "This model's maximum context length is 8192 tokens, however you requested 9417 tokens",
    "[blocked]": "The input was flagged by the content filter",
}
#: Seconds that anything here waits at most.
PATIENCE_SECONDS = 45


class Dashboard:
    """The dashboard on a free port of loopback. A context manager.

    Args:
        queue: what it shows.
        port: 0 for a free one.
        options: of the dashboard.
    """

    def __init__(self, queue: EmbeddingBatchQueue, port: int = 0, **options) -> None:
        app = dashboard_app(queue, open=True, **options)
        self._server = make_server("127.0.0.1", port, app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="dashboard", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join(PATIENCE_SECONDS)
        self._server.server_close()


def refuse(texts):
    """The provider's rule."""
    for mark, words in REFUSALS.items():
        if any(mark in text for text in texts):
            return fail(
                400, {"error": {"message": words, "type": "invalid_request_error", "param": None, "code": None}}
            )
    return None


def text(words: int = 40) -> str:
    """Words in no order."""
    return " ".join(random.choices(WORDS, k=words))


def write_past(client: Redis, now: float) -> None:
    """An hour and two weeks as workers would have written them, with five minutes in which the provider was down."""
    pipeline = client.pipeline()
    for ago in range(60, 0, -1):
        come = int(90 + 60 * random.random() + (140 if 22 < ago < 31 else 0))
        down = 12 < ago <= 17
        done = 0 if down else come + (520 if ago == 12 else 0)
        figures = {"enqueued": come, "embedded": done, "texts": done, "calls": done // 24 + 1}
        figures |= figures_of_sent(MODEL, "live", done, done * random.randint(60, 90), measured=True)
        figures |= figures_of_saved(MODEL, "duplicate", come // 12, come * 6)
        if down:
            figures |= {"failed transient 503": 6, "calls": 6, "released": 120}
        elif random.random() < 0.3:
            figures |= {"failed transient 429": 1}
        elif random.random() < 0.1:
            figures |= {"failed transient timeout": 1}
        for _ in range(0 if down else figures["calls"]):
            latency = f"latency {min(9, max(0, round(random.gauss(3.4 if ago < 17 else 2.4, 0.9))))}"
            figures[latency] = figures.get(latency, 0) + 1
        pipeline.hset(f"embed_queue:history:m:{int(now) // 60 - ago}", mapping=figures)
    for ago in range(14):
        then = time.gmtime(now - 86_400 * ago)
        texts = int(140_000 * (0.35 if then.tm_wday > 4 else 1) * (0.8 + 0.4 * random.random()) * (1 if ago else 0.7))
        figures = {"enqueued": texts, "embedded": texts, "calls": texts // 30, "texts": texts, "dead": 3 if ago else 0}
        figures |= figures_of_sent(MODEL, "live", texts, texts * 78, measured=True)
        figures |= figures_of_saved(MODEL, "cache", texts // 11, texts * 7)
        pipeline.hset(f"embed_queue:history:d:{time.strftime('%Y-%m-%d', then)}", mapping=figures)
    pipeline.execute()


def fill_dead(queue: EmbeddingBatchQueue, client: Redis) -> None:
    """Dead letters of several kinds."""
    queue.enqueue("doc:1", text()).result(PATIENCE_SECONDS)
    for at in range(34):
        queue.enqueue(f"doc:{1000 + 37 * at}", f"{'[blocked]' if at % 5 == 2 else '[long]'} {text(200)}")
    client.set("session:81f2c0", "not a hash")
    queue.enqueue("session:81f2c0", text())
    client.zadd("embed_queue:pending", {b'{"job": 17}': time.time()})
    queue.flush(PATIENCE_SECONDS)


@contextlib.contextmanager
def example_site(port: int = 0) -> Iterator[Dashboard]:
    """The dashboard of a queue at work, with dead letters, a long queue that waits, a budget and limits."""
    random.seed(4)
    with LocalRedis() as server, Provider() as provider:
        client = server.client()
        provider.rule = refuse
        write_past(client, time.time())
        embedder = OpenAIEmbedder("test-key", provider.openai_url, dimensions=16)
        options = {"limits": Limits(requests_per_minute=240, tokens_per_minute=4_000_000)}
        options |= {"budget": Budget(usd_per_day=2.0, usd_per_million_tokens=0.15)}
        queue = EmbeddingBatchQueue(embedder, client, MODEL, max_batch_size=5000, flush_interval=600.0, **options)
        ended = threading.Event()

        def feed() -> None:
            for at in itertools.count():
                if ended.wait(0.2):
                    return
                pairs = ((f"note:{at}:{i}", text()) for i in range(random.randint(0, 6)))
                queue.enqueue_many(pairs, within=random.choice([5, 600, 86_400]))

        with queue, Dashboard(queue, port, allow_changes=True) as site:
            site.provider, site.queue = provider, queue
            fill_dead(queue, client)
            apart = EmbeddingBatchQueue(embedder, client, MODEL, flush_interval=600.0, worker=False, history=False)
            apart.enqueue_many(
                (f"backfill:{at}", text()) for at in range(6000)
            )  # in no figure: they would dwarf the hour
            provider.latency = 0.25
            feeding = threading.Thread(target=feed, daemon=True)
            feeding.start()
            try:
                yield site
            finally:
                ended.set()
                feeding.join(PATIENCE_SECONDS)


def main() -> None:
    """Run until Ctrl-C, or until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    with example_site(parser.parse_args().port) as site:
        print(f"The dashboard is at {site.url}", flush=True)
        for line in sys.stdin:
            site.provider.rule = (lambda texts: fail(503)) if line.strip() == "outage" else refuse
            print(line.strip(), flush=True)


if __name__ == "__main__":
    main()
