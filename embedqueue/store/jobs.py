"""The provider's batch jobs as they stand in Redis, and the moves of items into them and out of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

from embedqueue.values.item import NotOurs, decode_member
from embedqueue.values.provenance import digest
from embedqueue.values.stats import BatchJob

from .keys import Keys
from .records import Terms, as_json, named_member
from .scripts import Scripts

#: Items that one script moves: while it runs, Redis serves nobody else.
MOVE_ITEMS = 250
#: Bytes of members that one script moves.
MOVE_BYTES = 1_000_000
#: Fields of the hash of jobs that are no jobs begin so.
_OWN = ":"

#: What became of a job. "planned": its items are chosen, nothing is at the provider but a file, perhaps. "submitting":
#: it may have been created. "submitted": it was. "ended": its items are served or went back; its files are still there.
#: "over": nothing of it is anywhere.
JobState = Literal["planned", "submitting", "submitted", "ended", "over"]


@dataclass(frozen=True, slots=True)
class Job:
    """What is known of a batch job.

    Attributes:
        name: ours; it is a part of the label at the provider.
        model: that it asks for.
        space: of its vectors; "" where an earlier release has made it.
        state: see :data:`JobState`.
        created: Unix time of the plan, by the server's clock, as all times here.
        texts: how many went into it, equal ones once.
        items: how many items these are of.
        tokens: of the texts, estimated.
        since: when this state began.
        provider_id: the provider's name of it; "" where it has none, or it is not known.
        file: the provider's name of the file that was uploaded; "" where there is none.
        status: what the provider says of it.
        done: texts that the provider has done, as it says; None where it does not.
        verified: whether its result was compared with a call.
        place: up to where its result is written: how many of its parts, and bytes of the next one.
        written: items that have their vector from it.
        back: items that went back.
        used_tokens: that the provider says it has charged; 0 where it has not said.
        note: why it ended otherwise than well; "" where it did not.
        misses: looks that did not find it.
        ended: when it ended; 0 where it has not.
        booked: whether what it has cost is booked.
    """

    name: str
    model: str = ""
    space: str = ""
    state: JobState = "planned"
    created: float = 0.0
    texts: int = 0
    items: int = 0
    tokens: int = 0
    since: float = 0.0
    provider_id: str = ""
    file: str = ""
    status: str = ""
    done: int | None = None
    verified: bool = False
    place: tuple[int, int] = (0, 0)
    written: int = 0
    back: int = 0
    used_tokens: int = 0
    note: str = ""
    misses: int = 0
    ended: float = 0.0
    booked: bool = False

    @property
    def owner(self) -> str:
        """Under which it holds its items."""
        return f"job:{self.name}"

    @property
    def active(self) -> bool:
        """Whether there is something to be done for it."""
        return self.state != "over"


class Led(NamedTuple):
    """How the jobs stand.

    Attributes:
        ours: whether it is on the caller to look after them.
        now: Unix time, by the server's clock.
        leader: who looks after them; "" where nobody does.
        off_until: until then nothing goes into jobs; 0 where everything may.
        jobs: all that are known, the oldest first.
        rest_until: until then no job is made.
        rests: how often in a row that was so.
        quota: estimated tokens that may be in jobs at a time, as was learned; None where nothing was.
        since: since when whoever looks after them has done so without a break; 0 where nobody does.
    """

    ours: bool
    now: float
    leader: str
    off_until: float
    jobs: list[Job]
    rest_until: float = 0.0
    rests: int = 0
    quota: int | None = None
    since: float = 0.0


class Outsourced(NamedTuple):
    """What a plan brought.

    Attributes:
        word: "taken", or why nothing was; see outsource.lua.
        members: that went into the job.
    """

    word: str
    members: list[bytes]


class Live(NamedTuple):
    """A text that a job still holds.

    Attributes:
        redis_key: of the item.
        member: its JSON.
        text: of the item.
        digest: of the text.
    """

    redis_key: str
    member: bytes
    text: str
    digest: str


@dataclass
class Jobs:
    """Moves items into batch jobs and out of them, and keeps what is known of these. Thread-safe.

    Every method raises ``redis.RedisError`` where Redis does not answer or refuses.

    Args:
        scripts: of the queue.
        keys: of the queue.
        jobs_for: see :class:`embedqueue.store.store.Store`.
    """

    scripts: Scripts
    keys: Keys
    jobs_for: tuple[float, float] | None = None
    spec: str = field(init=False)

    def __post_init__(self) -> None:
        """Write down what waits for jobs, as the scripts take it."""
        self.spec = "" if self.jobs_for is None else f"{self.jobs_for[0]!r} {self.jobs_for[1]!r}"
        self._call = self.scripts.call
        self._client: Any = self.scripts.background

    def _line_key(self, name: str) -> str:
        return f"{self.keys.job_prefix}{name}"

    def lead(self, who: str, seconds: float, terms: Terms | None = None) -> Led:
        """Take, renew or, with 0 seconds, leave the lease of whoever looks after the jobs; and read how they stand.

        Args:
            who: looks after them.
            seconds: for which the lease is to last.
            terms: on which the caller writes. Where they are not those of the namespace, the lease is left.
        """
        agreed = {} if terms is None else terms.agreed
        return self._led(self._call("lead", (self.keys.jobs,), who, seconds, 0, as_json(agreed)))

    def look(self) -> Led:
        """Read how they stand."""
        return self._led(self._call("lead", (self.keys.jobs,), "", 0, 1, "{}"))

    def _led(self, reply: Any) -> Led:
        ours, now, leader, off, fields, since = reply
        found = {fields[i].decode(): fields[i + 1].decode() for i in range(0, len(fields), 2)}
        jobs = [_job(name, text) for name, text in found.items() if not name.startswith(_OWN)]
        rest, _, rests = found.get(":rest", "0 0").partition(" ")
        return Led(
            ours == b"1",
            float(now),
            leader.decode(),
            float(off or 0),
            sorted(jobs, key=lambda job: job.created),
            float(rest),
            int(rests or 0),
            int(found[":quota"]) if ":quota" in found else None,
            float(since or 0),
        )

    def keep(self, who: str, job: Job, lines: Sequence[tuple[str, str]] = (), terms: Terms | None = None) -> bool:
        """Keep what is known of a job, and the digests of texts by redis_key.

        Args:
            who: looks after the jobs.
            job: as it is known.
            lines: redis_key and digest of each text.
            terms: on which its vectors will be written, where it is paid for from now on: others have to agree.

        Returns:
            False where somebody else looks after the jobs by now: then nothing has changed, and the caller must stop.
        """
        keys = self.keys.jobs, self._line_key(job.name)
        parts = [lines[at : at + MOVE_ITEMS] for at in range(0, len(lines), MOVE_ITEMS)] or [[]]
        for part in parts:
            ended = int(job.state in ("ended", "over"))
            flat = [word for line in part for word in line]
            agreed = "" if terms is None else as_json(terms.agreed)
            if self._call("keep_job", keys, who, job.name, json.dumps(asdict(job)), ended, agreed, *flat) != b"kept":
                return False
        return True

    def drop(self, who: str, name: str) -> None:
        """Forget a job."""
        self._call("keep_job", (self.keys.jobs, self._line_key(name)), who, name, "", 1)

    def rest(self, who: str, until: float, rests: int) -> None:
        """Make no job until then; ``rests``: how often in a row."""
        self._call("keep_job", (self.keys.jobs, self._line_key("-")), who, ":rest", f"{until:.3f} {rests}", 0)

    def learn_quota(self, who: str, tokens: int) -> None:
        """Have no more than so many estimated tokens in jobs at a time."""
        self._call("keep_job", (self.keys.jobs, self._line_key("-")), who, ":quota", str(tokens), 0)

    def switch_off(self, until: float) -> None:
        """Let nothing go into jobs until then: what waits for one is in the live lane. 0: from now on it may."""
        self._client.hset(self.keys.settings, "economy", f"{until:.3f}")

    def outsource(
        self,
        who: str,
        job: Job,
        terms: Terms,
        *,
        least: int,
        most: int,
        most_bytes: int,
        max_deliveries: int,
        affordable_bytes: int | None = None,
    ) -> Outsourced:
        """Move items that wait for it into a job, which is kept; to be repeated with ``least=1`` for more.

        Args:
            who: looks after the jobs.
            job: to be kept.
            terms: on which the caller writes.
            least: fewer items are not worth it.
            most: items at most; no more than ``MOVE_ITEMS``.
            most_bytes: of their members; one may be larger.
            max_deliveries: an item on its last delivery goes into no job.
            affordable_bytes: of their members, in any case; None: no such bound. Where it leaves fewer than ``least``,
                nothing goes into the job.
        """
        keys = self.keys.jobs, self._line_key(job.name)
        what = (who, job.name, json.dumps(asdict(job)), self.spec, least, min(most, MOVE_ITEMS))
        size = min(most_bytes, MOVE_BYTES)
        bounds = size, as_json(terms.agreed), max_deliveries, "" if affordable_bytes is None else affordable_bytes
        word, *members = self._call("outsource", keys, *what, *bounds)
        return Outsourced(word.decode(), members)

    def give_back(self, name: str, redis_keys: Sequence[str], *, again: bool = False) -> int:
        """Put items back that a job holds; ``again``: another job may take them. Returns how many it still held."""
        word, back = "again" if again else "live", 0
        for at in range(0, len(redis_keys), MOVE_ITEMS):
            back += self._call("give_back", (), name, self.spec, word, *redis_keys[at : at + MOVE_ITEMS])
        return back

    def pull(self, within: float | None = None, flush_interval: float = 0.0) -> int:
        """Put items into the live lane that are in jobs and due within so many seconds; None: all, and what waits.

        Args:
            within: seconds.
            flush_interval: seconds in which what has no patience of its own is due, where this process has no economy
                and no base is kept.

        Returns:
            How many.
        """
        pulled, what = 0, (self.spec or f"0 {flush_interval!r}", "all" if within is None else within)
        while some := self._call("pull", (), *what, MOVE_ITEMS, MOVE_BYTES):
            pulled += some
        return pulled

    def lines(self, name: str) -> dict[str, str]:
        """Of all that went into a job: the digest of the text by redis_key."""
        return {key.decode(): value.decode() for key, value in self._client.hgetall(self._line_key(name)).items()}

    def holds(self, name: str, redis_keys: Sequence[str]) -> bool:
        """Whether a job still holds any of these items."""
        end = f" job:{name}".encode()
        for at in range(0, len(redis_keys), MOVE_ITEMS):
            claims = self._client.hmget(self.keys.claims, redis_keys[at : at + MOVE_ITEMS])
            if any(claim is not None and claim.endswith(end) for claim in claims):
                return True
        return False

    def live(self, name: str, redis_keys: Sequence[str]) -> Iterator[Live]:
        """Of items that went into a job, those that it still holds."""
        for at in range(0, len(redis_keys), MOVE_ITEMS):
            part = redis_keys[at : at + MOVE_ITEMS]
            with self._client.pipeline(transaction=False) as pipeline:
                pipeline.hmget(self.keys.latest, part)
                pipeline.hmget(self.keys.claims, part)
                entries, claims = pipeline.execute()
            for redis_key, entry, claim in zip(part, entries, claims, strict=True):
                if entry is None or claim is None or not claim.endswith(f" job:{name}".encode()):
                    continue
                member = named_member(entry)
                try:
                    text = decode_member(member).text
                except NotOurs:  # somebody has meddled with latest
                    continue
                yield Live(redis_key, member, text, digest(text))


def told(job: Job) -> BatchJob:
    """What people are told of a job."""
    return BatchJob(
        name=job.name,
        model=job.model,
        state=job.state,
        provider_id=job.provider_id,
        status=job.status,
        created=job.created,
        ended=job.ended or None,
        texts=job.texts,
        items=job.items,
        done=job.done,
        written=job.written,
        back=job.back,
        tokens=job.tokens,
        used_tokens=job.used_tokens or None,
        note=job.note,
    )


def _job(name: str, text: str) -> Job:
    known = {one: value for one, value in json.loads(text).items() if one in Job.__dataclass_fields__}
    # An earlier release has booked what it had verified when it ended it, and kept no note of that.
    known.setdefault("booked", known.get("verified", False) and known.get("state") in ("ended", "over"))
    return replace(Job(**{**known, "name": name}), place=tuple(known.get("place", (0, 0))))
