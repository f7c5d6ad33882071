"""A worker process that a test may kill: ``python -m tests.cluster.worker PORTS [OPTION=VALUE ...]``."""

from __future__ import annotations

import json
import sys
import threading

import redis
from redis.cluster import ClusterNode

from embedqueue import EmbeddingBatchQueue
from tests.parts import DIMENSIONS, GatedEmbedder


def main() -> None:
    ports, *options = sys.argv[1:]
    client = redis.RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", int(port)) for port in ports.split(",")])
    told = {name: json.loads(value) for name, _, value in (option.partition("=") for option in options)}
    embedder = GatedEmbedder(DIMENSIONS)
    with EmbeddingBatchQueue(embedder, client, lease_seconds=2.0, **told):
        print("works", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
