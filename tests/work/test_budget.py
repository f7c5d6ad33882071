"""A budget holds across queues: they park before it is overrun, say so, and go on by themselves."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import wait

import pytest
import redis

from embedqueue import BatchFailed, Budget, OpenAIEmbedder
from embedqueue.testing import eager_queue
from embedqueue.values.observer import Observer
from tests.inside import FIRST_PAUSE_SECONDS, inside, worker_threads
from tests.parts import PATIENCE_SECONDS, eventually
from tests.provider import drop, fail

BUDGET, PAUSE = "embed_queue:budget", "embed_queue:pause"
#: At this price for a million tokens, a token costs a dollar.
DOLLAR = 1e6
TEXT = "x" * 33  # and three digits: ten tokens, by estimate


@pytest.fixture
def make(make_queue, provider):
    """Makes queues with a budget, on the strict provider, which charges ten tokens a text."""
    provider.settings.tokens_per_text = 10

    def make(usd_per_day: float | None = 100, usd_per_month: float | None = None, **options):
        options.setdefault("embedder", OpenAIEmbedder("test-key", provider.openai_url, 16))
        options.setdefault("api_batch_limit", 2)
        return make_queue(budget=Budget(usd_per_day, usd_per_month, DOLLAR), **options)

    return make


def _texts(count: int):
    return [(f"doc:{i}", f"{TEXT}{i:03}") for i in range(count)]


def _parked(queue) -> bool:
    return (queue.stats().pause_reason or "").startswith("budget")


def _spent(queue) -> float:
    return inside(queue).store.budget.state().day


def test_several_queues_do_not_overrun_one_budget(make, provider, redis_client):
    """Though each answer costs twice the estimate: by no more than the error of one call. What is left waits."""
    provider.settings.tokens_per_text = 20
    provider.latency = 0.01
    queues = [make(usd_per_day=1000, max_concurrency=4) for _ in range(3)]
    queues[0].enqueue_many(_texts(150))
    queues[0].flush_now()
    eventually(lambda: _parked(queues[1]), "parked")
    paid = 20 * sum(provider.answered.values())
    assert 1000 - 20 <= paid <= 1000 + 20  # a call: 2 texts that cost 20 more than estimated
    assert _spent(queues[2]) == paid
    stats = queues[2].stats()
    assert (stats.waiting, stats.in_flight, stats.dead) == (150 - paid // 20, 0, 0)


def test_parked_it_is_told_once_and_goes_on_at_midnight(make, provider, redis_client, caplog):
    """Waiters everywhere get an error that names it; one WARNING; and nobody has to do anything."""
    caplog.set_level(logging.WARNING, "embedqueue")
    queue, elsewhere = make(usd_per_day=25), make(usd_per_day=25, worker=False)
    futures = elsewhere.enqueue_many(_texts(5))
    assert not wait(futures, PATIENCE_SECONDS).not_done
    errors = [str(future.exception()) for future in futures if future.exception()]
    assert len(errors) == 3
    assert errors[0].startswith("budget: $20.00 of $25.00 for the day are spent")
    assert errors[0].endswith("it goes on at midnight (UTC); the item is still queued")
    late = elsewhere.enqueue("doc:late", "comes later")
    with pytest.raises(BatchFailed, match="^budget"):
        late.result(PATIENCE_SECONDS)
    mine = queue.enqueue("doc:mine", "comes later as well")
    with pytest.raises(BatchFailed, match="^budget"):
        mine.result(PATIENCE_SECONDS)
    with pytest.raises(BatchFailed, match="^budget"):
        queue.flush()
    assert [record.levelname for record in caplog.records if "budget" in record.message] == ["WARNING"]
    assert queue.stats().paused_until > 0
    redis_client.hset(BUDGET, "day", int(float(redis_client.hget(BUDGET, "day"))) - 1)
    redis_client.pexpire(PAUSE, 1)  # midnight
    queue.stop(), make(usd_per_day=1000).flush(PATIENCE_SECONDS)
    assert redis_client.zcard("embed_queue:pending") == 0
    assert set(provider.answered.values()) == {1}


def test_who_was_served_just_before_is_not_told_that_it_is_spent(make):
    """The notice of another worker's vector is not read yet."""
    queue, other = make(usd_per_day=10, worker=False), make(usd_per_day=10)
    queue._engine.listener.stop()
    future = queue.enqueue(*_texts(1)[0])
    other.flush(PATIENCE_SECONDS)
    other.enqueue("doc:late", "comes too late")
    other.flush_now()
    eventually(lambda: _parked(other), "parked")
    assert not future.done()
    queue._engine.worker._tell_of_budget()
    assert len(future.result(PATIENCE_SECONDS)) == 16


