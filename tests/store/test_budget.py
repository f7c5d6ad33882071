"""What claims may reserve of a budget, and how it is settled: the scripts alone, on a real Redis."""

from __future__ import annotations

import time

import pytest

from embedqueue.store.budget import BudgetTerms
from embedqueue.store.store import Store
from embedqueue.values.budget import Budget
from embedqueue.values.item import decode_member, encode_member

BUDGET, PAUSE, DAY = "embed_queue:budget", "embed_queue:pause", 86_400
#: At a million dollars for a million tokens, a token costs a dollar; these texts have ten each.
TEXT = "x" * 37


class Books:
    """A store, and claims under a budget of so many dollars a day."""

    def __init__(self, client, **budget: float | None) -> None:
        self.client = client
        self.store = Store(client, "embed_queue")
        self.numbers = iter(range(1, 1000))
        self.terms(**budget)

    def terms(self, texts: int = 1, tokens: int = 1000, **budget: float | None) -> None:
        self._terms = BudgetTerms(Budget(usd_per_million_tokens=1e6, **budget), 1e6, texts, tokens)

    def enqueue(self, *keys: str, text: str = TEXT) -> None:
        pairs = [part for key in keys for part in (key.encode(), encode_member(key, text))]
        self.store.enqueue([pairs], max_pending=None, tell_at=50, tell_first=False)

    def claim(self, limit: int = 100, worker: str = "w", lease: float = 60.0, budget: bool = True):
        return self.store.claim(
            f"{worker}:{next(self.numbers)}/{lease:.3f}:",
            limit,
            probe_limit=1,
            lease_seconds=lease,
            max_deliveries=5,
            alone=True,
            budget=self._terms if budget else None,
        )

    def finish(self, claim, dollars: float) -> None:
        """Its items are written, and it was charged so much."""
        for member in claim.members:
            self.client.zrem("embed_queue:inflight", member)
            self.client.hdel("embed_queue:latest", decode_member(member).redis_key)
        assert self.store.budget.settle(claim.owner, dollars)

    @property
    def spent(self) -> float:
        return self.store.budget.state().day


def test_a_claim_brings_what_fits_however_many_tokens_it_turns_out_to_have(redis_client):
    """With four times the estimate it would still fit; beyond that, it goes call by call."""
    books = Books(redis_client, usd_per_day=100)
    books.enqueue(*(f"k{i}" for i in range(20)))
    first = books.claim()
    assert len(first.members) == 2  # 2 texts of at most 40 tokens
    assert (books.spent, books.store.budget.state().held) == (20, 20)
    assert {books.store.status(workers=told, budget=True).budget.day for told in (False, True)} == {20}
    waits = books.claim()
    assert (waits.status, waits.members) == ("paused", [])
    assert 0 < waits.pause_seconds <= 1
    assert not redis_client.exists(PAUSE)  # others are not kept from anything
    assert not redis_client.hexists(BUDGET, f"hold {waits.owner}")  # it has reserved nothing
    assert books.store.budget.settle(first.owner, 20.0)
    assert books.store.budget.state().held == 0


def test_near_the_end_one_call_at_a_time_and_then_a_pause(redis_client):
    """The last call fits by its estimate; the next does not, and nobody claims until midnight."""
    books = Books(redis_client, usd_per_day=25)
    books.enqueue("k0", "k1", "k2")
    one = books.claim()
    assert (one.status, len(one.members)) == ("ok", 1)  # of one call
    assert books.claim(worker="other").status == "paused"
    assert books.store.budget.settle(one.owner, 10.0)
    two = books.claim()
    assert len(two.members) == 1
    assert books.store.budget.settle(two.owner, 13.0)  # its error
    parked = books.claim()
    assert (parked.status, parked.members, books.spent) == ("budget", [], 23)
    words = redis_client.get(PAUSE).decode()
    assert words.startswith("budget: $23.00 of $25.00 for the day are spent, and the next text would cost about $10.00")
    assert words == books.store.budget.parked() == books.store.budget.state().parked
    left = DAY - redis_client.time()[0] % DAY
    assert left - 5 < parked.pause_seconds <= left + 1
    assert books.claim(budget=False).status == "paused"  # also who knows nothing of it
    kinds = [fields[b"kind"] for _, fields in redis_client.xrange("embed_queue:events")]
    assert kinds.count(b"paused") == 1
    redis_client.pexpire(PAUSE, int(left + 3600) * 1000)  # the clock is set back
    assert books.claim().pause_seconds <= left + 1


