"""What tries cost, who pays for them, and what is settled afterwards; with a book in the place of Redis."""

from __future__ import annotations

import threading

import pytest
import redis

from embedqueue.calls.caller import CANARY, Caller
from embedqueue.calls.concurrency import Concurrency
from embedqueue.calls.failures import Unserved
from embedqueue.calls.halving import Halving
from embedqueue.calls.retry import default_retry
from embedqueue.calls.tolls import Tolls, cost_of
from embedqueue.embedders.protocol import RateSeen
from embedqueue.store.limits import Said
from embedqueue.testing import FakeEmbedder
from embedqueue.values.errors import InputRejected, TransientError
from embedqueue.values.limits import Cost, Paid
from embedqueue.values.log import logger
from tests.calls.rig import TEXTS, Limits, poison

ONE = Cost(1, 1, 1)
NOTHING = (Cost(), None, None)


class Book:
    """In the place of the buckets: what is settled stands here."""

    def __init__(self, *, auto=False, counts_tokens=False, wait=0.0):
        self.auto, self.counts_tokens, self.wait = auto, counts_tokens, wait
        self.entries: list[tuple[Cost, Paid | None, Said | None]] = []
        self.away = False

    def settle(self, more, back, said):
        if self.away:
            raise redis.ConnectionError("away")
        self.entries.append((more, back, said))
        return self.wait if any(more) else 0.0, 50.0


class Telling(FakeEmbedder):
    """Tells how many tokens each call was charged, and what was said of limits."""

    tokens: int | None = None
    rates: tuple[RateSeen, ...] = ()

    def take_tokens(self):
        return self.tokens

    def rates_seen(self):
        return self.rates


class Rig:
    def __init__(self, book, embedder=None):
        self.book, self.embedder = book, embedder or Telling()
        self.slept: list[float] = []
        self.tolls = Tolls(book, self.embedder, logger)
        self.caller = Caller(
            self.embedder,
            "m",
            default_retry().copy(sleep=lambda seconds: None),
            Limits(50, 10**6),
            Concurrency(4),
            threading.Event(),
            tolls=self.tolls,
        )
        self.caller.rest = self.slept.append

    def serve(self, texts, paid):
        with self.tolls.of(paid):
            Halving(self.caller, probe=False, deliver=lambda *_: None, refuse=lambda *_: None).serve(texts)


def test_a_call_that_goes_well_costs_what_was_taken_for_it():
    book = Book()
    Rig(book).serve(TEXTS, Paid(7.0, cost_of(TEXTS)))
    assert book.entries == []


def test_further_tries_are_booked_before_they_are_sent_and_waited_for():
    book = Book(wait=2.5)
    rig = Rig(book, Telling(rule=lambda texts: TransientError("busy") if len(rig.embedder.calls) < 3 else None))
    rig.serve(["a", "b"], Paid(7.0, cost_of(["a", "b"])))
    assert book.entries == [(cost_of(["a", "b"]), None, None)] * 2
    assert rig.slept == [2.5, 2.5]


def test_what_a_claim_has_taken_too_much_pays_for_no_further_try():
    """It was taken at another time: what is sent later counts later."""
    book = Book()
    rig = Rig(book, Telling(rule=lambda texts: TransientError("busy") if len(rig.embedder.calls) < 3 else None))
    taken = Paid(7.0, cost_of("abcd"))
    rig.serve(["a", "b"], taken._replace(cost=taken.cost.plus(Cost(3, 0, 0))))
    debts = [more for more, *_ in book.entries if any(more)]
    assert debts == [cost_of(["a", "b"])] * 2
    assert book.entries[-1] == (Cost(), Paid(7.0, Cost(3, 2, 2)), None)


def test_parts_and_canaries_are_booked():
    """A bad text among four: four more calls in two levels, and no canary, for a neighbour was served."""
    book = Book()
    rig = Rig(book, Telling(rule=poison("c")))
    rig.serve(["a", "b", "c", "d"], Paid(7.0, cost_of("abcd")))
    assert sum(more.requests for more, *_ in book.entries) == len(rig.embedder.calls) - 1 == 4
    assert sum(more.texts for more, *_ in book.entries) == 6
    book.entries.clear()
    assert rig.caller.health_since(float("inf")).fault is None
    assert rig.embedder.calls[-1] == [CANARY]
    assert book.entries == [(cost_of([CANARY]), None, None)]


def test_what_was_taken_and_not_sent_is_given_back_under_the_time_of_its_taking():
    """Other workers, or the cache, had some of the texts; or none had to be sent at all."""
    book = Book()
    rig = Rig(book)
    rig.serve(["a"], Paid(7.0, cost_of("abc").plus(ONE)))
    with rig.tolls.of(Paid(8.0, ONE)):
        pass
    rig.tolls.give_back(Paid(9.0, ONE))
    assert [(more, back) for more, back, _ in book.entries] == [
        (Cost(), Paid(7.0, Cost(1, 3, 3))),
        (Cost(), Paid(8.0, ONE)),
        (Cost(), Paid(9.0, ONE)),
    ]