def test_a_worker_goes_on_at_midnight_by_itself(make, provider, redis_client):
    """Its own clock wakes it; here the pause is made short."""
    queue = make(usd_per_day=25)
    queue.enqueue_many(_texts(3))
    queue.flush_now()
    eventually(lambda: _parked(queue), "parked")
    redis_client.hset(BUDGET, "day", int(float(redis_client.hget(BUDGET, "day"))) - 1)
    redis_client.pexpire(PAUSE, 100)
    inside(queue).store.events.tell("wake", "")  # so that it knows of the shorter pause
    eventually(lambda: queue.stats().waiting == 0, "goes on")


def test_a_raise_lets_it_go_on_at_once(make, provider):
    """For today."""
    queue = make(usd_per_day=25)
    queue.enqueue_many(_texts(3))
    queue.flush_now()
    eventually(lambda: _parked(queue), "parked")
    inside(queue).store.budget.raise_(100.0)
    eventually(lambda: queue.stats().waiting == 0, "goes on")
    assert queue.stats().pause_reason is None


def test_a_worker_with_a_higher_limit_lets_it_go_on_at_once(make, provider):
    """As after a deployment: it waits neither for midnight nor for anybody."""
    queue = make(usd_per_day=25)
    queue.enqueue_many(_texts(3))
    queue.flush_now()
    eventually(lambda: _parked(queue), "parked")
    queue.stop()
    make(usd_per_day=25).stop()
    assert _parked(queue)
    queue = make(usd_per_day=1000)
    eventually(lambda: queue.stats().waiting == 0, "goes on")
    assert _spent(queue) == 30


def test_the_answer_trues_it_up(make, provider):
    """What equal texts and refusals have reserved is free again; measured tokens count, not estimates."""
    provider.settings.tokens_per_text = 3
    queue = make(usd_per_day=1000, api_batch_limit=50)
    queue.enqueue_many([(f"doc:{i}", TEXT) for i in range(10)] + [("doc:bad", "bad one")])
    provider.rule = lambda texts: fail(400) if any("bad" in text for text in texts) else None
    queue.flush(PATIENCE_SECONDS)
    eventually(lambda: inside(queue).store.budget.state().held == 0, "settled")
    assert queue.stats().dead == 1
    assert _spent(queue) == queue.stats().used_tokens == 3 * sum(provider.answered.values())


def test_where_nobody_counts_estimates_do(make, provider):
    """Also for a try that broke off after it was sent: it may be charged. A refusal is not."""
    provider.settings.tokens_per_text = None
    queue = make(usd_per_day=1000)
    provider.script(drop(), fail(503))
    queue.enqueue(*_texts(1)[0]).result(PATIENCE_SECONDS)
    assert queue.stats().unanswered_texts == 1  # it was sent again; what was refused is not counted
    eventually(lambda: inside(queue).store.budget.state().held == 0, "settled")
    assert _spent(queue) == 20  # the try that was dropped, and the one that was answered


def test_a_release_gives_back(make, provider, monkeypatch):
    """The provider fails: nothing was used."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)  # so that it stands while it is looked at
    queue = make(usd_per_day=1000)
    provider.script(fail(401))
    with pytest.raises(BatchFailed):
        queue.enqueue(*_texts(1)[0]).result(PATIENCE_SECONDS)
    eventually(lambda: inside(queue).store.budget.state().held == 0, "settled")
    assert _spent(queue) == 0


def test_stopping_settles_and_what_is_left_behind_counts(make, provider, redis_client):
    """A call that hangs may be paid."""
    queue = make(usd_per_day=1000, api_batch_limit=1, max_concurrency=1)
    provider.hold()
    queue.enqueue_many(_texts(3))
    queue.flush_now()
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    inside(queue).claim_nothing_more()  # else what a claim brings after the stop is settled in its time
    eventually(lambda: worker_threads() == 0, "its last claim has ended")
    queue.stop(timeout=0)
    state = inside(queue).store.budget
    other = make(start=False)
    assert inside(other).store.budget.state().held == 0
    assert 10 <= _spent(other) <= 30
    assert state is not None


def test_redis_away_while_it_settles_owes_it(make, provider, redis_client, monkeypatch):
    """It is told with what comes next."""
    queue = make(usd_per_day=1000)
    failed = threading.Event()
    settle = inside(queue).store.budget.settle

    def fails(owner, dollars):
        if not failed.is_set():
            failed.set()
            raise redis.ConnectionError("gone")
        return settle(owner, dollars)

    monkeypatch.setattr(inside(queue).purse, "_settle", fails)
    provider.settings.tokens_per_text = 1
    queue.enqueue(*_texts(1)[0]).result(PATIENCE_SECONDS)
    assert failed.wait(PATIENCE_SECONDS)
    assert _spent(queue) == 10
    queue.enqueue(*_texts(2)[1]).result(PATIENCE_SECONDS)
    eventually(lambda: _spent(queue) == 2, "both settled")


def test_an_eager_queue_spends_nothing(provider):
    """In tests nothing is paid, so nothing is counted."""
    queue = eager_queue(budget=Budget(1, usd_per_million_tokens=DOLLAR))
    for at in range(3):
        queue.enqueue(f"doc:{at}", TEXT).result(PATIENCE_SECONDS)
    assert _spent(queue) == 0


def test_on_a_fake_redis_as_well(fake_redis, make, provider):
    """Its Lua is another one."""
    queue = make(client=fake_redis, usd_per_day=25)
    futures = queue.enqueue_many(_texts(3))
    assert not wait(futures, PATIENCE_SECONDS).not_done
    assert sorted(future.exception() is None for future in futures) == [False, True, True]
    assert _parked(queue)


def test_a_budget_needs_a_price(make_queue, redis_client):
    """The list's, one of ``prices``, or its own."""
    with pytest.raises(ValueError, match="budget needs the price of own/model"):
        make_queue(model="own/model", budget=Budget(5))
    for options in ({"prices": {"own/model": 0.1}}, {"budget": Budget(5, usd_per_million_tokens=0)}):
        make_queue(start=False, **{"model": "own/model", "budget": Budget(5), **options})