def test_what_fits_exactly_fits(redis_client):
    """By as many tokens as there can be, by the estimate, into a call, and where a limit was set higher."""
    books = Books(redis_client, usd_per_day=80)
    books.enqueue("k0", "k1", "k2")
    surely = books.claim()
    assert len(surely.members) == 2  # of at most 40 tokens each
    books.finish(surely, 60.0)
    books.terms(2, 20, usd_per_day=80)
    books.enqueue("k3", "k4")
    call = books.claim()
    assert len(call.members) == 2  # 20 dollars are left, and a call holds 20 tokens
    books.finish(call, 20.0)
    assert books.claim().status == "budget"
    books.terms(usd_per_day=90)
    assert books.claim().members


def test_what_a_probe_cannot_pay_for_parks_as_well(redis_client):
    """The provider failed, and nobody finds out whether it still does."""
    books = Books(redis_client, usd_per_day=5)
    books.enqueue("k0")
    redis_client.set("embed_queue:pause:level", 1)
    assert books.claim().status == "budget"


def test_a_month_that_has_room_parks_nobody(redis_client):
    """It is the day that is spent, though the month has no more room than the next text needs."""
    books = Books(redis_client, usd_per_day=5, usd_per_month=10)
    books.enqueue("k0")
    assert books.claim().status == "budget"
    assert "at midnight" in books.store.budget.parked()


def test_what_was_reserved_and_not_used_is_free_again(redis_client):
    """An answer that costs less; a release, which costs nothing; a copy that comes late changes nothing."""
    books = Books(redis_client, usd_per_day=100)
    books.enqueue("k0", "k1")
    claim = books.claim()
    assert books.store.release([(claim.owner, member) for member in claim.members]) == 2
    assert books.store.budget.settle(claim.owner, 3.0)
    assert not books.store.budget.settle(claim.owner, 0.0)
    assert books.spent == 3


def test_a_batch_job_is_booked_once(redis_client):
    """Its name is known for a day, and forgotten when another one is booked."""
    budget = Books(redis_client, usd_per_day=100).store.budget
    assert budget.settle("job:one", 3.0)
    assert not budget.settle("job:one", 3.0)
    assert budget.state().day == 3
    known = float(redis_client.hget(BUDGET, "booked job:one")) - time.time()
    assert DAY - 60 < known <= DAY
    redis_client.hset(BUDGET, "booked job:one", time.time() - 1)
    assert budget.settle("job:two", 4.0)
    assert budget.state().day == 7
    assert [name for name in redis_client.hkeys(BUDGET) if name.startswith(b"booked")] == [b"booked job:two"]


@pytest.mark.parametrize("usd_per_day", [55, 1000])
def test_a_lease_that_ran_out_gives_nothing_back(redis_client, usd_per_day):
    """Its call may have been paid; but it is no longer waited for."""
    books = Books(redis_client, usd_per_day=usd_per_day)
    books.enqueue("k0")
    dead = books.claim(worker="dead", lease=0.001)
    assert dead.members
    time.sleep(0.01)
    again = books.claim()
    assert len(again.members) == 1
    assert books.spent == 20
    assert books.store.budget.state().held == 10
    assert not redis_client.hexists(BUDGET, f"hold {dead.owner}")


def test_what_a_dead_worker_held_and_nobody_can_find_ends_by_itself(redis_client):
    """Its item was superseded, so no lease runs out: after some time its estimate counts as spent."""
    books = Books(redis_client, usd_per_day=25)
    books.enqueue("k0")
    dead = books.claim(worker="dead")
    books.enqueue("k0", text="y" * 37)
    assert books.claim().status == "paused"
    _has_ended(redis_client, dead.owner)
    assert len(books.claim().members) == 1
    assert books.spent == 20


