"""Children with queues of their own, killed at the end of each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.processes.peer import Peer

MakePeer = Callable[..., Peer]


@pytest.fixture
def make_peer(redis_server, redis_client, provider) -> Iterator[MakePeer]:
    """Starts children; on the session's Redis, with the test's provider."""
    made: list[Peer] = []

    def make(*, redis_url: str | None = None, **options: Any) -> Peer:
        peer = Peer(redis_url or redis_server.url, provider.openai_url, **options)
        made.append(peer)
        return peer

    yield make
    provider.release()
    for peer in made:
        peer.close()
