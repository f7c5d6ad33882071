"""A process that works a queue with batch jobs until it is killed: REDIS_URL STAND_IN_URL VENDOR OPTIONS_AS_JSON."""

from __future__ import annotations

import json
import sys
import threading

import redis

from embedqueue import EmbeddingBatchQueue
from tests.jobs.options import OPTIONS, embedder_of


def main() -> None:
    redis_url, url, vendor, options = sys.argv[1:]
    client = redis.Redis.from_url(redis_url)
    queue = EmbeddingBatchQueue(embedder_of(vendor, url), client, **{**OPTIONS, **json.loads(options)})
    queue.start()
    print("started", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
