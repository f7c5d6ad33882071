"""Vectors into hashes of other slots: confirm in the queue's slot, write in the hash's, acknowledge in the queue's.

Between the steps anything may happen. What keeps an older vector from standing over a newer one:

- the write is fenced: the stamp beside the vector in the hash never falls (write.lua);
- and should the hash, and its fence with it, be deleted in between: from ``confirm`` until the write is settled, or can
  come no more, no newer text of the key is claimed (air.lua). A write comes no more after its deadline, by the clock of
  the node that writes, as read on that connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import redis
from redis.exceptions import ResponseError

from embedqueue.store.clients import refuses_one
from embedqueue.store.records import Terms, as_json
from embedqueue.store.replicas import Replicas
from embedqueue.values.provenance import digest

from .line import Order, script
from .lines import LATE, Lines
from .nodes import Nodes
from .scripts import ClusterScripts

#: Seconds for which a write may be in the air; lua/air.lua has the same.
AIR_SECONDS = 5.0
#: Seconds after its confirmation is asked for until which a write may be done: some less, for clocks do not run alike.
WRITE_SECONDS = 4.0
#: Seconds for which a claim waits for the receipts of writes whose workers have died.
RECEIPT_SECONDS = 1.0
#: What is said of an item whose hash has the vector of a later text of which the queue knows nothing.
AHEAD = (
    "its hash holds the vector of a later text that this queue does not remember: a failover may have lost it, or the "
    "hash was copied from another key. Enqueue the right text, or retry_dead() writes this one"
)

Item = tuple[str, bytes, bytes, str]
_Written = tuple[tuple[str, bytes, str], bytes]  # redis_key, member and text; and the fence beside its vector


def fence_field(terms: Terms) -> str:
    """The field that holds the fence of a hash: that of the provenance, or one of its own where there is none."""
    return terms.provenance_field or f"{terms.field}_stamp"


class Completion:
    """Writes vectors and acknowledges their items. Thread-safe.

    Args:
        scripts: of the queue.
        lines: to all hashes.
        nodes: of the cluster.
        replicas: that a write waits for before it is acknowledged; None: none.
        note: told how many replicas have what was written, and how many items that is.
    """

    def __init__(
        self,
        scripts: ClusterScripts,
        lines: Lines,
        nodes: Nodes,
        replicas: Replicas | None,
        note: Callable[[int, int], None],
    ) -> None:
        self._call = scripts.call
        self._lines = lines
        self._nodes = nodes
        self._replicas = replicas
        self._note = note

    def complete(self, owner: str, terms: Terms, items: Sequence[Item]) -> list[str]:
        """See ``Store._complete``.

        Raises:
            redis.RedisError: not all are known to be written; those that were are acknowledged.
        """
        words: list[str] = [""] * len(items)
        waiting = self._nodes.waiting()
        while left := [index for index, word in enumerate(words) if not word]:
            some = self._try(owner, terms, [items[index] for index in left])
            for index, word in zip(left, some, strict=True):
                words[index] = word
            if not all(some) and not waiting.again():
                raise redis.TimeoutError("a node of the cluster has not written vectors in time")
        return words

    def _try(self, owner: str, terms: Terms, items: Sequence[Item]) -> list[str]:
        """A word for each item; "" where it is not known whether it was written."""
        deadline_mono = time.monotonic() + WRITE_SECONDS
        pairs = [part for redis_key, member, *_ in items for part in (redis_key, member)]
        found = self._call("confirm", (), owner, as_json(terms.agreed), AIR_SECONDS, *pairs)
        words = [found[at].decode() for at in range(0, len(found), 3)]
        agrees = "differs" not in words
        held = [index for index, word in enumerate(words) if word == "held"]
        orders = [
            _order(terms, items[index], found[3 * index + 1], found[3 * index + 2], deadline_mono) for index in held
        ]
        repeated: set[int] = set()
        answers, replicated = self._lines.run(orders, self._replicas, repeated=repeated) if orders else ([], 0)
        told: dict[int, str] = {}
        fault: ResponseError | None = None
        for index, answer in zip(held, answers, strict=True):
            words[index], more = _word(answer)
            if more:
                told[index] = more
            if isinstance(answer, ResponseError) and not more:
                fault = answer  # the node is full, or may not write now
        if self._replicas is not None and held:
            self._note(replicated, sum(words[index] == "done" for index in held))
        known = [index for index, word in enumerate(words) if word and word != "differs"]
        # Futures of this process end when all are written; where that takes longer, its listener ends these before.
        by = owner if all(words) else ""
        # Of what was sent twice, the first copy may still come: its write stays in the air, settled by nobody.
        twice = {held[at] for at in repeated}
        for who, some in ((owner, [at for at in known if at not in twice]), ("", [at for at in known if at in twice])):
            lines = [part for index in some for part in (*items[index][:2], words[index])]
            ends_probe = agrees and bool(who)
            if lines or ends_probe:
                answer = self._call("acknowledge", (), who, str(int(ends_probe)), by, *lines)
                for index, word in zip(some, answer, strict=True):
                    words[index] = _told(word.decode(), told.get(index, ""))
        if fault is not None:
            raise fault
        return words

    def receipts(self, members: Sequence[tuple[str, bytes, str]], terms: Terms, owner: str) -> set[bytes]:
        """Acknowledge those of some claimed items whose vectors are written: their worker died before it could.

        Args:
            members: redis_key, member and text of each.
            terms: on which they would be written.
            owner: of the claim.

        Returns:
            The members that are acknowledged.
        """
        found = self._call("unsettled", (), *(redis_key for redis_key, *_ in members))
        asked = [(member, found[2 * at]) for at, member in enumerate(members) if found[2 * at]]
        if not asked:
            return set()
        # A node that does not answer holds up no claim: what it may have written is embedded once more.
        keys = [one[0] for one, _ in asked]
        fields = fence_field(terms), terms.field  # a fence outlives its vector where somebody takes that out
        pairs: list[Any] = self._lines.all_of(keys, b"HMGET", *fields, seconds=RECEIPT_SECONDS)
        written: list[_Written] = [
            (one, line)
            for (one, stamp), (line, vector) in zip(asked, (pair or (None, None) for pair in pairs), strict=True)
            if line and vector and _is_of(line, one[2], bytes(stamp), terms)
        ]
        if written and self._replicas is not None:
            written = self._replicated(written, self._replicas, terms)
        if not written:
            return set()
        parts = [part for (redis_key, member, _), _ in written for part in (redis_key, member, "done")]
        words = self._call("acknowledge", (), "", "0", "", *parts)
        return {member for ((_, member, _), _), word in zip(written, words, strict=True) if word == b"done"}

    def _replicated(self, written: Sequence[_Written], replicas: Replicas, terms: Terms) -> list[_Written]:
        """Those whose vectors as many replicas have. No claim waits long: the others are embedded once more."""
        brief = replace(replicas, patience_seconds=min(replicas.patience_seconds, RECEIPT_SECONDS))
        orders = [script("renew_one", one[0], fence_field(terms), line) for one, line in written]
        answers, count = self._lines.run(orders, brief, seconds=RECEIPT_SECONDS)
        return [one for one, answer in zip(written, answers, strict=True) if answer == 1 and count >= replicas.least]


def _order(terms: Terms, item: Item, stamp: bytes, least: bytes, deadline_mono: float) -> Order:
    redis_key, _, vector, of_text = item
    line = f"{of_text} {stamp.decode()}"
    if terms.provenance_field is not None:
        line = f"{terms.space} {line}"
    where = terms.field, fence_field(terms)
    return script(
        "write", redis_key, *where, line, stamp, of_text, least, terms.if_missing, vector, deadline_mono=deadline_mono
    )


def _word(answer: Any) -> tuple[str, str]:
    """What is acknowledged of a write, by its answer, "" where that is not known; and what is told of it, if more."""
    if isinstance(answer, ResponseError):
        return ("settled", f"refused {answer}") if refuses_one(answer) else ("", "")
    if answer == LATE:
        return "", ""
    word = answer.decode("utf-8", "replace")
    if word == "ahead":
        return "settled", f"refused {AHEAD}"
    if word.startswith("refused "):
        return "settled", word
    if word.startswith("replaced "):
        return "done", word
    return word, ""


def _told(word: str, more: str) -> str:
    """What ``Store._complete`` answers, by what was acknowledged and what ``_word`` tells beyond that."""
    if more and word != "stale":
        return more
    return "stale" if word == "outdated" else word


def _is_of(line: Any, text: str, stamp: bytes, terms: Terms) -> bool:
    """Whether a fence is that of an item."""
    parts = line.split(b" ") if isinstance(line, bytes) else []
    space = [] if terms.provenance_field is None else [terms.space.encode()]
    return parts == [*space, digest(text).encode(), stamp]