def test_where_nothing_is_held_any_more_claims_go_by_estimates_again(redis_client):
    """What dead workers have left is looked for before anybody goes call by call."""
    books = Books(redis_client, usd_per_day=100)
    books.enqueue("k0", "k1", "k2", "k3", "k4")
    dead = books.claim(worker="dead")
    assert len(dead.members) == 2
    _has_ended(redis_client, dead.owner)
    assert len(books.claim().members) == 2


def test_a_new_day_begins_with_nothing_spent_and_the_month_goes_on(redis_client):
    """What was reserved yesterday and is settled today takes nothing off today."""
    books = Books(redis_client, usd_per_day=25, usd_per_month=100)
    books.enqueue("k0", "k1", "k2", "k3")
    yesterday = books.claim()
    _turn_back(redis_client, "day")
    claim = books.claim(1)
    assert len(claim.members) == 1
    assert (books.spent, books.store.budget.state().month) == (10, 20)
    assert books.store.budget.settle(yesterday.owner, 0.0)
    assert (books.spent, books.store.budget.state().month) == (10, 10)


def test_a_new_day_forgets_what_nobody_will_settle(redis_client):
    """A process has died, and no lease told of it: the key does not grow for ever."""
    books = Books(redis_client, usd_per_day=1000)
    books.enqueue("k0", "k1")
    dead = books.claim(1)
    _has_ended(redis_client, dead.owner)
    _turn_back(redis_client, "day")
    books.claim(1)
    assert not redis_client.hexists(BUDGET, f"hold {dead.owner}")


def test_the_month_parks_until_the_first(redis_client):
    """Also where the day has room."""
    books = Books(redis_client, usd_per_month=15)
    books.enqueue("k0", "k1")
    books.finish(books.claim(), 10.0)
    books.enqueue("k2")
    parked = books.claim()
    assert parked.status == "budget"
    assert "for the month" in books.store.budget.parked() and "first of the month" in books.store.budget.parked()
    ends = time.gmtime(redis_client.time()[0] + parked.pause_seconds + 1)
    assert (ends.tm_mday, ends.tm_hour) == (1, 0)
    redis_client.delete(PAUSE)  # it has ended
    _turn_back(redis_client, "month")
    assert books.claim().members


def test_the_months_are_those_of_the_calendar(redis_client):
    """Whatever the date: the script and Python count alike."""
    state = Books(redis_client, usd_per_month=15)
    state.enqueue("k0")
    state.claim()
    today = time.gmtime(redis_client.time()[0])
    assert float(redis_client.hget(BUDGET, "month")) == 12 * today.tm_year + today.tm_mon - 3
    script = Store(redis_client, "embed_queue")._scripts.background
    loop = "local found = {} for i, day in ipairs(ARGV) do found[i] = month_of(tonumber(day)) end return found"
    days = range(0, 84_000, 13)  # to the year 2199
    found = script.eval(f"local budget {script_part()} {loop} end", 0, *days)
    dates = [time.gmtime(day * DAY) for day in days]
    assert found == [12 * date.tm_year + date.tm_mon - 3 for date in dates]


def script_part() -> str:
    from importlib import resources

    text = (resources.files("embedqueue.store") / "lua" / "budget.lua").read_text("utf-8")
    return text.partition("local function dollars")[0]


def test_a_higher_limit_and_a_raise_end_the_pause(redis_client):
    """At once, without anybody's resume; a pause that people have made is left alone."""
    books = Books(redis_client, usd_per_day=5)
    books.enqueue("k0")
    assert books.claim().status == "budget"
    assert books.claim().status == "paused"
    books.terms(usd_per_day=50)  # deployed with more
    claim = books.claim()
    assert (claim.status, len(claim.members)) == ("ok", 1)
    books.finish(claim, 0.0)
    books.terms(usd_per_day=5)
    books.enqueue("k1")
    assert books.claim().status == "budget"
    books.store.budget.raise_(10.0)
    assert books.store.budget.parked() == ""
    assert books.claim().members
    assert books.store.budget.state().day_raised == books.store.budget.state().month_raised == 10
    books.store.hold(None, "by hand")
    books.store.budget.raise_(10.0)
    assert books.claim().status == "paused"


