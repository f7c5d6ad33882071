"""The Lua scripts of a queue on a cluster: those of one Redis and what it adds, and those that run at one hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

import redis

from embedqueue.store.keys import Keys, Second
from embedqueue.store.replicas import Replicas
from embedqueue.store.scripts import SCRIPTS, Scripts, read_part, script_parts

from .nodes import Nodes
from .patience import NOT_DONE, UNSURE

#: Those that run in the queue's slot, and that only a cluster has.
OF_QUEUE: Final = ("confirm", "acknowledge", "unsettled", "known", "barred")
#: Those that run in the slot of one hash, or of one entry of the cache, and declare nothing else.
OF_HASH: Final = ("write", "erase_one", "label_one", "take_one", "hold_one", "renew_one")
#: Those of one Redis that a cluster has something else for.
_REPLACED: Final = (
    "complete", "erase", "label", "take_cached", "hold_cached", "enqueue_both", "end_change",
)  # fmt: skip
#: Those that air.lua stands in front of.
_OF_AIR: Final = ("claim", "confirm", "acknowledge", "unsettled", "known")
#: Those that are not done twice where an answer was lost: what they do would count twice, or be refused.
_ONCE: Final = ("claim", "settle", "raise_budget")

#: Arguments that one request has at most: hosted servers take 3,999, of which some are keys.
MOST_ARGUMENTS = 3_900
#: What stands in front of arguments that are sent all in one; lua/first.lua has the same.
MARK = b"embedqueue: all in one"


@cache
def _part(name: str) -> str:
    return (resources.files(__package__) / "lua" / f"{name}.lua").read_text("utf-8")


@cache
def _cluster_text(name: str, limited: bool) -> str:
    if name in OF_QUEUE:
        *shared, script = *map(read_part, ("names", "prelude", "prelude_claims")), _part(name)
    else:
        *shared, script = map(read_part, script_parts(name, limited))
    return "".join((_part("first"), *shared, _part("air") if name in _OF_AIR else "", script))


@cache
def hash_script(name: str) -> tuple[bytes, bytes]:
    """The digest and the text of a script that runs at one hash."""
    text = _part(name).encode()
    return hashlib.sha1(text).hexdigest().encode(), text


class ClusterScripts(Scripts):
    """Runs the scripts in the queue's slot, and waits for one that moves or has no master. Thread-safe as ``Scripts``.

    Args:
        nodes: of the cluster.
        client: of the queue's slot.
        keys: the names of the queue's keys.
        air: name of the HASH of the writes that are in the air.
        replicas: that have to have what is enqueued; None: none.
        limits: of the queue, or None.
    """

    on_cluster = True

    def __init__(
        self,
        nodes: Nodes,
        client: redis.Redis,
        keys: Keys,
        air: str,
        replicas: Replicas | None,
        limits: object,
    ) -> None:
        never = f"{keys.namespace}:never"  # see lua/first.lua
        names = (*(name for name in SCRIPTS if name not in _REPLACED), *OF_QUEUE)
        super().__init__(client, keys, replicas, limited=limits is not None, names=names, last_keys=(air, never))
        self._retry = nodes.patience(*NOT_DONE, *UNSURE)
        self._again = nodes.patience(*UNSURE)

    def call(
        self, name: str, further_keys: Sequence[str], *args: str | bytes | float, second: Second | None = None
    ) -> Any:
        """See ``Scripts.call``."""
        call = super().call
        if name in _ONCE:
            return call(name, further_keys, *args)
        return self._again.call_with_retry(lambda: call(name, further_keys, *args), lambda error: None)

    def reconnect(self) -> None:
        """The next scripts run on connections that are made by then: to whoever is the master."""
        self.background.connection_pool.disconnect(inuse_connections=False)

    def _text(self, name: str) -> str:
        return _cluster_text(name, self._limited)

    def _fit(self, parts: list[bytes]) -> list[bytes]:
        if len(parts) < MOST_ARGUMENTS and MARK not in parts:  # a key may be called like the mark
            return parts
        return [MARK, b" ".join(b"%d" % len(part) for part in parts), b"".join(parts)]
