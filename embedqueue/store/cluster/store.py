"""A queue's state on a Redis Cluster: the store of one Redis, and what is otherwise where hashes lie anywhere."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import redis
from redis.crc import key_slot

from embedqueue.store.adoption import Adoption
from embedqueue.store.change import Change
from embedqueue.store.records import Asked, Claim, Fill, Since, Taken, Terms, Unless, Within, as_json
from embedqueue.store.replicas import Replicas
from embedqueue.store.scripts import Scripts
from embedqueue.store.store import Store
from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.item import NotOurs, decode_member
from embedqueue.values.limits import Limits
from embedqueue.values.provenance import parts_of_space

from .anywhere import Anywhere
from .cache import ClusterCache
from .completion import Completion
from .hashes import ClusterHashes
from .lines import Lines
from .nodes import Nodes
from .patience import UNSURE
from .scripts import ClusterScripts
from .slot import slot_client

#: Vectors that an enqueue with if_changed brings along; if_changed.lua has the same.
FEW = 50
#: Seconds between looks whether a write that is in the air has come.
LOOK_SECONDS = 0.01


class ClusterStore(Store):
    """A queue's state on a cluster. Thread-safe as :class:`Store`.

    Args:
        client: the user's; it is only read.
        namespace: of the queue; its keys begin with it as a hash tag, and so share a slot.
        replicas: that have to have what is enqueued, and are waited for before a vector is acknowledged; None: none.
        limits: of what may be sent, or None.
        patience_seconds: for which the cluster is waited for.
        note: told how many replicas have vectors that were written, and how many items that is.
    """

    def __init__(
        self,
        client: redis.RedisCluster,
        namespace: str,
        replicas: Replicas | None = None,
        limits: Limits | Literal["auto"] | None = None,
        *,
        patience_seconds: float,
        note: Callable[[int, int], None] = lambda replicas, items: None,
    ) -> None:
        self._nodes = Nodes(client, patience_seconds)
        tagged = f"{{{namespace}}}"
        super().__init__(slot_client(self._nodes, key_slot(tagged.encode())), tagged, replicas, limits)
        scripts: Any = self._scripts
        self._reconnect = scripts.reconnect
        lines = self._lines = Lines(self._nodes, scripts.patience_seconds)
        self.hashes: ClusterHashes = ClusterHashes(
            scripts, self.keys, lines, self._nodes, (f"{tagged}:".encode(), f"{namespace}:".encode())
        )
        self.cache = ClusterCache(scripts, self.keys, lines, f"{namespace}:cache:")
        self.searching: Any = Anywhere(self._nodes, scripts.patience_seconds)
        self.change = _NoChange(scripts, self.keys)
        self.adoption = _Adoption(scripts, self.keys)
        self._completion = Completion(scripts, lines, self._nodes, replicas, note)

    def _make_scripts(
        self, client: redis.Redis, replicas: Replicas | None, limits: Limits | Literal["auto"] | None
    ) -> Scripts:
        return ClusterScripts(self._nodes, client, self.keys, f"{self.keys.namespace}:air", replicas, limits)

    def pending_count(self) -> int:
        """See :meth:`Store.pending_count`. It waits for a master that does not answer, as scripts do."""
        return self._nodes.patience(*UNSURE).call_with_retry(super().pending_count, lambda error: None)

    # -- enqueuing ---------------------------------------------------------------------------------------------

    def enqueue(
        self,
        groups: Sequence[Sequence[bytes]],
        *,
        max_pending: int | None,
        tell_at: int,
        tell_first: bool,
        unless: Unless | None = None,
        within: Within | None = None,
        fill: Fill | None = None,
        since: Since | None = None,
    ) -> Taken:
        """See :meth:`Store.enqueue`. What withdraws a key returns when no vector of its older texts can come any more.

        With ``unless``, the queue is asked first, then the hashes are: a vector that is found where nothing was live is
        of the key's newest text. With ``since``, only what is live counts, for the hashes lie elsewhere.
        """
        if fill is not None:
            raise EmbedQueueError("on a Redis Cluster, no vectors are embedded anew into a second field yet")
        left_out: list[bytes | None] = []
        if unless is not None:
            left_out = self._left_out(groups, unless)
            groups, within = _without(groups, within, left_out)
        taken = super().enqueue(
            groups,
            max_pending=max_pending,
            tell_at=tell_at,
            tell_first=tell_first,
            within=within,
            since=None if since is None else dataclasses.replace(since, provenance_field=None),
        )
        withdrawn = [group[at] for group in groups for at in range(0, len(group), 2) if len(group[at + 1]) < 2]
        if withdrawn:
            self._await_settled(withdrawn)
        return taken._replace(left_out=left_out) if unless is not None else taken

    def _left_out(self, groups: Sequence[Sequence[bytes]], unless: Unless) -> list[bytes | None]:
        keys = [group[at].decode() for group in groups for at in range(0, len(group), 2)]
        terms = unless.terms
        agreed = terms.read | {"provenance_field": terms.provenance_field or ""}
        asked = [key for key, of in zip(keys, unless.digests, strict=True) if of]
        in_order, words = self.hashes.live(asked, agreed)
        state = dict(zip(asked, words, strict=True))
        free = {
            key: of for key, of in zip(keys, unless.digests, strict=True) if of and in_order and state[key] != "live"
        }
        found = self.hashes.of_texts(free, terms, unless.vector_bytes, FEW) if free else {}
        dead = [key for key in found if state[key] == "dead"]
        if dead:
            self.dead.discard(dead)
        return [found.get(key) if of else None for key, of in zip(keys, unless.digests, strict=True)]

    def _await_settled(self, redis_keys: Sequence[bytes]) -> None:
        while True:
            found = self._call("unsettled", (), *redis_keys)
            if not any(found[1::2]):
                return
            time.sleep(min(LOOK_SECONDS, max(found[1::2]) / 1000))

    # -- working -----------------------------------------------------------------------------------------------

    def claim(self, owner: str, limit: int, *, terms: Terms | None = None, **how: Any) -> Claim:
        """See :meth:`Store.claim`. An item whose worker died between its write and its end is acknowledged instead."""
        claim = super().claim(owner, limit, terms=terms, **how)
        if terms is None or not claim.members:
            return claim
        gone = self._completion.receipts(list(_read(claim.members)), terms, owner)
        if not gone:
            return claim
        left = [member for member in claim.members if member not in gone]
        if not left and how.get("budget") is not None:  # nobody is going to: there is nothing to send
            self.budget.settle(owner, 0.0)
        if claim.status == "probe" and not left:
            self.release_probe(owner)
            claim = dataclasses.replace(claim, status="ok")
        return dataclasses.replace(claim, members=left)

    def _complete(self, owner: str, terms: Terms, items: Sequence[tuple[str, bytes, bytes, str]]) -> list[str]:
        """See :class:`Completion`: it takes three steps."""
        return self._completion.complete(owner, terms, items)

    # -- looking -----------------------------------------------------------------------------------------------

    def look(self, asked: Sequence[Asked], terms: Terms) -> list[tuple[str, bytes]]:
        """See :meth:`Store.look`. The queue's slot is asked first: a vector that is read after that is no older.

        A master that has stood still while it was replaced tells of the past until it hears of that. So what is told to
        be gone is asked for once more, of those that other nodes hold for masters.
        """
        found = self._look(asked, terms)
        gone = [at for at, (word, _) in enumerate(found) if word == "gone"]
        if gone:
            keys = [asked[at].redis_key.encode() for at in gone]
            self._nodes.question(map(key_slot, (self.keys.pending.encode(), *keys)))
            self._reconnect()
            for at, answer in zip(gone, self._look([asked[at] for at in gone], terms), strict=True):
                found[at] = answer
        return found

    def _look(self, asked: Sequence[Asked], terms: Terms) -> list[tuple[str, bytes]]:
        lines = [part for one in asked for part in (one.redis_key, str(one.stamp), one.digest)]
        no_hash = [self.keys.events] * len(asked)  # a key of our own
        reply = self._call("look", no_hash, "", as_json(terms.read), *lines)
        found = [(reply[at].decode(), reply[at + 1]) for at in range(0, len(reply), 2)]
        open_ = [index for index, (word, _) in enumerate(found) if word in ("gone", "blank", "forgotten")]
        keys = [asked[index].redis_key for index in open_]
        fields = [(b"HGET", field) for field in (terms.field, terms.provenance_field) if field]
        vectors, of = (*self._lines.each_of(keys, fields), [None] * len(keys))[:2]
        for index, vector, line in zip(open_, vectors, of, strict=True):
            found[index] = _outcome(asked[index], found[index], vector, line, terms)
        return found

    def close(self) -> None:
        """See :meth:`Store.close`."""
        self._nodes.close()
        super().close()
        self._lines.close()
        self.searching.close()


class _NoChange(Change):
    """There is no second field on a cluster: its queue has a slot of its own, which no script shares with the first."""

    def begin(self, field: str, provenance_field: str) -> None:
        raise EmbedQueueError(
            "on a Redis Cluster, vectors cannot be embedded anew into a second field yet: take another namespace and "
            "field for the new ones, enqueue there as well, and embedqueue backfill what there is"
        )


class _Adoption(Adoption):
    """Adopts without a look at the hashes, which lie elsewhere: what is too old is found when it is to be written."""

    def _hash_of(self, redis_key: str) -> str:
        return self._keys.events


def _read(members: Iterable[bytes]) -> Iterable[tuple[str, bytes, str]]:
    for member in members:
        try:
            item = decode_member(member)
        except NotOurs:
            continue
        yield item.redis_key, member, item.text


def _outcome(
    asked: Asked, found: tuple[str, bytes], vector: bytes | None, line: bytes | None, terms: Terms
) -> tuple[str, bytes]:
    """What look.lua says where it reads the hash itself."""
    word, told = found
    parts = line.split(b" ") if vector and line else []
    of = parts if len(parts) == 3 and parts[2].isdigit() else None
    if of is not None and vector:
        foreign = _is_foreign(of[0].decode("utf-8", "replace"), terms)
        if int(of[2]) >= asked.stamp and foreign:
            return "differs", b""
        if (of[1] == asked.digest.encode() and foreign is False) or int(of[2]) >= asked.stamp:
            return "done", vector
        if word == "gone" and of[1] == asked.digest.encode() and foreign:
            return "differs", b""
    if word != "gone" or vector is None or of is not None:
        return word, b""
    return ("done" if told == b"done" else "unproven"), vector


def _is_foreign(space: str, terms: Terms) -> bool | None:
    """Whether vectors of a space cannot be compared with those of these terms; None where it is none."""
    model, dimensions, _ = parts_of_space(space)
    if not model:
        return None
    return model != (terms.model or model) or dimensions != str(terms.dimensions or dimensions)


def _without(
    groups: Sequence[Sequence[bytes]], within: Within | None, left_out: Sequence[bytes | None]
) -> tuple[list[list[bytes]], Within | None]:
    """The pairs that are not left out, and their patience."""
    kept: list[list[bytes]] = []
    seconds: list[float | None] = []
    pair = 0
    for group in groups:
        kept.append([])
        for at in range(0, len(group), 2):
            if left_out[pair] is None:
                kept[-1] += group[at : at + 2]
                if within is not None:
                    seconds.append(within.seconds[pair])
            pair += 1
    return kept, None if within is None else Within(seconds, within.base_seconds)
