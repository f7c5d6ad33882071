"""Reserves of the budget what calls of queries may cost, which no claim has brought, and settles it afterwards."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

from redis.exceptions import RedisError

from embedqueue.store.budget import BudgetBook, BudgetTerms
from embedqueue.values.errors import BatchFailed
from embedqueue.values.log import Log
from embedqueue.values.tokens import estimated_tokens

from .caller import Caller

#: Seconds that a call waits at most until what others have in flight is settled, where the budget is nearly spent.
MOST_WAIT_SECONDS = 60.0


class Fund:
    """Pays for calls of queries out of the budget. Thread-safe: a call is made in one thread.

    Args:
        book: of the queue.
        terms: returns on which terms is reserved now.
        caller: makes the calls, and knows what they have cost.
        name: of this process, with a colon at its end.
        log: takes the records.
    """

    def __init__(self, book: BudgetBook, terms: Callable[[], BudgetTerms], caller: Caller, name: str, log: Log) -> None:
        self._book = book
        self._terms = terms
        self._caller = caller
        self._name = f"query-{name}"  # not as our worker's: what is told under that our own listener does not heed
        self._numbers = itertools.count(1)
        self._log = log

    @contextlib.contextmanager
    def pays(self, texts: Sequence[str]) -> Iterator[None]:
        """A call of these texts is made.

        Raises:
            BatchFailed: the budget is spent, or the queue is paused for another reason.
            Stopping: the queue stops.
            redis.RedisError: Redis does not answer.
        """
        owner, terms = f"{self._name}{next(self._numbers)}", self._terms()
        self._reserve(owner, sum(map(estimated_tokens, texts)), terms)
        self._caller.take_paid()
        try:
            yield
        finally:
            dollars = self._caller.take_paid() * terms.price / 1e6
            try:
                self._book.settle(owner, dollars)
            except RedisError as error:  # then the estimate counts as spent
                self._log.debug("embedqueue: what a query has cost could not be told: %s", error)

    def _reserve(self, owner: str, tokens: int, terms: BudgetTerms) -> None:
        waited = 0.0
        while True:
            seconds, words, begun = self._book.reserve(owner, tokens, terms)
            if begun:
                self._log.warning("embedqueue: nothing is embedded: %s", words)
            if words:
                raise BatchFailed(f"the queue is paused: {words}")
            if not seconds:
                return
            if waited >= MOST_WAIT_SECONDS:
                raise BatchFailed("the budget is nearly spent, and what other calls cost is not known yet")
            self._caller.rest(seconds)
            waited += seconds
