"""The names of a queue's keys in Redis."""

from __future__ import annotations

from typing import NamedTuple

#: What is kept for a provenance field where nothing is written of what vectors are of.
NO_PROVENANCE = "(none)"


class Second(NamedTuple):
    """The second queue of a namespace, whose texts are embedded anew into another field.

    Attributes:
        word: as it stands in ``settings`` of the first queue: ``FIELD PROVENANCE_FIELD``.
        keys: these, in the order of ``Keys.all``.
    """

    word: str
    keys: list[bytes]

    @property
    def field(self) -> str:
        """The field that receives its vectors."""
        return self.word.partition(" ")[0]

    @property
    def provenance_field(self) -> str:
        """The field that receives what they are of; "" where none does."""
        name = self.word.partition(" ")[2]
        return "" if name == NO_PROVENANCE else name


#: Scores of ``inflight`` from here on are of items in batch jobs; names.lua has the same.
JOBS_SCORE = 1e11


class Keys:
    """The names of a queue's keys, in the order in which every script declares them.

    docs/design.md, section 3, is the contract; all times are Unix seconds by the server's clock.

    Args:
        namespace: what all of them begin with.

    Attributes:
        namespace: as given.
        pending: ZSET of the items that wait: member to the time of its enqueue.
        inflight: ZSET of the items that were claimed: member to the end of its lease.
        alone: ZSET of the items that wait for their last delivery, which each is claimed alone for: as pending.
        latest: HASH, redis_key to ``STAMP MEMBER`` of its one live item.
        claims: HASH, redis_key to ``SCORE DELIVERIES OWNER``; without owner while the item waits again.
        dead: ZSET of the items that were given up: member to the time of that.
        dead_info: HASH, redis_key (or the member, if not our JSON) to JSON: member, reason, deliveries.
        events: STREAM of notices: kind, by, body.
        settings: HASH of the layout of these keys, the last stamp, what processes must agree in, and their numbers.
        flushes: HASH, name of a flush to ``STAMP LEFT UNTIL``.
        pause: STRING that says why nobody claims; while it exists nobody does.
        pause_level: STRING, how often in a row the provider has failed.
        pause_probe: STRING, the owner of the claim that tests the provider; while it exists nobody else claims.
        pause_ours: STRING, ``MS WORDS`` of a pause that a failure has made.
        workers: HASH, worker to ``UNTIL SECONDS SINCE FACTS``, of those that work now.
        runs: HASH, name of a run to ``OWNER UNTIL SECONDS FACTS``, and ``? NAME`` to what somebody wants of it.
        jobs: HASH, name of a batch job to JSON; ``:lead`` to who looks after them.
        job_prefix: what is before such a name in that of a HASH, redis_key to digest of its text.
        cache_prefix: what is before a digest in the name of a STRING that holds a vector, or ``busy OWNER``.
        history_prefix: what the names of HASHes of figures begin with, one for each minute and each day.
        pauses: the four of pauses.
        all: what every script declares, but for ``enqueue``, which declares the first ten. ``workers`` is none of them:
            where an ACL of before forbids it, everything else goes on.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.pending = f"{namespace}:pending"
        self.inflight = f"{namespace}:inflight"
        self.alone = f"{namespace}:alone"
        self.latest = f"{namespace}:latest"
        self.claims = f"{namespace}:claims"
        self.dead = f"{namespace}:dead"
        self.dead_info = f"{namespace}:dead:info"
        self.events = f"{namespace}:events"
        self.settings = f"{namespace}:settings"
        self.flushes = f"{namespace}:flushes"
        self.pause = f"{namespace}:pause"
        self.pause_level = f"{namespace}:pause:level"
        self.pause_probe = f"{namespace}:pause:probe"
        self.pause_ours = f"{namespace}:pause:ours"
        self.workers = f"{namespace}:workers"
        self.jobs = f"{namespace}:jobs"
        self.job_prefix = f"{namespace}:job:"
        self.cache_prefix = f"{namespace}:cache:"
        self.budget = f"{namespace}:budget"
        self.runs = f"{namespace}:runs"
        self.history_prefix = f"{namespace}:history:"
        self.pauses = (self.pause, self.pause_level, self.pause_probe, self.pause_ours)
        self.all = (
            self.pending, self.inflight, self.alone, self.latest, self.claims, self.dead,
            self.dead_info, self.events, self.settings, self.flushes, *self.pauses,
        )  # fmt: skip

    def second(self, word: str) -> Second:
        """The second queue that is kept as ``FIELD PROVENANCE_FIELD``."""
        namespace = second_namespace(self.namespace, word.partition(" ")[0])
        return Second(word, [key.encode() for key in Keys(namespace).all])


def second_namespace(namespace: str, field: str) -> str:
    """The namespace of the queue that embeds a namespace's texts into another field."""
    return f"{namespace}:{field}"
