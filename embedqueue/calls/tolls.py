"""Pays for each try out of what a claim has taken from the limits, and settles what no claim could know."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from embedqueue.embedders.protocol import Embedder, RateSeen, TellsRates
from embedqueue.store.limits import Buckets, Said
from embedqueue.values.limits import Cost, Paid
from embedqueue.values.log import Log
from embedqueue.values.tokens import estimated_tokens

from .failures import OverLimits

#: Seconds after which a limit that is still heard of is told again: Redis forgets what nobody tells any more.
TELL_SECONDS = 600.0
#: Seconds that a try waits at most for what it owes, a little more than where it costs a whole minute's limit; where it
#: would take longer, it is not made.
MOST_WAIT_SECONDS = 62.0
#: Of a limit that a provider tells, the part of which it is worth telling others that no more is left.
NEARLY_GONE = 0.1
TOO_MANY_REQUESTS = 429
#: The name in Redis of a limit by what it counts and for how long.
_NAMES = {
    ("requests", "minute"): "requests",
    ("texts", "minute"): "texts",
    ("tokens", "minute"): "tokens",
    ("requests", "day"): "day",
}


def cost_of(texts: Iterable[str]) -> Cost:
    """What one call of these texts takes."""
    tokens = [estimated_tokens(text) for text in texts]
    return Cost(1, len(tokens), sum(tokens))


@dataclass(slots=True)
class _Account:
    """Of one call: what is left of what was taken for it, and by how much its tokens were estimated too low.

    ``tried``: the texts that were sent already, for which it has paid.
    """

    at: float
    left: Cost
    tokens: int = 0
    tried: set[str] = field(default_factory=set)


class Tolls:
    """Pays for tries. Thread-safe: a call is made in one thread, and its account is that thread's.

    What a claim has taken pays for the first try of its call. Whatever else is sent, canaries and further tries, is
    booked as a debt before it is sent, and waits until the debt is paid. What was taken and is not sent is given back.

    Args:
        buckets: of the queue.
        embedder: asked what the provider says of its limits, where it tells.
        log: takes the records.
    """

    def __init__(self, buckets: Buckets, embedder: Embedder, log: Log) -> None:
        self._buckets = buckets
        self._rates = embedder if buckets.auto and isinstance(embedder, TellsRates) else None
        self._log = log
        self._local = threading.local()
        self._lock = threading.Lock()
        self._owed = Cost()  # what Redis has not taken yet; guarded by the lock, as is the next
        self._told: dict[str, tuple[int, float]] = {}  # the limits that we have told last, by name, and when

    @contextlib.contextmanager
    def of(self, paid: Paid | None) -> Iterator[None]:
        """This thread makes a call, for which ``paid`` was taken; what is left of it is given back in the end."""
        outer = getattr(self._local, "account", None)
        account = self._local.account = _Account(*(paid or (0.0, Cost())))
        try:
            yield
        finally:
            self._local.account = outer
            left, tokens = account.left, account.tokens
            back = left._replace(tokens=left.tokens + max(0, -tokens))
            self._settle(Cost(0, 0, max(0, tokens)), Paid(account.at, back))

    def give_back(self, paid: Paid) -> None:
        """What was taken by a claim that nothing has to be sent for."""
        self._settle(Cost(), paid)

    def pay(self, texts: Sequence[str]) -> float:
        """A try is about to be made with these texts. Returns the seconds for which it must wait.

        Raises:
            OverLimits: it would be too long; nothing was booked.
        """
        cost, account = cost_of(texts), self._account
        short = cost
        if account is not None and (fresh := [text for text in texts if text not in account.tried]):
            account.tried.update(fresh)
            wanted = cost_of(fresh)
            covered = wanted.without(wanted.without(account.left))
            short, account.left = cost.without(covered), account.left.without(covered)
        if not any(short):
            return 0.0
        settled = self._settle(short, None)
        if settled is None or settled[0] <= MOST_WAIT_SECONDS:
            return 0.0 if settled is None else settled[0]
        self._settle(Cost(), Paid(settled[1], short))
        raise OverLimits(settled[0])

    def answered(self, texts: Sequence[str], error: BaseException | None, used: int | None) -> None:
        """A try has come to its end in this thread: take in what its answer tells.

        Args:
            texts: of the try.
            error: that it raised, or None.
            used: tokens that it was charged; None where nobody has said.
        """
        account = self._account
        if self._buckets.counts_tokens and used is not None and account is not None and error is None:
            account.tokens += used - cost_of(texts).tokens
        if self._buckets.auto:
            said = self._said(() if self._rates is None else self._rates.rates_seen(), error)
            if said is not None:
                self._settle(Cost(), None, said)

    @property
    def _account(self) -> _Account | None:
        return getattr(self._local, "account", None)

    def _said(self, rates: Sequence[RateSeen], error: BaseException | None) -> Said | None:
        """What of it others should know; None for nothing new."""
        named = {_NAMES[rate.measure, rate.per]: rate for rate in rates if (rate.measure, rate.per) in _NAMES}
        limits = {name: rate.limit for name, rate in named.items()}
        left = {
            name: rate.left
            for name, rate in named.items()
            if rate.left is not None and rate.left <= NEARLY_GONE * rate.limit
        }
        closed = 0.0
        if getattr(error, "status", None) == TOO_MANY_REQUESTS and not limits:
            closed = getattr(error, "retry_after", None) or 0.0
        now_mono = time.monotonic()
        with self._lock:
            told = ((limit, *self._told.get(name, (0, 0.0))) for name, limit in limits.items())
            known = all(limit == before and now_mono - told_mono < TELL_SECONDS for limit, before, told_mono in told)
            if not known:
                self._told.update((name, (limit, now_mono)) for name, limit in limits.items())
        return None if known and not left and not closed else Said(limits, left, closed)

    def _settle(self, more: Cost, back: Paid | None, said: Said | None = None) -> tuple[float, float] | None:
        """Settle, and what Redis has not taken before, too. Returns what ``Buckets.settle`` does; None for nothing."""
        with self._lock:
            more, self._owed = more.plus(self._owed), Cost()
        back = back if back is not None and any(back.cost) else None
        if not any(more) and back is None and said is None:
            return None
        try:
            return self._buckets.settle(more, back, said)
        except RedisError as error:  # what is to be given back is not: it may have been
            self._log.debug("embedqueue: Redis did not take what limits are to be charged with: %s", error)
            with self._lock:
                self._owed = self._owed.plus(more)
            return None
