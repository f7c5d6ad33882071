"""A queue's state in Redis: one method for each move, which is one script and atomic."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from .adoption import Adoption
from .budget import BudgetBook, BudgetTerms
from .cache import CachedVectors
from .clients import refused_as_such
from .dead import DeadLetters
from .events import Events
from .figures import Figures
from .hashes import Hashes
from .keys import Keys
from .records import Asked, Claim, Status, Taken, Terms, Unless, Within, as_json
from .scripts import Scripts

#: Characters of a reason that are kept, in each of its notices, too: the words of an embedder of one's own may hold all
#: the texts of its call.
REASON_CHARS = 1000
#: The settings in which processes must agree, those of ``Terms.agreed``; prelude_claims.lua has the same.
AGREED = ("embedding_field", "provenance_field", "model", "dimensions", "role")
#: Bytes of members that one claim takes at most, but for the last of them.
CLAIM_BYTES = 1_000_000


def _seconds_since(then: bytes, now: float) -> float | None:
    return now - float(then) if then else None


def _seconds_until(then: bytes, now: float) -> float | None:
    return float(then) - now if then else None


def _pause_seconds(ms: int) -> float | None:
    if ms == -2:
        return None
    return ms / 1000 if ms >= 0 else math.inf  # somebody has made it by hand, without an end


def _flat(lines: Iterable[Iterable[Any]]) -> list[Any]:
    return [value for line in lines for value in line]


class Store:
    """A queue's state in Redis. Thread-safe, but for ``enqueue``, which one thread at a time may call.

    Every method raises ``redis.RedisError`` where Redis does not answer or refuses. Then it is not
    known whether the move was made. Times of arguments and answers are seconds.

    Args:
        client: the user's client; it is only read.
        namespace: what the names of the queue's keys begin with.

    Attributes:
        keys: the names of the queue's keys.
        dead: the dead letters.
        events: the notices.
        cache: the vectors by text.
        figures: what was done by minute and by day.
        adoption: puts the books in order after another program has left or taken members.
        hashes: what the users' hashes have.
        budget: what is spent of a budget.
    """

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self.keys = Keys(namespace)
        self._scripts = Scripts(client, self.keys)
        self._call = self._scripts.call
        self._background = self._scripts.background
        self.dead = DeadLetters(self._scripts, self.keys)
        self.events = Events(self._scripts, self.keys)
        self.cache = CachedVectors(self._scripts, self.keys)
        self.figures = Figures(self._background, self.keys)
        self._ahead: float | None = None  # what has to be added to our monotonic clock for the server's
        self.adoption = Adoption(self._scripts, self.keys)
        self.hashes = Hashes(self._scripts, self.keys)
        self.budget = BudgetBook(self._scripts, self.keys)

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

        Raises:
            redis.RedisError: nothing is known to have been accepted; the user's retry policy has ended.
            EmbedQueueError: the keys are of another release's layout; nothing was accepted.
        """
        parts = [b"%d" % len(groups), *(b"%d" % (len(group) // 2) for group in groups)]
        for group in groups:
            parts += group
        more: dict[str, Any] = {}
        hashes: list[str] = []
        if unless is not None:
            keys = [group[i] for group in groups for i in range(0, len(group), 2)]
            hashes = [key.decode() for key, digest in zip(keys, unless.digests, strict=True) if digest]
            terms = unless.terms
            what = {"provenance": terms.provenance_field, "space": terms.space, "size": unless.vector_bytes}
            more = {"unless": {**what, "terms": terms.read}, "digests": unless.digests}
        if within is not None:
            more |= {"base": within.base_seconds, "within": [False if one is None else one for one in within.seconds]}
        settings = max_pending or 0, tell_at, int(tell_first)
        waiting, stamp, words, *rest = self._scripts.enqueue(
            settings, parts, json.dumps(more) if more else None, hashes
        )
        left_out: list[bytes | None] = []
        if rest:
            bits, *some = rest
            vectors = iter(some)
            left_out = [next(vectors, b"") if bit == ord("1") else None for bit in bits]
        return Taken(waiting, [word == ord("y") for word in words], int(stamp), left_out)

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
            limit: most items to claim; with 0, only leases that ran out are dealt with.
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
        asked_mono = time.monotonic()
        agreed = as_json({} if terms is None else terms.agreed)
        deadline = "" if self._ahead is None else f"{asked_mono + self._ahead + self._scripts.patience_seconds:.6f}"
        word = "never" if alone is None else int(alone)
        settings = (limit, probe_limit, CLAIM_BYTES, owner, lease_seconds, max_deliveries, word, int(patient))
        money = ("", ()) if budget is None else (budget.text, (self.keys.budget,))
        reply = self._call("claim", money[1], *settings, deadline, int(unordered), agreed, money[0], *urgent)
        status, now_text, waiting, score, since, base, lease_end, pause_ms, alone_word, oldest = reply[:10]
        ran_out, rejected, strays, differs, unknown = reply[10:15]
        now = float(now_text)
        self._ahead = now - time.monotonic()
        return Claim(
            status=status.decode(),
            owner=owner,
            members=reply[15:],
            waiting=waiting,
            oldest_age_seconds=_seconds_since(since, now),
            score_age_seconds=_seconds_since(score, now),
            base_seconds=float(base) if base else None,
            lease_end_seconds=_seconds_until(lease_end, now),
            pause_seconds=_pause_seconds(pause_ms),
            alone=alone_word.decode(),
            waited_seconds=_seconds_since(oldest, now) or 0.0,
            ran_out=ran_out,
            rejected=[
                (rejected[i], rejected[i + 1].decode(), int(rejected[i + 2])) for i in range(0, len(rejected), 3)
            ],
            strays=strays,
            unknown=unknown,
            differs=[(differs[i].decode(), differs[i + 1].decode()) for i in range(0, len(differs), 2)],
            asked_mono=asked_mono,
        )

    def complete(self, owner: str, terms: Terms, items: Sequence[tuple[str, bytes, bytes, str]]) -> list[str]:
        """Write vectors and acknowledge their items.

        Args:
            owner: the name of the claim of whoever writes.
            terms: what to write where.
            items: redis_key, member, float32 bytes of the vector, digest of the text; neighbours that share the object
                of the vector are sent it once.

        Returns:
            A word for each item: "done"; "skipped": there is no hash; "stale": it is no longer in flight, or not the
            latest of its key, and nothing was written; "refused ...": Redis does not let us write its hash, and it is
            still in flight; "differs": the terms are not those of the namespace, and it is still in flight.
        """
        provenance, agreed = terms.provenance_field or "", as_json(terms.agreed)
        args: list[str | bytes] = [owner, terms.if_missing, provenance, terms.space, agreed]
        before = None
        for _, member, vector, digest in items:
            args += (member, digest, b"" if vector is before else vector)
            before = vector
        try:
            reply = self._call("complete", [redis_key for redis_key, *_ in items], *args)
        except ResponseError as error:
            if not (isinstance(error, NoPermissionError) or refused_as_such(error)):
                raise
            if len(items) == 1:
                if not isinstance(error, NoPermissionError):
                    self._call("complete", (), *args[:5])  # raises where Redis refuses whatever we send
                return [f"refused {error}"]
            # One key, or the size of all: the others shall not suffer for it.
            half = len(items) // 2
            parts = (items[:half], items[half:])
            return [word for part in parts for word in self.complete(owner, terms, part)]
        return [word.decode("utf-8", "replace") for word in reply]

    def release(self, items: Sequence[tuple[str, bytes]]) -> int:
        """Release items: they wait again under their old score, and no delivery is counted.

        Args:
            items: the name of its claim, and the member, of each.

        Returns:
            How many were released; what those very claims no longer hold stays where it is.
        """
        return int(self._call("release", (), *_flat(items)) if items else 0)

    def release_all(self, owner: str) -> int:
        """Release what a claim or a whole worker holds, whatever it is. Looks through all that is in flight, in slices.

        The claim is refused if it is still on its way.

        Args:
            owner: the name of the claim, or of the worker, with its colon; that claims nothing more then.

        Returns:
            How many items were released.
        """
        cursor: Any = b"0"
        released = 0
        while True:
            cursor, count = self._call("release_all", (), owner, cursor)
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
        return _pause_seconds(self._call("fail", (), owner, *times, reason[:REASON_CHARS], *_flat(items))) or 0.0

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

    def status(self, flush: str = "", *, anyway: bool = False) -> Status:
        """Tell how the queue stands.

        Args:
            flush: a name. Under it is counted how many items are not finished of those that were live when it was first
                asked for. Nothing is counted while the books are not in order; :meth:`end_flush` ends it.
            anyway: count although they are not: what nobody has adopted is not waited for.
        """
        reply = self._call("status", (), flush, int(anyway))
        now = float(reply[0])
        return Status(
            now=now,
            waiting=reply[1],
            in_flight=reply[2],
            dead=reply[3],
            score_age_seconds=_seconds_since(reply[4], now),
            oldest_age_seconds=_seconds_since(reply[5], now),
            base_seconds=float(reply[6]) if reply[6] else None,
            lease_end_seconds=_seconds_until(reply[7], now),
            pause_seconds=_pause_seconds(reply[8]),
            pause_reason=reply[9].decode("utf-8", "replace"),
            failing=reply[10] == b"1",
            unfinished=reply[11],
            probe=reply[12].decode("utf-8", "replace"),
            strays=reply[13],
        )

    def end_flush(self, flush: str) -> None:
        """Count no more for a flush of this name."""
        self._background.hdel(self.keys.flushes, flush)

    def look(self, asked: Sequence[Asked], terms: Terms) -> list[tuple[str, bytes]]:
        """Tell what became of items.

        Args:
            asked: which items.
            terms: on which whoever asks would write: where the vector and what it is of stand, and in which space.

        Returns:
            A word and a value for each: "live" and where it is, b"pending" or b"in flight"; "dead" and the reason;
            "done" and the vector; "differs": the workers of the namespace write otherwise; "unproven" and a vector of
            which nothing says what it is of; "blank": its newest text was; "forgotten": it shall have none; "gone":
            nothing tells what became of it.
        """
        lines = [(one.redis_key, str(one.stamp), one.digest) for one in asked]
        where = (terms.provenance_field or "", terms.space, as_json(terms.read))
        try:
            reply = self._call("look", [one.redis_key for one in asked], *where, *_flat(lines))
        except NoPermissionError:  # to read one of the users' hashes
            if len(asked) > 1:
                half = len(asked) // 2
                parts = (asked[:half], asked[half:])
                return [found for part in parts for found in self.look(part, terms)]
            reply = self._call("look", [self.keys.events], *where, *_flat(lines))  # a key of our own, and no hash
        return [(reply[i].decode(), reply[i + 1]) for i in range(0, len(reply), 2)]

    def pending_count(self) -> int:
        """Count the items that wait."""
        return int(self._background.zcard(self.keys.pending)) + int(self._background.zcard(self.keys.alone))

    def agreed(self) -> dict[str, str]:
        """What the processes of the namespace have to agree in: the settings that are kept, by name."""
        kept: Any = self._background.hmget(self.keys.settings, AGREED)
        return {name: value.decode("utf-8", "replace") for name, value in zip(AGREED, kept, strict=True) if value}

    def agree(self, terms: Terms) -> None:
        """Keep the settings of these terms from now on, whatever was kept before."""
        mapping: Any = terms.agreed
        self._background.hset(self.keys.settings, mapping=mapping)

    def in_flight_count(self) -> int:
        """Count the items that are claimed."""
        return int(self._background.zcard(self.keys.inflight))

    def info(self) -> dict[str, Any]:
        """Ask Redis for its INFO; empty where that is not allowed, or Redis does not answer."""
        try:
            return dict(self._background.info())
        except (RedisError, NotImplementedError):
            return {}

    def close(self) -> None:
        """Close our own connections, those on which other threads still read included."""
        self._scripts.close()