def test_an_observer_sees_no_budget_where_there_is_none(make_queue, redis_client, embedder):
    """Without it, Redis is asked for nothing more, and nothing stands there."""

    class Counts(Observer):
        used = 0

        def call_ended(self, report):
            self.used += 1

    queue = make_queue(observers=[Counts()])
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    assert not redis_client.exists(BUDGET)


# -- the queries of searches -----------------------------------------------------------------------------------------


def test_queries_count_in_the_budget_as_documents_do(make, provider):
    """By what the answer says was charged; what could not be served costs nothing."""
    provider.settings.tokens_per_text = 7
    queue = make(usd_per_day=1000)
    queue.embed_query("where is the station?", PATIENCE_SECONDS)
    eventually(lambda: inside(queue).store.budget.state().held == 0, "settled")
    assert _spent(queue) == 7
    provider.script(fail(401))
    with pytest.raises(BatchFailed, match="401"):
        queue.embed_query("where is the harbour?", PATIENCE_SECONDS)
    eventually(lambda: inside(queue).store.budget.state().held == 0, "settled")
    assert _spent(queue) == 7


def test_a_query_that_does_not_fit_parks_the_queue(make, provider, caplog):
    """Nothing is sent; whoever waits for documents hears of it, in other processes as well; and one WARNING."""
    caplog.set_level(logging.WARNING, "embedqueue")
    queue, other = make(usd_per_day=25), make(usd_per_day=25, worker=False)
    future = other.enqueue("doc:1", "y" * 4 * 30)
    with pytest.raises(BatchFailed, match="^the queue is paused: budget: .*midnight"):
        queue.embed_query("x" * 4 * 30, PATIENCE_SECONDS)
    with pytest.raises(BatchFailed, match="^budget"):
        future.result(PATIENCE_SECONDS)
    with pytest.raises(BatchFailed, match="budget"):
        other.embed_query("short", PATIENCE_SECONDS)
    assert _parked(queue)
    assert not provider.answered
    assert _spent(queue) == 0
    assert [record.levelname for record in caplog.records if "budget" in record.message] == ["WARNING"]


def test_a_query_waits_until_what_is_in_flight_is_settled(make, provider, monkeypatch):
    """Near the end of a budget nobody knows what is left before that."""
    queue = make(usd_per_day=35)
    provider.hold()
    queue.enqueue(*_texts(1)[0])
    queue.flush_now()
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    caller = inside(queue).queries.caller
    rest, waits = caller.rest, []

    def rests(seconds):
        waits.append(len(provider.calls))
        provider.release()
        rest(seconds)

    monkeypatch.setattr(caller, "rest", rests)
    queue.embed_query("x" * 4 * 9, PATIENCE_SECONDS)
    assert waits[0] == 1  # the query was not sent beside the call of the document
    eventually(lambda: inside(queue).store.budget.state().held == 0, "settled")
    assert _spent(queue) == 20


def test_a_query_does_not_wait_for_ever_for_what_others_have_in_flight(make, provider, monkeypatch):
    queue = make(usd_per_day=35)
    provider.hold()
    queue.enqueue(*_texts(1)[0])
    queue.flush_now()
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    monkeypatch.setattr(inside(queue).queries.caller, "rest", lambda seconds: None)
    with pytest.raises(BatchFailed, match="nearly spent"):
        queue.embed_query("x" * 4 * 9, PATIENCE_SECONDS)
    provider.release()


def test_what_a_query_has_cost_is_its_estimate_if_redis_does_not_take_more(make, provider, monkeypatch):
    provider.settings.tokens_per_text = 3
    queue = make(usd_per_day=1000)

    def fails(*_):
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(inside(queue).store.budget, "settle", fails)
    queue.embed_query(TEXT, PATIENCE_SECONDS)
    assert _spent(queue) == 9