def test_a_call_that_fails_gives_back_the_rest_of_it_only():
    book = Book()
    rig = Rig(book, Telling(rule=lambda texts: TransientError("busy", retry_after=60)))
    with pytest.raises(Unserved):
        rig.serve(["a"], Paid(7.0, Cost(1, 2, 2)))
    assert book.entries == [(Cost(), Paid(7.0, Cost(0, 1, 1)), None)]


@pytest.mark.parametrize(
    ("tokens", "entry"),
    [(5, (Cost(0, 0, 3), None, None)), (1, (Cost(), Paid(7.0, Cost(0, 0, 1)), None)), (2, None), (None, None)],
)
def test_tokens_are_put_right_by_the_answer(tokens, entry):
    book = Book(counts_tokens=True)
    rig = Rig(book)
    rig.embedder.tokens = tokens
    rig.serve(["a", "b"], Paid(7.0, cost_of("ab")))
    assert book.entries == ([] if entry is None else [entry])


def test_tokens_of_one_who_does_not_tell_are_estimated():
    book = Book(counts_tokens=True, auto=True)
    Rig(book, FakeEmbedder()).serve(["a"], Paid(7.0, ONE))
    assert book.entries == []


def test_what_would_wait_for_too_long_is_not_sent():
    """The day's requests are spent: the call fails with the time that it takes, and nothing stays booked."""
    book = Book(wait=3600.0)
    rig = Rig(book)
    with pytest.raises(Unserved, match="the limits let nothing more be sent for 3600 s") as failure:
        rig.serve(["a"], None)
    assert failure.value.retry_after == 3600.0
    assert rig.embedder.calls == []
    assert book.entries == [(ONE, None, None), (Cost(), Paid(50.0, ONE), None)]


def test_what_redis_has_not_taken_is_booked_with_the_next():
    """What is to be given back is not sent again: it may have been taken, and would be given back twice."""
    book = Book()
    rig = Rig(book)
    book.away = True
    rig.serve(["a"], None)
    rig.tolls.give_back(Paid(7.0, ONE))
    assert rig.slept == []
    book.away = False
    rig.serve(["a"], None)
    assert book.entries == [(Cost(2, 2, 2), None, None)]


# -- limits="auto" ---------------------------------------------------------------------------------------------------


def test_a_limit_is_told_once_and_again_where_it_changes():
    book = Book(auto=True)
    rig = Rig(book)
    for limit in (600, 600, 300):
        rig.embedder.rates = (RateSeen("requests", "minute", limit, limit - 1), RateSeen("texts", "day", 5))
        rig.serve(["a"], Paid(7.0, ONE))
    assert [said for *_, said in book.entries] == [Said({"requests": 600}), Said({"requests": 300})]


def test_a_limit_that_is_still_heard_of_is_told_again_before_it_is_forgotten(monkeypatch):
    book = Book(auto=True)
    rig = Rig(book)
    rig.embedder.rates = (RateSeen("requests", "minute", 600, 599),)
    for seconds in (600.0, 0.0, 600.0):
        monkeypatch.setattr("embedqueue.calls.tolls.TELL_SECONDS", seconds)
        rig.serve(["a"], Paid(7.0, ONE))
    assert [said for *_, said in book.entries] == [Said({"requests": 600})] * 2


def test_others_are_told_where_little_is_left():
    book = Book(auto=True)
    rig = Rig(book)
    for left in (599, 61, 60):
        rig.embedder.rates = (RateSeen("tokens", "minute", 600, left),)
        rig.serve(["a"], Paid(7.0, ONE))
    assert [said for *_, said in book.entries] == [Said({"tokens": 600}), Said({"tokens": 600}, {"tokens": 60})]


@pytest.mark.parametrize(
    ("error", "rates", "said"),
    [
        (TransientError("spent", status=429, retry_after=30), (), Said(closed_seconds=30.0)),
        (
            TransientError("quota", status=429, retry_after=30),
            (RateSeen("texts", "minute", 100, 0),),
            Said({"texts": 100}, {"texts": 0}),
        ),
        (TransientError("busy", status=429), (), None),
        (TransientError("down", status=503, retry_after=30), (), None),
        (InputRejected("bad", status=422), (), None),
    ],
)
def test_a_refusal_tells_all(error, rates, said):
    """Of a limit, or, where it names none, for how long the provider wants nothing."""
    book = Book(auto=True)
    rig = Rig(book, Telling(rule=lambda texts: error))
    rig.embedder.rates = rates
    with rig.tolls.of(Paid(7.0, ONE)), pytest.raises(type(error)):
        rig.caller._try(["a"])
    assert [entry[2] for entry in book.entries] == ([] if said is None else [said])
