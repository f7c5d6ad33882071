"""A queue's state in Redis: one method for each move, which is one script and atomic."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from embedqueue.values.item import NotOurs, decode_member
from embedqueue.values.limits import Limits, Paid

from .adoption import Adoption
from .answers import claim_of, pause_seconds, status_of
from .budget import BudgetBook, BudgetTerms
from .cache import CachedVectors
from .change import Change
from .clients import refuses_one
from .dead import DeadLetters
from .events import Events
from .figures import Figures
from .hashes import Hashes
from .items import Items
from .jobs import Jobs
from .keys import Keys
from .limits import Buckets
from .records import Asked, Claim, Fill, Since, Status, Taken, Terms, Unless, Within, as_json, named_member
from .replicas import Replicas
from .runs import Runs
from .scripts import Scripts
from .stalls import Stalls
from .workers import Workers

#: Characters of a reason that are kept, in each of its notices, too: the words of an embedder of one's own may hold all
#: the texts of its call.
REASON_CHARS = 1000
#: The settings in which processes must agree, those of ``Terms.agreed``; prelude_claims.lua has the same.
AGREED = ("embedding_field", "provenance_field", "model", "dimensions", "role", "vector_type")
#: What a namespace has agreed in that keeps other settings but not this one: an earlier release has kept them.
AGREED_BEFORE = {"vector_type": "float32"}
#: Bytes of members that one claim takes at most, but for the last of them.
CLAIM_BYTES = 1_000_000
#: Items that one claim takes at most: Lua's stack has room for an answer of about 7,900.
CLAIM_ITEMS = 5000
#: Keys that one step of a walk through all of them may bring, about.
SCAN_KEYS = 250


def _flat(lines: Iterable[Iterable[Any]]) -> list[Any]:
    return [value for line in lines for value in line]


class Store:
    """A queue's state in Redis. Thread-safe, but for ``enqueue``, which one thread at a time may call.

    Every method raises ``redis.RedisError`` where Redis does not answer or refuses. Then it is not
    known whether the move was made. Times of arguments and answers are seconds.

    Args:
        client: the user's client; it is only read.
        namespace: what the names of the queue's keys begin with.
        replicas: that have to have what is enqueued; None: none.
        limits: of what may be sent, or None.
        jobs_for: how many seconds before it is due an item is too late for a batch job, and the base of scores where
            none is kept; None: nothing waits for jobs.
        promote: whether an item is taken out of a job when somebody waits for it.

    Attributes:
        replaced: called with another space and ours, once for each vector of it in whose place one of ours was written.
        client: of ours, for what is no move of the queue; on a cluster it reaches the queue's slot alone.
        searching: of ours, for searches.
        keys: the names of the queue's keys.
        buckets: of the limits; None where there are none.
        dead: the dead letters.
        events: the notices.
        cache: the vectors by text.
        figures: what was done by minute and by day.
        workers: who works.
        adoption: puts the books in order after another program has left or taken members.
        hashes: what the users' hashes have.
        budget: what is spent of a budget.
        stalls: the stamps that a sink is given, and pauses while it takes nothing.
        change: of the field.
        items: the live items, for people who look.
        runs: the named runs.
        jobs: the provider's batch jobs, and what waits for them.
    """

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        replicas: Replicas | None = None,
        limits: Limits | Literal["auto"] | None = None,
        jobs_for: tuple[float, float] | None = None,
        promote: bool = True,
    ) -> None:
        self.keys = Keys(namespace)
        self._promote = promote
        self._scripts = self._make_scripts(client, replicas, limits)
        self._call = self._scripts.call
        self.buckets = None if limits is None else Buckets(namespace, limits, self._call)
        self._limit_keys = () if self.buckets is None else (self.buckets.key,)
        self.client = self._background = self._scripts.background
        self.dead = DeadLetters(self._scripts, self.keys)
        self.events = Events(self._scripts, self.keys)
        self.cache = CachedVectors(self._scripts, self.keys)
        self.figures = Figures(self._background, self.keys)
        self.workers = Workers(self._scripts, self.keys)
        self.searching = self.client
        self.replaced: Callable[[str, str], None] = lambda other, ours: None
        self._kept: Mapping[str, str] = {}  # what the namespace agrees in, once it has a length
        self._ahead: float | None = None  # what has to be added to our monotonic clock for the server's
        self.adoption = Adoption(self._scripts, self.keys)
        self.hashes = Hashes(self._scripts, self.keys)
        self.budget = BudgetBook(self._scripts, self.keys)
        self.stalls = Stalls(self._scripts)
        self.change = Change(self._scripts, self.keys)
        self.items = Items(self._scripts, self.keys)
        self.runs = Runs(self._scripts, self.keys)
        self.jobs = Jobs(self._scripts, self.keys, jobs_for)

    def _make_scripts(
        self, client: redis.Redis, replicas: Replicas | None, limits: Limits | Literal["auto"] | None
    ) -> Scripts:
        return Scripts(client, self.keys, replicas, limited=limits is not None)

    @property
    def _limits(self) -> str:
        """The limits as the scripts take them."""
        return "" if self.buckets is None else self.buckets.spec

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
        """Make groups of pairs durable in one round trip.

        Args:
            groups: redis_key and member alternate in each; an empty member withdraws the key, because its text is
                blank, and ``values.item.FORGOTTEN`` because it has none any more. A group is taken whole or not at all.
            max_pending: most items that may wait; None for no limit.
            tell_at: the workers are told when so many items wait.
            tell_first: the workers are told when the first item waits, too.
            unless: which pairs are left out where their hashes have vectors of the very texts; None: none.
            within: which pairs have a patience of their own; None: none.
            fill: they were found somewhere, and are left out where somebody has been quicker; None: they are new.
            since: they were found somewhere, and are left out where their keys have newer texts since; None: not so.

        Raises:
            redis.RedisError: nothing is known to have been accepted; the user's retry policy has ended.
            EmbedQueueError: the keys are of another release's layout, and nothing was accepted; or replicas have to
                have it, and Redis refuses to tell.
        """
        parts = [b"%d" % len(groups), *(b"%d" % (len(group) // 2) for group in groups)]
        for group in groups:
            parts += group
        more: dict[str, Any] = {}
        hashes: list[str] = []
        keys = [group[i] for group in groups for i in range(0, len(group), 2)] if unless or fill or since else []
        if fill is not None:
            hashes = [key.decode() for key in keys] + ([] if fill.latest is None else [fill.latest])
            where = {"text_field": fill.text_field, "provenance": fill.terms.provenance_field}
            more = {"fill": {**where, "seen": [line.decode("utf-8", "replace") for line in fill.seen]}}
        if unless is not None:
            hashes = [key.decode() for key, digest in zip(keys, unless.digests, strict=True) if digest]
            terms = unless.terms
            what = {"provenance": terms.provenance_field, "space": terms.space, "size": unless.vector_bytes}
            # In another field may stand what a vector was of that has been replaced since.
            agreed = terms.read | {"provenance_field": terms.provenance_field}
            more = {"unless": {**what, "terms": agreed}, "digests": unless.digests}
        if since is not None:
            hashes = [key.decode() for key in keys] if since.provenance_field else []
            more = {"since": {"newest": list(since.newest), "provenance": since.provenance_field or ""}}
        if within is not None:
            more |= {"base": within.base_seconds, "within": [False if one is None else one for one in within.seconds]}
        settings = max_pending or 0, tell_at, int(tell_first)
        (waiting, stamp, words, second_stamp, *rest), replicas = self._scripts.enqueue(settings, parts, more, hashes)
        left_out: list[bytes | None] = []
        if rest:
            bits, *some = rest
            vectors = iter(some)
            left_out = [next(vectors, b"") if bit == ord("1") else None for bit in bits]
        return Taken(waiting, [word == ord("y") for word in words], int(stamp), left_out, replicas, int(second_stamp))

    # -- working -----------------------------------------------------------------------------------------------

    def claim(
        self,
        owner: str,
        limit: int,
        *,
        probe_limit: int,
        lease_seconds: float,
        max_deliveries: int,
        alone: bool | None,
        patient: bool = False,
        unordered: bool = False,
        urgent: Iterable[str] = (),
        terms: Terms | None = None,
        budget: BudgetTerms | None = None,
    ) -> Claim:
        """Claim items, under a lease; items whose lease ran out wait again first, or are rejected.

        Args:
            owner: the name of this claim, ``WORKER:NUMBER/SECONDS:`` with the seconds of its lease. The numbers of a
                worker's claims rise: one that comes late is refused.
            limit: most items to claim; ``CLAIM_ITEMS`` at most are. With 0, only leases that ran out are dealt with.
            probe_limit: most items to claim where the claim tests a provider that failed.
            lease_seconds: how long the items are the owner's without a sign of life.
            max_deliveries: an item whose lease has run out so often becomes a dead letter.
            alone: whether the caller has nothing in flight, so that an item on its last delivery may be claimed, alone;
                None leaves such items to others.
            patient: leave leases that ran out alone: nobody could renew them while Redis was away.
            unordered: claim although the books are not in order.
            urgent: redis_keys that are claimed before the oldest items.
            terms: on which the caller writes; None compares nothing.
            budget: of which what is claimed is reserved; None: none.

        Returns:
            What was claimed, and how the queue stands; empty while a pause lasts.

        Raises:
            EmbedQueueError: the keys are of another release's layout; nothing was claimed.
        """
        asked_mono, limit = time.monotonic(), min(limit, CLAIM_ITEMS)
        agreed = as_json({} if terms is None else terms.agreed)
        deadline = "" if self._ahead is None else f"{asked_mono + self._ahead + self._scripts.patience_seconds:.6f}"
        word = "never" if alone is None else int(alone)
        settings = (limit, probe_limit, CLAIM_BYTES, owner, lease_seconds, max_deliveries, word, int(patient))
        money, money_keys = ("", ()) if budget is None else (budget.text, (self.keys.budget,))
        words = (deadline, int(unordered), agreed, self._limits, money, self.jobs.spec, int(self._promote))
        reply = self._call("claim", (*self._limit_keys, *money_keys), *settings, *words, *urgent)
        claim, now = claim_of(reply, owner, asked_mono)
        self._ahead = now - time.monotonic()
        return claim

    def complete(self, owner: str, terms: Terms, items: Sequence[tuple[str, bytes, bytes, str]]) -> list[str]:
        """Write vectors and acknowledge their items.

        Args:
            owner: the name of the claim of whoever writes.
            terms: what to write where.
            items: redis_key, member, bytes of the vector, digest of the text; neighbours that share the object
                of the vector are sent it once.

        Returns:
            A word for each item: "done"; "skipped": there is no hash; "stale": it is no longer in flight, or not the
            latest of its key, and nothing was written; "refused ...": Redis does not let us write its hash, and it is
            still in flight; "differs": the terms are not those of the namespace, and it is still in flight.
        """
        words = self._complete(owner, terms, items)
        for at, word in enumerate(words):
            if word.startswith("replaced "):
                words[at] = "done"
                self.replaced(word.removeprefix("replaced "), terms.space)
        return words

    def _complete(self, owner: str, terms: Terms, items: Sequence[tuple[str, bytes, bytes, str]]) -> list[str]:
        """The same, with "replaced SPACE" where a vector of that other space was there, else "done"."""
        provenance, agreed = terms.provenance_field or "", as_json(terms.agreed)
        args: list[str | bytes] = [owner, terms.if_missing, provenance, terms.space, agreed]
        before = None
        for _, member, vector, digest in items:
            args += (member, digest, b"" if vector is before else vector)
            before = vector
        redis_keys = [redis_key for redis_key, *_ in items]
        try:
            reply = self._call("complete", redis_keys, *args)
        except ResponseError as error:
            if not refuses_one(error):
                raise
            if len(items) > 1:  # one key, or the size of all: the others shall not suffer for it
                half = len(items) // 2
                parts = (items[:half], items[half:])
                return [word for part in parts for word in self._complete(owner, terms, part)]
            if isinstance(error, NoPermissionError):
                return [f"refused {error}"]
            self._call("complete", (), *args[:5])  # raises where Redis refuses whatever we send
            try:
                reply = self._call("complete", redis_keys, *args)  # it may have done so until now
            except ResponseError as still:
                if not refuses_one(still):
                    raise
                return [f"refused {still}"]
        return [word.decode("utf-8", "replace") for word in reply]

    def release(self, items: Sequence[tuple[str, bytes]], paid: Paid | None = None) -> int:
        """Release items: they wait again under their old score, and no delivery is counted.

        Args:
            items: the name of its claim, and the member, of each.
            paid: what was taken from the limits for them and is given back, for they were not sent.

        Returns:
            How many were released; what those very claims no longer hold stays where it is.
        """
        words = "" if paid is None else paid.words
        return int(self._call("release", self._limit_keys, words, *_flat(items)) if items else 0)

    def release_all(self, owner: str, paid: Paid | None = None) -> int:
        """Release what a claim or a whole worker holds, whatever it is. Looks through all that is in flight, in slices.

        The claim is refused if it is still on its way. What it has taken from the limits is given back.

        Args:
            owner: the name of the claim, or of the worker, with its colon; that claims nothing more then.
            paid: of a whole worker, what it has taken from the limits for what it has not sent.

        Returns:
            How many items were released.
        """
        cursor: Any = b"0"
        released, words = 0, "" if paid is None else paid.words
        while True:
            cursor, count = self._call("release_all", self._limit_keys, owner, cursor, words)
            released += count
            if cursor == b"0":
                return int(released)

    def release_probe(self, owner: str) -> None:
        """Let the next claim test the provider, because this one could not; ``owner``: the name of this claim."""
        self._call("release_probe", (), owner)

    def extend(self, owner: str, lease_seconds: float, members: Iterable[bytes]) -> int:
        """Renew the leases of items.

        Args:
            owner: the worker, with its colon.
            lease_seconds: from now on.
            members: which items.

        Returns:
            How many the worker still held.
        """
        return int(self._call("extend", (), owner, lease_seconds, *members))

    def reject(self, owner: str, items: Sequence[tuple[str, bytes, str, bool]]) -> list[str]:
        """Reject items: they become dead letters.

        Args:
            owner: the name of the claim of whoever rejects; if it tested the provider, that is well again.
            items: the name of its claim, member, reason, and whether the member is not our JSON; of a reason,
                ``REASON_CHARS`` are kept.

        Returns:
            A word for each item: "dead", or "stale": that very claim no longer holds it, and nothing changed.
        """
        lines = [
            (owner, member, reason[:REASON_CHARS], "foreign" if foreign else "")
            for owner, member, reason, foreign in items
        ]
        return [word.decode() for word in self._call("reject", (), owner, *_flat(lines))]

    def fail(
        self,
        owner: str,
        items: Sequence[tuple[str, bytes]],
        *,
        first_seconds: float,
        most_seconds: float,
        least_seconds: float,
        reason: str,
    ) -> float:
        """The provider failed: release the items of a call, and stop all claiming for a while.

        Args:
            owner: the name of the claim whose call failed.
            items: the name of its claim, and the member, of each.
            first_seconds: how long the first pause in a row lasts; each further one lasts twice as long.
            most_seconds: the longest pause.
            least_seconds: the shortest pause, which the provider asks for; 0 where it does not.
            reason: why, in words for people; ``REASON_CHARS`` are kept.

        Returns:
            How many seconds the pause still lasts; 0 without a pause, where nothing was left to release.
        """
        times = (int(seconds * 1000) for seconds in (first_seconds, most_seconds, least_seconds))
        return pause_seconds(self._call("fail", (), owner, *times, reason[:REASON_CHARS], *_flat(items))) or 0.0

    def hold(self, seconds: float | None, reason: str) -> None:
        """Stop all claiming because a person wants it, for so many seconds, or with None without an end."""
        self._background.delete(self.keys.pause_ours)  # it is no pause of ours, even if the words are the same
        self._background.set(self.keys.pause, reason, px=None if seconds is None else max(1, int(seconds * 1000)))

    def unhold(self) -> bool:
        """End a pause, whoever made it; a call that tests the provider goes on. Tells whether there was a pause."""
        ended = bool(self._background.delete(self.keys.pause))
        if ended:
            self.events.tell("wake", "")
        return ended

    # -- looking -----------------------------------------------------------------------------------------------

    def pause_reason(self) -> str | None:
        """Tell why nobody claims, in words for people; None where there is no pause."""
        reason: Any = self._background.get(self.keys.pause)
        return None if reason is None else reason.decode("utf-8", "replace")

    def status(self, flush: str = "", *, anyway: bool = False, workers: bool = False, budget: bool = False) -> Status:
        """Tell how the queue stands.

        Args:
            flush: a name. Under it is counted how many items are not finished of those that were live when it was first
                asked for. Nothing is counted while the books are not in order; :meth:`end_flush` ends it.
            anyway: count although they are not: what nobody has adopted is not waited for.
            workers: count those who work as well.
            budget: tell what is spent as well.
        """
        more = ((self.keys.budget,) if budget else ()) + ((self.keys.workers,) if workers else ())
        words = (flush, int(anyway), self._limits, int(workers), int(budget), self.jobs.spec)
        try:
            reply = self._call("status", (*self._limit_keys, *more), *words)
        except NoPermissionError:  # an ACL of before knows nothing of one of these keys, or of both
            if not more:
                raise
            found = self.status(flush, anyway=anyway, workers=workers and budget)
            if budget and found.workers is None:
                with contextlib.suppress(NoPermissionError):
                    return replace(found, budget=self.budget.state())
            return found
        return status_of(reply, budget=budget)

    def end_flush(self, flush: str) -> None:
        """Count no more for a flush of this name."""
        self._background.hdel(self.keys.flushes, flush)

    def look(self, asked: Sequence[Asked], terms: Terms) -> list[tuple[str, bytes]]:
        """Tell what became of items.

        Args:
            asked: which items.
            terms: on which whoever asks would write: where the vector and what it is of stand, and of which model.

        Returns:
            A word and a value for each: "live" and where it is, b"pending", b"in flight" or b"in a job"; "dead" and the
            reason; "done" and the vector; "differs": the workers of the namespace write otherwise, or did
            when they wrote what is there; "unproven" and a vector of which nothing says what it is of; "blank": its
            newest text was; "forgotten": it shall have none; "gone": nothing tells what became of it.
        """
        lines = [(one.redis_key, str(one.stamp), one.digest) for one in asked]
        where = (terms.provenance_field or "", as_json(terms.read))
        try:
            reply = self._call("look", [one.redis_key for one in asked], *where, *_flat(lines))
        except NoPermissionError:  # to read one of the users' hashes
            if len(asked) > 1:
                half = len(asked) // 2
                parts = (asked[:half], asked[half:])
                return [found for part in parts for found in self.look(part, terms)]
            reply = self._call("look", [self.keys.events], *where, *_flat(lines))  # a key of our own, and no hash
        return [(reply[i].decode(), reply[i + 1]) for i in range(0, len(reply), 2)]

    def rehearse(self) -> None:
        """Do without effect what every queue needs: run a script that may write, look at the notices, wait for one.

        Raises:
            EmbedQueueError: the keys are of another release's layout.
        """
        self._call("rehearse", ())
        self.events.since(time.monotonic())
        self.events.listen(b"$", 0.0)

    def holder(self, redis_key: str) -> str:
        """The worker that has claimed the item of a key, without the colon; "" where nobody has."""
        entry: Any = self._background.hget(self.keys.claims, redis_key) or b""
        worker, colon, _ = entry.rpartition(b" ")[2].partition(b":")
        return worker.decode("utf-8", "replace") if colon else ""

    def pending_count(self) -> int:
        """Count the items that wait."""
        return int(self._background.zcard(self.keys.pending)) + int(self._background.zcard(self.keys.alone))

    def texts(self) -> Iterator[tuple[str, str]]:
        """The texts of live items, with their redis_keys; of what comes or goes meanwhile, some."""
        for _, entry in self._background.hscan_iter(self.keys.latest, count=SCAN_KEYS):
            with contextlib.suppress(NotOurs):  # somebody has meddled with latest
                item = decode_member(named_member(entry))
                yield item.redis_key, item.text

    def agreed(self) -> dict[str, str]:
        """What the processes of the namespace have to agree in: the settings that are kept, by name."""
        kept: Any = self._background.hmget(self.keys.settings, AGREED)
        found = {name: value.decode("utf-8", "replace") for name, value in zip(AGREED, kept, strict=True) if value}
        return {**AGREED_BEFORE, **found} if found else {}

    def learned(self, terms: Terms) -> Terms:
        """The same with the length of vectors that the namespace has, which is asked for until either is known."""
        if terms.dimensions is None and "dimensions" not in self._kept:
            self._kept = self.agreed()
        return terms.learned(self._kept)

    def agree(self, terms: Terms) -> None:
        """Keep the settings of these terms from now on, whatever was kept before."""
        mapping: Any = terms.agreed
        self._background.hset(self.keys.settings, mapping=mapping)

    def canary(self) -> bytes | None:
        """What :meth:`keep_canary` has kept."""
        kept: Any = self._background.hget(self.keys.settings, "canary")
        return kept if isinstance(kept, bytes) else None

    def keep_canary(self, text: str) -> None:
        """Keep what a later look at the provider is compared with."""
        self._background.hset(self.keys.settings, "canary", text)

    def in_flight_count(self) -> int:
        """Count the items that are claimed."""
        return int(self._background.zcard(self.keys.inflight))

    def info(self) -> dict[str, Any]:
        """Ask Redis for its INFO; empty where that is not allowed, or Redis does not answer."""
        try:
            return dict(self._background.info())
        except (RedisError, NotImplementedError):
            return {}

    def clear(self) -> None:
        """Remove what an ended queue leaves beside its items; its history expires by itself.

        Of a batch job that has not ended somebody may still have to know at the provider: then the jobs stay.
        """
        left = [self.keys.workers, self.keys.budget, self.keys.runs, f"{self.keys.namespace}:limits"]
        if not any(job.active for job in self.jobs.look().jobs):
            left.append(self.keys.jobs)
        self._background.delete(*left)

    def close(self) -> None:
        """Close our own connections, those on which other threads still read included."""
        self._scripts.close()
