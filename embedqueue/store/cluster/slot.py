"""A client of the node that has one slot, wherever that is now: what holds for a queue on one Redis holds over it."""

from __future__ import annotations

from functools import cache
from typing import Any

import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ReadOnlyError,
)

from embedqueue.store.clients import OwnPool

from .lazy import Address
from .nodes import Nodes
from .patience import NOT_DONE

#: Tries that there is patience for at least where a node does not answer, and seconds that each of them has at least.
TRIES = 3
LEAST_ANSWER_SECONDS = 1.0
#: Errors after which the slot may be another node's.
_DOUBTFUL = (redis.ConnectionError, redis.TimeoutError, ClusterDownError, ReadOnlyError)


class SlotPool(OwnPool):
    """Connections to the master of a slot.

    Args:
        nodes: of the cluster.
        slot: which one.
        connection_class: of redis-py, as the user's client has it.
        kwargs: for the connections.
    """

    def __init__(self, nodes: Nodes, slot: int, connection_class: Any, **kwargs: Any) -> None:
        self._nodes, self._slot, self._kind = nodes, slot, connection_class
        kwargs.update(host="", port=0)  # found when it connects
        super().__init__(connection_class=_at_slot(connection_class), at_slot=(nodes, slot), **kwargs)

    def another(self, **kwargs: Any) -> SlotPool:
        """Another pool to the same slot; ``kwargs`` as for the first one."""
        kwargs.pop("at_slot", None)
        return SlotPool(self._nodes, self._slot, self._kind, **kwargs)


def slot_client(nodes: Nodes, slot: int) -> redis.Redis:
    """A client of the master of a slot; it waits for a slot that moves, or has no master, as long as it may."""
    pool = nodes.template.connection_pool
    kwargs = {**pool.connection_kwargs, **nodes.settings}
    # A node that hangs must not use up the patience: its replica may be the master by now.
    most = max(LEAST_ANSWER_SECONDS, nodes.patience_seconds / TRIES)
    kwargs["socket_timeout"] = min(kwargs.get("socket_timeout") or most, most)
    return redis.Redis(connection_pool=SlotPool(nodes, slot, pool.connection_class, **kwargs))


@cache
def _at_slot(kind: Any) -> Any:
    """Connections of a kind, but each to the master of a slot, found anew each time that it connects."""

    class AtSlot(kind):  # type: ignore[misc]
        def __init__(self, *, at_slot: tuple[Nodes, int], **kwargs: Any) -> None:
            self._nodes, self._slot = at_slot
            super().__init__(**kwargs)
            self.retry = self._nodes.patience(*NOT_DONE)

        def _connect(self) -> Any:
            def connect(address: Address) -> Any:
                self.host, self.port = address
                return super(AtSlot, self)._connect()

            return self._nodes.reach(self._slot, connect)

        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().read_response(*args, **kwargs)
            except AuthenticationError:
                raise
            except AskError as error:
                self._nodes.moved(error)
                raise
            except _DOUBTFUL:
                self._nodes.doubt()
                raise

    AtSlot.__name__ = f"{kind.__name__}AtSlot"
    return AtSlot
