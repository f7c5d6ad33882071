"""What Redis answers, as values."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from embedqueue.values.limits import LimitLeft, Paid
from embedqueue.values.options import Options
from embedqueue.values.provenance import model_name, parts_of_space, space
from embedqueue.values.vectors import VectorType, size_bytes

from .budget import BudgetState
from .keys import NO_PROVENANCE as NO_PROVENANCE


def named_member(entry: bytes) -> bytes:
    """The member that an entry of ``latest`` names: what stands behind its stamp, or all of it in the first layout."""
    return entry if entry.startswith(b"{") else entry.partition(b" ")[2]


def named_stamp(entry: bytes) -> int:
    """The stamp of an entry of ``latest``, or what would be that of its last enqueue; 0 in the first layout."""
    stamp, _, time = (b"" if entry.startswith(b"{") else entry.partition(b" ")[0]).partition(b"/")
    return max(int(stamp), round(float(time or 0) * 1e6)) if stamp else 0


def enqueued_at(entry: bytes) -> float | None:
    """The Unix time that counts as that of the enqueue, by an entry of ``latest``; None in the first layout."""
    head = b"" if entry.startswith(b"{") else entry.partition(b" ")[0]
    stamp, _, time = head.partition(b"/")
    return min(int(stamp) / 1e6, float(time) if time else math.inf) if stamp else None


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a worker writes. What all workers of a namespace must agree in is kept in Redis and compared.

    Attributes:
        field: of the users' hashes, that receives the vector.
        provenance_field: receives what the vector is of; None: nothing is written of that.
        model: as ``values.provenance.model_name`` tells it.
        dimensions: length of the vectors; None while it is not known.
        space: in which the vectors are, the first word of the provenance.
        if_missing: "create" makes a hash that is gone anew; "skip" leaves it alone.
        vector_type: of the vectors' numbers.
    """

    field: str
    provenance_field: str | None
    model: str
    dimensions: int | None
    space: str
    if_missing: str
    vector_type: VectorType = "float32"

    def learned(self, kept: Mapping[str, str]) -> Terms:
        """The same with the length of this model's vectors that the namespace keeps, where it is yet to be learned."""
        length = int(kept.get("dimensions") or 0)
        if self.dimensions is not None or not length or kept.get("model", self.model) != self.model:
            return self
        return self._of_length(length)

    def sized(self, vector_bytes: int) -> Terms:
        """The same with the length of a vector of so many bytes, where it is yet to be learned.

        It may come from the cache before the embedder was ever called, or from one that never tells its length.
        """
        if self.dimensions is not None:
            return self
        return self._of_length(vector_bytes // size_bytes(1, self.vector_type))

    def _of_length(self, length: int) -> Terms:
        return replace(self, dimensions=length, space=space(self.model, length, parts_of_space(self.space).role))

    def where(self, kept: Mapping[str, str]) -> Terms:
        """The same with the fields in which the workers of the namespace write, where that is kept."""
        if "embedding_field" not in kept:
            return self
        named = kept.get("provenance_field", NO_PROVENANCE)
        return replace(self, field=kept["embedding_field"], provenance_field=None if named == NO_PROVENANCE else named)

    @property
    def agreed(self) -> dict[str, str]:
        """In what all who write must agree, by name; what is not known yet is not there."""
        role = parts_of_space(self.space).role
        return self.read | {"provenance_field": self.provenance_field or NO_PROVENANCE, "role": role}

    @property
    def read(self) -> dict[str, str]:
        """That part of it in which those who only read must agree with them."""
        all_of_it = {"embedding_field": self.field, "model": self.model, "dimensions": str(self.dimensions or "")}
        return {name: value for name, value in all_of_it.items() if value} | {"vector_type": self.vector_type}


def differing(kept: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """The names in which what is kept of a namespace and what a process has differ, as far as both are known."""
    return [name for name, value in kept.items() if ours.get(name, value) != value]


def as_json(values: dict[str, str]) -> str:
    """What the scripts decode."""
    return json.dumps(values, separators=(",", ":"))


def terms_of(options: Options, dimensions: int | None, role: str | None) -> Terms:
    """The terms of a queue.

    Args:
        options: of the queue.
        dimensions: of its embedder; None while they are not known.
        role: of documents, where the embedder has one.
    """
    return Terms(
        field=options.embedding_field,
        provenance_field=options.provenance_field,
        model=model_name(options.model),
        dimensions=dimensions,
        space=space(options.model, dimensions, role),
        if_missing=options.if_missing,
        vector_type=options.vector_type,
    )


@dataclass(frozen=True, slots=True)
class Unless:
    """Which pairs of an enqueue are left out where their hashes have vectors of these very texts.

    Attributes:
        terms: on which whoever enqueues would write.
        vector_bytes: of a vector.
        digests: of the texts, one for each pair, as ``values.provenance.digest`` tells it; "" where the pair is taken
            in whatever stands in its hash.
    """

    terms: Terms
    vector_bytes: int
    digests: Sequence[str]


@dataclass(frozen=True, slots=True)
class Within:
    """Which pairs of an enqueue have a patience of their own.

    Attributes:
        seconds: within which each pair is to be embedded; None where it has none of its own.
        base_seconds: how long an item may wait that has none, by the options of whoever enqueues; it counts from now on
            if nothing else is kept.
    """

    seconds: Sequence[float | None]
    base_seconds: float


@dataclass(frozen=True, slots=True)
class Fill:
    """That an enqueue is of texts which were found in hashes or in a queue, and takes in what nobody has changed since.

    Attributes:
        text_field: of the hashes; "" if they were found in a queue.
        terms: on which the queue writes.
        seen: what stood beside the vector of each, b"" where nothing did.
        latest: the key by which that queue names the newest text of each key; None if there is no such queue.
    """

    text_field: str
    terms: Terms
    seen: Sequence[bytes]
    latest: str | None = None


@dataclass(frozen=True, slots=True)
class Since:
    """That an enqueue is of texts which were found somewhere, and takes none of a key that has got a newer one since.

    Attributes:
        newest: for each pair, the stamp of the newest item of its key that was known then; 0 where none was.
        provenance_field: which tells, in the hashes, of items that are finished; None where only live ones can be seen.
    """

    newest: Sequence[int]
    provenance_field: str | None


class Taken(NamedTuple):
    """What an enqueue has taken in.

    Attributes:
        waiting: how many items wait now.
        groups: whether each group was taken.
        stamp: no item taken in is below it, unless it was live already; and each that was live before is.
        left_out: of each pair None; or, where it was left out because its hash has the vector of its text, that vector,
            b"" where there are many, or where it was left out for another reason. Nothing where no pair could be.
        replicas: how many replicas have all this; None where none have to.
        second_stamp: the stamp of a second queue that has taken it in as well; 0 where there is none.
    """

    waiting: int
    groups: Sequence[bool]
    stamp: int
    left_out: Sequence[bytes | None] = ()
    replicas: int | None = None
    second_stamp: int = 0


class Filled(NamedTuple):
    """What became of pairs that somebody has found.

    Attributes:
        taken: the keys of those that were taken in; the others have newer texts.
        stamps: theirs are from the first of these two on, and below the second.
    """

    taken: Collection[str]
    stamps: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Asked:
    """An item that somebody asks about.

    Attributes:
        redis_key: of the item.
        stamp: its stamp, or one that it is not below; 0 if that is not known.
        digest: of its text, as ``values.provenance.digest`` tells it.
    """

    redis_key: str
    stamp: int = 0
    digest: str = ""


def due_seconds(score_age: float | None, base: float | None, flush_interval: float) -> float | None:
    """Seconds until the first waiting item is due, less than 0 where it is overdue; None where none waits.

    By the namespace's base, an item with a patience of its own is due just when it says. By a shorter interval of this
    process it is due no later.

    Args:
        score_age: seconds since its score; None where nothing waits.
        base: of the namespace, in seconds; None where none is kept.
        flush_interval: of this process, in seconds.
    """
    if score_age is None:
        return None
    return min(flush_interval, math.inf if base is None else base) - score_age


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim brought.

    Attributes:
        status: "ok"; "probe": these items test a provider that failed; "paused": nobody claims; "budget": nobody does
            from now on, for the budget is spent; "adopt": the books must be put in order first; "differs": this worker
            must not claim; "late": nobody was to get this answer.
        owner: the name under which the members are held, ``WORKER:NUMBER/SECONDS:``.
        members: what was claimed, in order.
        waiting: how many items stay in pending.
        oldest_age_seconds: how long the first of those has waited; None where none waits.
        score_age_seconds: how long ago its score was; less than 0 where it may wait for longer than others.
        base_seconds: when so many have passed since its score, an item is due; None: by the options of the process.
        lease_end_seconds: how long until the next lease of anybody ends; None where nothing is in flight.
        pause_seconds: how long the pause still lasts, inf where it has no end; None where there is none.
        alone: whether an item on its last delivery has to travel alone. "no": there is none. "waits": it stays in
            pending until the caller has nothing in flight. "taken": it is the one member.
        waited_seconds: how long the oldest of the members has waited; 0 where there are none.
        ran_out: how many claims had a lease that ran out; their items wait again, or are rejected.
        rejected: members that became dead letters by this claim, the reason, and how often their lease had run out.
        strays: members that were met and that our books do not name.
        unknown: how many more members stand somewhere than our books name; less than 0 where they name too many.
        differs: settings in which this worker does not agree with what is kept in Redis, and what is kept.
        asked_mono: when Redis was asked, by our monotonic clock.
        limited_seconds: how long until the limits let more be claimed; None where they have held nothing back.
        limited_urgent: whether they held back what was to be claimed first.
        paid: what was taken from the limits for the members; None where there are none.
        meant: how many items wait for batch jobs; they are none of the waiting.
        promoted: how many of the members were taken out of batch jobs, because somebody waits for them.
    """

    status: str
    owner: str
    members: list[bytes]
    waiting: int
    oldest_age_seconds: float | None
    lease_end_seconds: float | None
    pause_seconds: float | None
    alone: str
    score_age_seconds: float | None = None
    base_seconds: float | None = None
    waited_seconds: float = 0.0
    ran_out: int = 0
    rejected: Sequence[tuple[bytes, str, int]] = ()
    strays: Sequence[bytes] = ()
    unknown: int = 0
    differs: Sequence[tuple[str, str]] = ()
    asked_mono: float = 0.0
    limited_seconds: float | None = None
    limited_urgent: bool = False
    paid: Paid | None = None
    meant: int = 0
    promoted: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """How a queue stands in Redis.

    Attributes:
        now: Unix time, by the server's clock.
        waiting: how many items wait.
        in_flight: how many items are claimed and not finished.
        dead: how many dead letters there are.
        oldest_age_seconds: how long the first waiting item has waited; None where none waits.
        score_age_seconds: how long ago its score was; less than 0 where it may wait for longer than others.
        base_seconds: when so many have passed since its score, an item is due; None: by the options of the process.
        lease_end_seconds: how long until the next lease ends; None where nothing is in flight.
        pause_seconds: how long the pause still lasts, inf where it has no end; None where there is none.
        pause_reason: why there is a pause, in words for people; "" where there is none.
        failing: the provider has not answered well since it failed.
        unfinished: how many items the flush that was asked for still waits for.
        probe: the owner of the claim that tests the provider, or "".
        strays: how many more members stand somewhere than our books name; if not 0, the books must be put in order.
        workers: how many workers work; None where that was not asked, or Redis does not let us know.
        limits: what is left of each limit.
        budget: what is spent; None where that was not asked, or Redis does not let us know.
        meant: how many items wait for batch jobs; they are none of the waiting.
        outsourced: how many are in batch jobs; they are none of those in flight.
        bound: the score above which items wait for batch jobs; None where nothing does.
    """

    now: float
    waiting: int
    in_flight: int
    dead: int
    oldest_age_seconds: float | None
    lease_end_seconds: float | None
    pause_seconds: float | None
    pause_reason: str
    failing: bool
    unfinished: int
    probe: str
    strays: int = 0
    score_age_seconds: float | None = None
    base_seconds: float | None = None
    workers: int | None = None
    limits: Sequence[LimitLeft] = ()
    budget: BudgetState | None = None
    meant: int = 0
    outsourced: int = 0
    bound: float | None = None

    @property
    def probing(self) -> bool:
        """Whether nobody claims because a call tests the provider just now."""
        return bool(self.probe) and not self.pause_reason


@dataclass(frozen=True, slots=True)
class Notice:
    """One entry of the events stream.

    Attributes:
        kind: "wake", "flush", "urgent", "done", "truncated", "stale", "blank", "forgotten", "failed", "unserved" or
            "paused"; see docs/design.md.
        by: the worker that tells, or "".
        body: a JSON list of redis_keys, a JSON object, or "".
        ms: when it was told, by Redis' clock, in milliseconds since 1970.
    """

    kind: str
    by: str
    body: str
    ms: int = 0
