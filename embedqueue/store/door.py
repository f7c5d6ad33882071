"""The store for a client of one Redis, or of a Redis Cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import redis

from embedqueue.values.errors import EmbedQueueError, OptionValueError
from embedqueue.values.limits import Limits

from .clients import close_connections, private_client
from .replicas import Replicas
from .scripts import GIVE_A_CLUSTER
from .store import Store

#: Seconds for which a cluster is waited for, unless an option says otherwise.
PATIENCE_SECONDS = 10.0


def open_store(
    client: redis.Redis | redis.RedisCluster,
    namespace: str,
    replicas: Replicas | None = None,
    limits: Limits | Literal["auto"] | None = None,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    note: Callable[[int, int], None] = lambda replicas, items: None,
    jobs_for: tuple[float, float] | None = None,
    promote: bool = True,
) -> Store:
    """The store of a queue.

    Args:
        client: the user's; it is only read.
        namespace: of the queue.
        replicas: see :class:`Store`.
        limits: see :class:`Store`.
        patience_seconds: for which a cluster is waited for; see :class:`ClusterStore`.
        note: see :class:`ClusterStore`.
        jobs_for: see :class:`Store`.
        promote: see :class:`Store`.

    Raises:
        ValueError: limits with a name, or batch jobs, on a cluster.
    """
    if not isinstance(client, redis.RedisCluster):
        return Store(client, namespace, replicas, limits, jobs_for, promote)
    if jobs_for is not None:
        raise OptionValueError("economy", "does not work on a Redis Cluster yet: leave it out there")
    if isinstance(limits, Limits) and limits.name is not None:
        raise OptionValueError("limits", "must have no name on a Redis Cluster: its namespaces share no node")
    from .cluster.store import ClusterStore  # few have a cluster, and everybody imports this

    return ClusterStore(client, namespace, replicas, limits, patience_seconds=patience_seconds, note=note)


def near(client: redis.Redis | redis.RedisCluster, namespace: str) -> tuple[Any, str, Callable[[], None]]:
    """A client for what stands beside a queue, what the names of its keys begin with, and what closes the client.

    On a cluster it is a client of the slot in which the queue's keys are, and so must be theirs.
    """
    if not isinstance(client, redis.RedisCluster):
        return client, namespace, client.close
    from redis.crc import key_slot

    from .cluster.nodes import Nodes
    from .cluster.slot import slot_client

    tagged, nodes = f"{{{namespace}}}", Nodes(client, PATIENCE_SECONDS)
    beside = slot_client(nodes, key_slot(tagged.encode()))

    def close() -> None:
        nodes.close()
        close_connections(beside)

    return beside, tagged, close


@contextlib.contextmanager
def plain_near(client: redis.Redis | redis.RedisCluster, namespace: str) -> Iterator[redis.Redis]:
    """The client of :func:`near`, of RESP2 and bytes whatever the URL names; both are closed at the end."""
    beside, _, close = near(client, namespace)
    plain = private_client(beside)
    try:
        yield plain
    finally:
        close_connections(plain)
        close()


def refuse_node(info: dict[str, Any], client: object) -> None:
    """Refuse a client of one Redis that is a node of a cluster.

    Args:
        info: the answer of INFO.
        client: the user's.

    Raises:
        EmbedQueueError: with a sentence that says what to give instead.
    """
    if info.get("cluster_enabled") and not isinstance(client, redis.RedisCluster):
        raise EmbedQueueError(GIVE_A_CLUSTER)