def test_a_clock_that_was_set_back_begins_no_new_day(redis_client):
    """Nor does one that was years ahead keep the budget spent for years."""
    books = Books(redis_client, usd_per_day=100)
    books.enqueue("k0", "k1")
    books.claim(1)
    today = redis_client.time()[0] // DAY
    redis_client.hset(BUDGET, "day", today + 1)  # it stood at tomorrow, and was set right
    books.claim(1)
    assert float(redis_client.hget(BUDGET, "day:spent")) == 20e6
    redis_client.hset(BUDGET, "day", today + 1000)
    books.enqueue("k2")
    books.claim(1)
    assert (float(redis_client.hget(BUDGET, "day")), books.spent) == (today, 10)


def test_an_item_on_its_last_delivery_is_paid_from_the_budget_as_well(redis_client):
    """It stays where it is, and is no stray."""
    books = Books(redis_client, usd_per_day=5)
    books.enqueue("k0")
    member = encode_member("k0", TEXT)
    redis_client.zrem("embed_queue:pending", member)
    redis_client.zadd("embed_queue:alone", {member: 1.0})
    redis_client.hset("embed_queue:claims", "k0", "1 4")
    assert books.claim().status == "budget"
    assert redis_client.zscore("embed_queue:alone", member) is not None


def test_without_a_budget_there_is_no_key(redis_client):
    """And nothing is reserved."""
    books = Books(redis_client, usd_per_day=5)
    books.enqueue("k0")
    assert books.claim(budget=False).members
    assert not redis_client.exists(BUDGET)
    assert books.store.budget.state().day == 0


def test_rubbish_in_the_key_is_nothing(redis_client):
    """For who looks."""
    redis_client.hset(BUDGET, mapping={"day": "x", "day:spent": "many", "parked": "words"})
    assert Store(redis_client, "embed_queue").budget.state().day == 0
    assert Store(redis_client, "embed_queue").budget.parked() == ""


def _has_ended(client, owner: str) -> None:
    """What it has reserved counts as spent by now: it has died."""
    amount, day, month, _ = client.hget(BUDGET, f"hold {owner}").decode().split()
    client.hset(BUDGET, f"hold {owner}", f"{amount} {day} {month} {time.time() - 1}")


def _turn_back(client, name: str) -> None:
    """What is kept was of the day before, or of the month before."""
    before = int(float(client.hget(BUDGET, name))) - 1
    client.hset(BUDGET, name, before)
    for field, value in client.hgetall(BUDGET).items():
        if field.startswith(b"hold "):
            amount, day, month, ends = value.decode().split()
            day, month = (before, month) if name == "day" else (day, before)
            client.hset(BUDGET, field, f"{amount} {day} {month} {ends}")


@pytest.mark.parametrize("key", ["k", "ключ", 'k"\\'])
def test_an_estimate_is_that_of_the_text(redis_client, key):
    """About as Python makes it, whatever the key."""
    books = Books(redis_client, usd_per_day=1000)
    books.enqueue(key, text="some words of a text")
    books.claim()
    assert abs(books.spent - 6) <= 2


def test_what_is_reserved_twice_under_one_name_counts_once(redis_client):
    """An answer was lost, and the same is asked again."""
    books = Books(redis_client, usd_per_day=100)
    assert books.store.budget.reserve("query-w:1", 10, books._terms) == (0, "", False)
    before = books.spent
    assert books.store.budget.reserve("query-w:1", 10, books._terms) == (0, "", False)
    assert books.spent == before > 0
    assert books.store.budget.settle("query-w:1", 3)
    assert books.spent == 3
