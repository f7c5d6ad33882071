"""Turns claimed items into calls: equal texts are sent once, and each call runs in a thread of the pool.

From here on a text is what is sent of it: two that have the same beginning, and are cut to it, are equal. What comes of
a call goes to ``settle``. Read ``calls.halving`` for what happens to a call that is refused.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from embedqueue.calls.batching import cut
from embedqueue.calls.cache import Cache
from embedqueue.calls.caller import LONGEST_TRY_SECONDS, Caller, is_down
from embedqueue.calls.failures import Stopping, Unforeseen, Unserved
from embedqueue.calls.halving import Halving
from embedqueue.calls.lengths import Lengths, TooLong
from embedqueue.calls.pool import Pool
from embedqueue.calls.tolls import Tolls, cost_of
from embedqueue.observers.observers import Observers
from embedqueue.store.records import Claim
from embedqueue.values.errors import TransientError
from embedqueue.values.item import Item, NotOurs, check_pair, decode_member, is_blank
from embedqueue.values.limits import Cost, Paid
from embedqueue.values.log import Log
from embedqueue.values.options import Options
from embedqueue.values.words import printable

from .purse import Purse
from .reporter import Times, tell_claimed, tell_duplicates, tell_saved
from .settle import Settle

#: Bytes of texts and their vectors that are kept, while a drain is under way, for equal texts of the same drain that
#: are not yet claimed: 5,000 vectors of 3,072 numbers.
RECENT_BYTES = 64 << 20


@dataclass(slots=True)
class _Call:
    """Texts on their way to the embedder, and the items that wait for each."""

    owner: str  # of the claim
    probe: bool  # whether it tests a provider that has failed
    asked_mono: float  # when its claim was sent to Redis
    times: Times
    items: dict[str, list[Item]] = field(default_factory=dict)  # by text; guarded by the dispatch's lock
    taken: list[Item] = field(default_factory=list)  # those that are about to end, or have; guarded by the same
    looks: int = 0  # how often its texts were found to be on their way elsewhere
    paid: Paid | None = None  # what was taken from the limits for it, until it is sent; guarded by the same
    spare: bool = False  # whether it is not sent: another call of its claim tests the provider
    hung: int = 0  # how often it was given up: in itself, and in the canary; guarded by the same


class _Recent:
    """Vectors by text, the newest first to stay. Not thread-safe."""

    def __init__(self) -> None:
        self._vectors: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, text: str) -> bytes | None:
        """The vector of a text, (dimensions,) as the bytes that are stored, or None."""
        return self._vectors.get(text)

    def keep(self, text: str, vector: bytes) -> None:
        """Keep a vector; the oldest ones give way."""
        self._drop(text)
        self._vectors[text] = vector
        self._bytes += sys.getsizeof(text) + sys.getsizeof(vector)
        while self._bytes > RECENT_BYTES:
            self._drop(next(iter(self._vectors)))

    def clear(self) -> None:
        """Keep none."""
        self._vectors.clear()
        self._bytes = 0

    def _drop(self, text: str) -> None:
        vector = self._vectors.pop(text, None)
        if vector is not None:
            self._bytes -= sys.getsizeof(text) + sys.getsizeof(vector)


class Dispatch:
    """Sends the items of claims on their way. Thread-safe.

    Args:
        caller: makes the requests.
        pool: of call threads.
        settle: brings items to their end.
        cache: of vectors by text, or None.
        lengths: lets texts through that are not too long.
        options: of the queue.
        tolls: where there are limits, pays for calls.
        worker: the name under which this process claims; it ends with a colon.
        purse: knows what claims have cost, where there is a budget; else None.
        observers: told which leases had ended, and which texts need not be sent.
        log: takes the records.

    Attributes:
        pool: as given; it may be replaced before the first claim.
    """

    def __init__(
        self,
        caller: Caller,
        pool: Pool,
        settle: Settle,
        cache: Cache | None,
        lengths: Lengths,
        options: Options,
        tolls: Tolls | None = None,
        *,
        worker: str,
        purse: Purse | None = None,
        observers: Observers,
        log: Log,
    ) -> None:
        self.pool = pool
        self._purse = purse
        self._caller = caller
        self._settle = settle
        self._cache = cache
        self._lengths = lengths
        self._options = options
        self._tolls = tolls
        self._worker = worker
        self._observers = observers
        self._log = log
        self._lock = threading.Lock()
        self._calls: dict[str, _Call] = {}  # texts on their way; guarded by the lock
        self._running: dict[int, _Call] = {}  # by thread, without those that were given up; guarded by the lock
        self._recent = _Recent()  # guarded by the lock
        self._more_behind = False  # whether items waited behind the last claim; guarded by the lock

    # -- the worker's side -------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many items are in our hands."""
        return self._settle.held

    @property
    def call_limit(self) -> int:
        """How many texts one call may hold, by what is known of the provider now."""
        return self._caller.limits.texts

    @property
    def probe_limit(self) -> int:
        """How many texts a call may hold that tests the provider."""
        return self._caller.probe_texts

    @property
    def call_limits(self) -> tuple[int, int]:
        """The same, and how many estimated tokens."""
        return self._caller.limits.texts, self._caller.limits.tokens

    def unsent(self) -> Paid | None:
        """What was taken from the limits for calls that nobody has begun, and nobody will; None for nothing."""
        with self._lock:
            calls = [call for call in {id(call): call for call in self._calls.values()}.values() if call.paid]
            paid = [call.paid for call in calls if call.paid]
            for call in calls:
                call.paid = None
        if not paid:
            return None
        cost = Cost()
        for one in paid:
            cost = cost.plus(one.cost)
        return Paid(min(one.at for one in paid), cost)

    def begin(self, claim: Claim) -> None:
        """Send the items of a claim on their way. Returns at once; no API call is made in this thread.

        Raises:
            redis.RedisError: members that cannot be ours could not be rejected; nothing was sent.
        """
        times = Times(time.monotonic(), claim.waited_seconds)
        decoded = self._decode(claim)
        items, too_long = self._fit(decoded)
        self.note_rejected(len(claim.rejected))
        tell_claimed(self._observers, claim)
        calls: list[_Call] = []
        try:
            self._settle.hold(decoded)
            if self._purse is not None and claim.members:
                self._purse.begin(claim.owner, decoded)
            with self._lock:
                ready = self._arrange(claim, items, times, calls)
            self._share_out(claim.paid, calls)
            tell_duplicates(self._observers, items, (text for call in calls for text in call.items))
            for reason, unsent in too_long.items():  # first: whoever waits for these need not wait for a call
                rejected = _Call(claim.owner, False, claim.asked_mono, times, taken=unsent)
                self._submit(rejected, lambda call, why=reason: self._settle.reject(self._worker, call.taken, why))  # type: ignore[misc]
            for call in calls:
                self._submit(call, self._run)
            if ready:
                written = _Call(claim.owner, False, claim.asked_mono, times, taken=[item for item, _ in ready])
                self._submit(written, lambda _: self._settle.write(self._worker, ready, times))
            if claim.status == "probe" and not calls:  # calls under way, which are no probes, bring its vectors
                tested = _Call(claim.owner, False, claim.asked_mono, times)
                self._submit(tested, lambda _: self._settle.release_probe(claim.owner))
        except BaseException:  # the worker releases all that was claimed, so nobody here is to renew or to join it
            for call in calls:
                call.paid = None  # what the claim has taken is given back whole
                self._take(call, list(call.items))
            self._settle.let_go(decoded)
            raise

    def note_rejected(self, items: int) -> None:
        """So many items became dead letters by a claim, or as the books were put in order."""
        self._settle.count_rejected(items)

    def renew(self) -> bool:
        """Renew the leases of all items in our hands, and our reservations in the cache; give up calls that hang.

        Returns:
            Whether there are any items.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        self._give_up_hanging()
        held = self._settle.renew()
        if self._cache is not None:
            self._cache.renew()
        return held

    def _decode(self, claim: Claim) -> list[Item]:
        """The items of a claim, but for those that no enqueue of ours can have written: these are rejected."""
        items, unfit = [], []
        for member in claim.members:
            try:
                item = decode_member(member)
                check_pair(item.redis_key, item.text, self._options.namespace, None)
                if is_blank(item.text):
                    raise ValueError("the text is blank")
                items.append(replace(item, owner=claim.owner))
            except ValueError as error:
                unfit.append((claim.owner, member, printable(str(error)), isinstance(error, NotOurs)))
        if unfit:
            self._settle.reject_unfit(unfit)
        return items

    def _fit(self, items: Iterable[Item]) -> tuple[list[Item], dict[str, list[Item]]]:
        """Find out what is sent of each text. Returns the items that are, and by the reason those that are too long."""
        fitting: list[Item] = []
        too_long: dict[str, list[Item]] = {}
        for item in items:
            try:
                item = replace(item, sent=self._lengths.fit(item.text))
            except TooLong as error:
                too_long.setdefault(str(error), []).append(item)
                continue
            if item.truncated:
                sizes = len(item.sent), len(item.text)
                self._log.info("embedqueue: of %s, %d of %d characters are embedded", item.redis_key, *sizes)
            fitting.append(item)
        return fitting, too_long

    def _arrange(
        self, claim: Claim, items: Iterable[Item], times: Times, calls: list[_Call]
    ) -> list[tuple[Item, bytes]]:
        """Join calls under way, use vectors that have just come, and cut the other texts into calls. Under the lock.

        Args:
            claim: of the items.
            items: those of the claim that are ours.
            times: of the claim.
            calls: new ones are appended here.

        Returns:
            Items whose vector is known, with it, as the bytes that are stored.
        """
        fresh: dict[str, list[Item]] = {}
        ready = []
        for item in items:
            under_way, recent = self._calls.get(item.sent), self._recent.get(item.sent)
            if under_way is not None:
                under_way.items[item.sent].append(item)
            elif recent is not None:
                ready.append((item, recent))
            else:
                fresh.setdefault(item.sent, []).append(item)
        for texts in cut(fresh, self._caller.limits):
            items_of = {text: fresh[text] for text in texts}
            call = _Call(claim.owner, claim.status == "probe", claim.asked_mono, times, items_of)
            call.spare = call.probe and bool(calls)  # one call decides whether it goes on
            calls.append(call)
            self._calls.update(dict.fromkeys(texts, call))
        self._more_behind = claim.waiting > 0
        if not self._more_behind:
            self._recent.clear()
        return ready

    def _share_out(self, paid: Paid | None, calls: Sequence[_Call]) -> None:
        """Each call gets what it takes of what a claim has paid; the rest is given back, and pays for no other try."""
        if paid is None or self._tolls is None:
            return
        left = paid.cost
        for call in calls:
            cost = cost_of(call.items)
            call.paid = Paid(paid.at, cost.without(cost.without(left)))
            left = left.without(cost)
        if any(left):
            self._tolls.give_back(Paid(paid.at, left))

    # -- a call, in a thread of the pool -----------------------------------------------------------------------

    def _submit(self, call: _Call, work: Callable[[_Call], None]) -> None:
        """Do this for a call in a thread of the pool, where it counts as one."""
        self.pool.submit(lambda: self._guarded(call, work))

    def _guarded(self, call: _Call, work: Callable[[_Call], None]) -> None:
        """Whatever is raised, no lease of the call's items runs out: only the end of a process counts a delivery."""
        try:
            work(call)
        except Stopping:
            pass  # whoever stops the queue releases everything
        except BaseException as error:
            self._log.exception("embedqueue: a call failed in a way that it should not; what is left of it waits again")
            self._take(call, list(call.items))
            items = [item for item in call.taken if self._settle.holds(item.redis_key, item.member)]
            failure = Unforeseen(error, list({item.sent for item in items}))
            if items:
                with contextlib.suppress(Stopping):
                    self._settle.release_failed(call.owner, items, failure, probe=call.probe)

    def _run(self, call: _Call) -> None:
        with self._lock:
            paid, call.paid = call.paid, None
        if call.spare or (call.asked_mono < self._settle.paused_mono and not call.probe):
            # Another call of its claim is the probe, or a pause began after these items were claimed: release them
            # instead of sending them. A probe is sent.
            self._settle.release(self._take(call, list(call.items)), paid)
            return
        outer = self._enter(call)
        try:
            with contextlib.nullcontext() if self._tolls is None else self._tolls.of(paid):
                self._serve(call)
        except Unserved as failure:
            if call.hung:
                raise Stopping from None  # old news: its items are no longer ours to release
            items = self._take(call, list(call.items))
            searching = is_down(failure.cause) and self._caller.crashes.searching
            self._settle.release_failed(call.owner, items, failure, probe=call.probe, searching=searching)
        else:
            self._settle.served()
        finally:
            self._leave(call, outer)

    def _serve(self, call: _Call) -> None:
        cache = self._cache
        if cache is None:
            self._embed(call, list(call.items))
            return
        cache.serve(
            list(call.items),
            call.owner,
            deliver=lambda texts, vectors: self._deliver_cached(call, texts, vectors),
            release=lambda texts: self._settle.release(self._take(call, texts)),
            put_off=lambda texts: self._put_off(cache, call, texts),
            embed=lambda texts, keep: self._embed(call, texts, keep),
        )
        if call.probe:
            self._settle.release_probe(call.owner)  # nothing was tested if no text was ours to send

    def _put_off(self, cache: Cache, call: _Call, texts: Sequence[str]) -> None:
        """Others are embedding these texts: look again later, in a call of their own. So this one keeps no place."""
        with self._lock:
            items = {text: call.items.pop(text) for text in texts}
            later = _Call(call.owner, False, call.asked_mono, call.times, items, looks=call.looks + 1)
            self._calls.update(dict.fromkeys(texts, later))
        self._guarded(later, lambda _: cache.later(later.looks, lambda: self._guarded(later, self._look_again)))

    def _look_again(self, call: _Call) -> None:
        self._submit(call, self._run)

    def _embed(
        self, call: _Call, texts: Sequence[str], keep: Callable[[Sequence[str], Sequence[bytes]], None] | None = None
    ) -> None:
        def deliver(served: Sequence[str], vectors: Sequence[bytes]) -> None:
            if len(served) == len(texts):
                self.pool.answered()  # in one answer, as usual: this call asks no more
            if keep is not None:
                keep(served, vectors)
            self._deliver(call, call.owner, served, vectors)

        Halving(
            self._caller,
            probe=call.probe,
            deliver=deliver,
            refuse=lambda text, reason: self._settle.reject(call.owner, self._take(call, [text]), reason),
        ).serve(texts)

    def _deliver(self, call: _Call, owner: str, texts: Sequence[str], vectors: Sequence[bytes]) -> None:
        by_text = dict(zip(texts, vectors, strict=True))
        with self._lock:
            if self._more_behind:
                for text, vector in by_text.items():
                    self._recent.keep(text, vector)
        self._settle.write(owner, [(item, by_text[item.sent]) for item in self._take(call, texts)], call.times)

    def _deliver_cached(self, call: _Call, texts: Sequence[str], vectors: Sequence[bytes]) -> None:
        tell_saved(self._observers, texts, "cache")
        self._deliver(call, self._worker, texts, vectors)

    def _take(self, call: _Call, texts: Sequence[str]) -> list[Item]:
        """Take the items that wait for these texts. Equal texts that come from now on are sent anew."""
        with self._lock:
            taken: list[Item] = []
            for text in texts:
                taken += call.items.pop(text, ())
                if self._calls.get(text) is call:
                    del self._calls[text]
            call.taken += taken
            return taken

    # -- a call that hangs -------------------------------------------------------------------------------------

    def _enter(self, call: _Call) -> _Call | None:
        """This thread makes a call. Returns the one that it is in already: an eager queue's observer may enqueue."""
        if self._purse is not None:
            self._purse.enter(call.owner)
        with self._lock:
            outer = self._running.get(threading.get_ident())
            self._running[threading.get_ident()] = call
            return outer

    def _leave(self, call: _Call, outer: _Call | None = None) -> bool:
        """This thread has done with a call. Returns whether it still had it, that is, whether it was not given up."""
        with self._lock:
            self._caller.returned()
            left = self._running.pop(threading.get_ident(), None)
            if outer is not None:
                self._running[threading.get_ident()] = outer
        if self._purse is not None:
            self._purse.leave(call.owner, self._caller.take_paid())
        return left is call

    def _give_up_hanging(self) -> None:
        """Give up calls that hang: their texts may be sent anew. A late answer is still written, where it may be."""
        hanging = []
        with self._lock:  # until we leave it, no such thread can leave its call and begin another
            for thread, began_mono in self._caller.give_up_hanging().items():
                call = self._running.pop(thread, None)
                if call is None:  # that verifies a batch job: nobody's items wait for it
                    continue
                self.pool.give_up(thread)
                call.hung += 1
                for text in call.items:
                    if self._calls.get(text) is call:
                        del self._calls[text]
                hanging.append((call, list(call.items), began_mono))
        for call, texts, began_mono in hanging:
            if self._cache is not None:
                self._cache.forget(texts)
            self._submit(call, lambda call, began_mono=began_mono: self._judge(call, began_mono))  # type: ignore[misc]

    def _judge(self, call: _Call, began_mono: float) -> None:
        """Find out who is at fault for a call that hangs, and stop renewing its leases.

        If the provider is well, the leases run out: that counts as a delivery, so what hangs each time travels alone at
        last. Else the call has failed as others do.
        """
        healthy = False
        if call.hung == 1:  # else the canary hangs as well
            self._enter(call)
            try:
                healthy = self._caller.health_since(began_mono).fault is None
            finally:
                given_up = not self._leave(call)
            if given_up:
                raise Stopping  # it has been judged
        with self._lock:
            texts, items = list(call.items), [item for waiting in call.items.values() for item in waiting]
        if healthy and items:
            self._log.warning("embedqueue: a call of %d texts hangs; its leases run out", len(texts))
            self._settle.let_go(items)
            if call.probe:
                self._settle.release_probe(call.owner)
        elif items:
            error = TransientError(f"no answer within {LONGEST_TRY_SECONDS:.0f} s", cause="timeout")
            self._settle.release_failed(call.owner, items, Unserved(error, texts), probe=call.probe)
