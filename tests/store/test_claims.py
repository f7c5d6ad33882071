"""Claims, and calls that fail, at their rarer edges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from embedqueue import Budget, Limits
from embedqueue.store.budget import BudgetTerms
from embedqueue.store.limits import Said
from embedqueue.store.store import Store
from embedqueue.values.item import encode_member
from tests.proof.model import LEASE_SECONDS, MAX_DELIVERIES
from tests.proof.moves import BASE, Queue, terms


def claimed(store: Store, number: int, limit: int = 10, **options):
    how = {"probe_limit": 2, "lease_seconds": LEASE_SECONDS, "max_deliveries": MAX_DELIVERIES, "alone": False}
    return store.claim(f"w:{number}/1000:", limit, **(how | options))


def test_an_item_that_is_released_on_its_last_delivery_travels_alone_again(queue):
    """It waits in the line again, and must not take neighbours along when it comes up."""
    queue.enqueue([("doc:bad", "a")])
    bad = encode_member("doc:bad", "a")
    for _ in range(MAX_DELIVERIES - 1):
        queue.claim("w1:", alone=True)
        queue.lease_ends(bad)
    owner = queue.claim("w1:", alone=True)
    queue.release(owner, [bad])
    queue.enqueue([("doc:1", "b"), ("doc:2", "c")])
    owner = queue.claim("w2:", 1)
    assert [member for held_by, member in queue.hands if held_by == owner] == [encode_member("doc:1", "b")]
    queue.check()
    owner = queue.claim("w2:", 10)
    assert [member for held_by, member in queue.hands if held_by == owner] == [encode_member("doc:2", "c")]
    owner = queue.claim("w3:", alone=True)
    assert [member for held_by, member in queue.hands if held_by == owner] == [bad]
    queue.check()


def test_who_gives_an_item_back_takes_no_delivery_off(queue):
    """One worker has died of it, and that is known still."""
    queue.enqueue([("doc:1", "a")])
    member = encode_member("doc:1", "a")
    queue.claim("w1:")
    queue.lease_ends(member)
    queue.release(queue.claim("w2:"), [member])
    queue.check()


def on_their_last_delivery(queue: Queue, *keys: str) -> None:
    """Workers have died of them; they wait apart."""
    queue.enqueue([(key, "a") for key in keys])
    for _ in range(MAX_DELIVERIES - 1):
        queue.claim("w1:")
        for key in keys:
            queue.lease_ends(encode_member(key, "a"))
    queue.claim("w1:")


def test_who_waits_for_an_item_on_its_last_delivery_gets_it_first(queue):
    """It stands behind others, which travel alone as well; nobody knows another key that is waited for."""
    on_their_last_delivery(queue, "doc:1", "doc:2")
    claim = claimed(queue.store, 1000, alone=True, urgent=["doc:none", "doc:2"])
    assert claim.members == [encode_member("doc:2", "a")]
    assert queue.store.release([(claim.owner, claim.members[0])]) == 1


def test_an_item_on_its_last_delivery_waits_for_a_limit_where_it_was(redis_client, make_store):
    """It travels alone when the limit lets it, and until then it is said to wait."""
    store = make_store(redis_client, limits=Limits(requests_per_day=1))
    store.buckets.fit(10, 1000)
    first, last = encode_member("doc:1", "a"), encode_member("doc:2", "a")
    store.enqueue([[b"doc:1", first, b"doc:2", last]], max_pending=None, tell_at=50, tell_first=True)
    redis_client.zrem(store.keys.pending, last)
    redis_client.zadd(store.keys.alone, {last: 1.0})
    assert claimed(store, 1).members == [first]
    found = claimed(store, 2, alone=True)
    assert (found.members, found.alone) == ([], "waits")
    assert found.limited_seconds > 0
    assert redis_client.zscore(store.keys.alone, last)


def test_an_item_on_its_last_delivery_is_due_sooner_when_it_is_enqueued_so(queue):
    """It waits apart, and whoever enqueues it again need not know of that."""
    on_their_last_delivery(queue, "doc:1", "doc:2")
    queue.enqueue([("doc:2", "a")], within=0.0)
    queue.check()
    assert claimed(queue.store, 1000, alone=True).members == [encode_member("doc:2", "a")]


def test_an_older_stray_is_not_claimed_beside_the_newer_text_of_its_key(queue):
    """Where another program has taken as many as it has left, the counts tell of neither."""
    queue.leave(encode_member("doc:1", "old"), 1e6)
    queue.enqueue([("doc:2", "taken")])
    member = encode_member("doc:2", "taken")
    queue.client.zrem(queue.names.pending, member)  # a ghost
    del queue.model.pending[member]
    queue.taken.add("doc:2")
    queue.enqueue([("doc:1", "new")])
    assert queue.store.status().strays == 0
    owner = queue.claim("w1:")
    assert [member for held_by, member in queue.hands if held_by == owner] == [encode_member("doc:1", "new")]
    queue.check()


def test_an_older_stray_among_those_on_their_last_delivery_is_told_of(queue):
    """Where the counts tell of nothing: it is not claimed in the place of the newer text."""
    queue.enqueue([("doc:1", "new"), ("doc:2", "taken")])
    queue.client.zrem(queue.names.pending, encode_member("doc:2", "taken"))  # a ghost
    queue.client.zadd(queue.names.alone, {encode_member("doc:1", "old"): 1.0})
    claim = claimed(queue.store, 1, alone=True)
    assert claim.members in ([], [encode_member("doc:1", "new")])
    assert claim.strays == [encode_member("doc:1", "old")]
    queue.store.adoption.adopt(claim.strays, terms("embedding"))
    assert queue.client.zrange(queue.names.alone, 0, -1) == []


def test_an_item_whose_claim_nobody_knows_any_more_waits_again(queue):
    """``claims`` was deleted, or evicted: when its lease runs out it goes to the end of the line."""
    queue.enqueue([("doc:1", "a")])
    assert claimed(queue.store, 1).members
    queue.client.delete(queue.names.claims)
    queue.client.zadd(queue.names.inflight, {encode_member("doc:1", "a"): 1.0})
    assert claimed(queue.store, 2).members == [encode_member("doc:1", "a")]


def test_who_could_not_renew_leases_leaves_those_that_ran_out_alone_and_looks_again_soon(queue):
    """Redis was away: their workers are given the time to come back."""
    assert claimed(queue.store, 1, patient=True).lease_end_seconds is None
    queue.enqueue([("doc:1", "a"), ("doc:2", "b")])
    assert len(claimed(queue.store, 2, 1, patient=True).members) == 1
    queue.client.zadd(queue.names.inflight, {encode_member("doc:1", "a"): 1.0})
    found = claimed(queue.store, 3, 0, patient=True)
    assert (found.ran_out, found.lease_end_seconds) == (0, pytest.approx(1, abs=0.1))
    queue.client.zadd(queue.names.inflight, {encode_member("doc:1", "a"): 9e9})
    assert queue.store.status().lease_end_seconds == 0, "the clock was set back: the next claim puts it right"
    assert claimed(queue.store, 4, 0).lease_end_seconds > 1, "it lasts as long as it lasts"


def test_the_base_of_scores_is_kept_while_anything_counts_by_it(queue):
    """Items with a patience of their own are due by it; the next first one may bring another."""
    queue.enqueue([("doc:1", "a")], within=BASE)
    assert claimed(queue.store, 1, 0).base_seconds == queue.store.status().base_seconds == BASE
    owner = queue.claim("w1:")
    assert claimed(queue.store, 2, 0).base_seconds == BASE
    queue.complete(owner, [encode_member("doc:1", "a")])
    assert claimed(queue.store, 3, 0).base_seconds is None
    assert not queue.client.hexists(queue.names.settings, "base")


def test_a_lease_is_renewed_by_its_worker_whichever_claim_it_was_and_by_nobody_else(queue):
    queue.enqueue([("doc:1", "a")])
    members = claimed(queue.store, 1).members
    assert [queue.store.extend(owner, 100.0, members) for owner in ("w:", "x:")] == [1, 0]


def test_one_claim_tells_of_a_bounded_number_of_strays(queue):
    """However many another program has left, one script holds Redis up for a moment only."""
    pairs = [(f"doc:{i}", "a") for i in range(300)]
    for key, text in pairs:
        queue.client.zadd(queue.names.pending, {encode_member(key, text): 1.0})
    claim = claimed(queue.store, 1, 1000, unordered=True)
    assert (claim.status, claim.members) == ("adopt", [])
    assert 0 < len(claim.strays) <= 200


def test_what_all_must_agree_in_is_kept_with_the_first_vectors(queue):
    """Also the length that the first call teaches: from the first write on, all others must agree."""
    queue.enqueue([("doc:1", "a"), ("doc:2", "b")])
    unknown = terms("embedding", model="m")
    known = replace(unknown, dimensions=16)
    claim = claimed(queue.store, 1, 1, terms=unknown)
    assert queue.store.agreed() == {}, "who has written nothing decides nothing"
    assert queue.store.complete(claim.owner, known, [("doc:1", claim.members[0], bytes(64), "0" * 16)]) == ["done"]
    assert (queue.store.agreed()["model"], queue.store.agreed()["dimensions"]) == ("m", "16")
    assert claimed(queue.store, 2, terms=replace(known, dimensions=8)).differs == [("dimensions", "16")]


def test_what_all_must_agree_in_is_kept_before_a_sink_gets_the_first_vectors(queue):
    """Else rows of two models could come to stand there."""
    queue.enqueue([("doc:1", "a"), ("doc:2", "b")])
    ours, theirs = terms("embedding", model="m"), terms("embedding", model="other")
    first, second = claimed(queue.store, 1, 1, terms=ours), claimed(queue.store, 2, 1, terms=theirs)
    items = [[(f"doc:{at}", claim.members[0])] for at, claim in ((1, first), (2, second))]
    assert queue.store.stalls.stamps([("doc:1", b"{}")], theirs) == [None]
    assert queue.store.agreed() == {}, "nothing is to be written"
    assert queue.store.stalls.stamps(items[0], ours) != [None]
    assert queue.store.agreed()["model"] == "m"
    assert queue.store.stalls.stamps(items[1], theirs) == [None]


def test_where_nothing_tells_of_the_type_of_vectors_they_are_as_they_ever_were(queue):
    """An earlier release has kept the settings, with or without a provenance."""
    queue.client.hset(queue.names.settings, "embedding_field", "embedding")
    halves = replace(terms("embedding"), provenance_field=None, vector_type="float16")
    assert claimed(queue.store, 1, terms=halves).differs == [("vector_type", "float32")]


def test_a_call_that_fails_beside_a_probe_is_told_how_long_that_lasts(queue):
    """Nobody claims before the probe has its answer, or its lease has ended."""
    queue.enqueue([("doc:1", "a"), ("doc:2", "b")])
    first, second = claimed(queue.store, 1, 1), claimed(queue.store, 2, 1)
    times = {"first_seconds": 100.0, "most_seconds": 300.0, "least_seconds": 0.0}
    queue.store.fail(first.owner, [(first.owner, first.members[0])], reason="down", **times)
    queue.client.delete(queue.names.pause)  # it is over
    probe = claimed(queue.store, 3, lease_seconds=50.0)
    assert (probe.status, queue.store.status().probe) == ("probe", probe.owner)
    left = queue.store.fail(second.owner, [(second.owner, second.members[0])], reason="down", **times)
    assert left == pytest.approx(50, abs=5)


def test_a_failure_wakes_the_other_workers(queue):
    """Items wait again, and there is a pause to be known of."""
    queue.enqueue([("doc:1", "a")])
    claim = claimed(queue.store, 1)
    times = {"first_seconds": 1.0, "most_seconds": 2.0, "least_seconds": 0.0}
    queue.store.fail(claim.owner, [(claim.owner, claim.members[0])], reason="down", **times)
    kinds = [(f[b"kind"], f[b"by"]) for _, f in queue.client.xrange(queue.names.events)]
    assert (b"wake", claim.owner.encode()) in kinds[1:]


def test_what_a_stopped_worker_held_wakes_the_others(queue):
    """It was due when it was claimed."""
    queue.enqueue([("doc:1", "a")])
    claimed(queue.store, 1)
    queue.client.delete(queue.names.events)
    assert queue.store.release_all("w:") == 1
    assert [fields[b"kind"] for _, fields in queue.client.xrange(queue.names.events)] == [b"flush"]


@pytest.mark.parametrize("how", ["release_probe", "release_all"])
def test_a_probe_that_is_given_up_wakes_who_waits_for_it(queue, how):
    """Nobody tests the provider any more: the others would wait for as long as its lease."""
    queue.enqueue([("doc:1", "a")])
    first = claimed(queue.store, 1)
    times = {"first_seconds": 100.0, "most_seconds": 300.0, "least_seconds": 0.0}
    queue.store.fail(first.owner, [(first.owner, first.members[0])], reason="down", **times)
    queue.store.unhold()
    probe = claimed(queue.store, 2)
    assert (probe.status, claimed(queue.store, 3).status) == ("probe", "paused")
    queue.client.delete(queue.names.events)
    getattr(queue.store, how)("w:9/50.000:" if how == "release_probe" else probe.owner)
    kinds = [fields[b"kind"] for _, fields in queue.client.xrange(queue.names.events)]
    assert kinds == ([] if how == "release_probe" else [b"wake", b"flush"])
    queue.store.release_probe(probe.owner)
    kinds = [fields[b"kind"] for _, fields in queue.client.xrange(queue.names.events)]
    assert kinds == ([b"wake"] if how == "release_probe" else [b"wake", b"flush"])


def test_an_item_on_its_last_delivery_is_the_oldest_that_waits(queue):
    """Somebody has to claim it when it is due, though nothing else waits."""
    on_their_last_delivery(queue, "doc:1")
    found = queue.store.status()
    assert (found.waiting, found.score_age_seconds is None) == (1, False)
    queue.enqueue([("doc:2", "a")])
    queue.client.zadd(queue.names.pending, {encode_member("doc:2", "a"): 1.0})
    assert queue.store.status().score_age_seconds > 1e9, "unless another is older"


@pytest.mark.parametrize(("ahead", "age"), [(0, 0), (float("inf"), 1e9)])
def test_an_item_that_another_program_has_put_off_for_ever_is_due(queue, ahead, age):
    """Nobody may wait for it so long; any other is as old as it is."""
    queue.enqueue([("doc:1", "a")])
    queue.client.zincrby(queue.names.pending, ahead, encode_member("doc:1", "a"))
    assert queue.store.status().score_age_seconds // 1e9 * 1e9 == age


def test_a_full_queue_takes_what_it_holds_and_not_what_was_taken_away(queue):
    """A text that is in flight makes no more wait; one that another program took out would."""
    queue.enqueue([("doc:1", "a")])
    queue.claim("w1:")
    queue.enqueue([("doc:2", "b"), ("doc:3", "c")])
    assert queue.enqueue([("doc:1", "a")], limit=2) == [True]
    queue.check()
    member = encode_member("doc:1", "a")
    queue.client.zrem(queue.names.inflight, member)
    taken = queue.store.enqueue([[b"doc:1", member]], max_pending=2, tell_at=50, tell_first=True)
    assert taken[1] == [False]


def test_what_somebody_waits_for_is_claimed_once_and_first(queue):
    """It stands among the oldest as well."""
    queue.enqueue([("doc:1", "a"), ("doc:2", "b")])
    assert claimed(queue.store, 1, urgent=["doc:2"]).members == [
        encode_member("doc:2", "b"),
        encode_member("doc:1", "a"),
    ]


def test_processes_that_have_ended_are_forgotten_however_many_there_are(queue):
    """What is kept of them against late copies is not kept for ever, nor in one step with all the others."""
    now = queue.now()
    kept = {f"{number:032x}": f"1 {now + 1000 * (-1) ** number:.6f}" for number in range(600)}
    queue.client.hset(queue.names.settings, mapping=kept)
    for number in range(1, 40):
        claimed(queue.store, number, 0)
    left = {name.decode() for name in queue.client.hkeys(queue.names.settings)} & set(kept)
    assert {int(name, 16) % 2 for name in left} == {0}
    assert len(left) == 300


def test_a_claim_holds_a_bounded_number_of_bytes(queue):
    """Long texts come a few at a time: whoever claims has to hold them all."""
    queue.store.enqueue(
        [[part for i in range(8) for part in (b"doc:%d" % i, encode_member(f"doc:{i}", "x" * 300_000))]],
        max_pending=None,
        tell_at=50,
        tell_first=True,
    )
    assert [len(claimed(queue.store, number).members) for number in (1, 2)] == [4, 4]


@pytest.mark.parametrize(("chars", "least", "most"), [(10, 1, 12), (300_000, 5, 8)])
def test_a_claim_reads_short_texts_many_at_a_time_and_long_ones_singly(redis_client, make_store, chars, least, most):
    """Whichever they are, it costs Redis no more than it has to, in reads and in what is read in vain."""
    store = make_store(redis_client)
    pairs = [part for i in range(300) for part in (b"doc:%d" % i, encode_member(f"doc:{i}", "x" * chars))]
    store.enqueue([pairs[: 600 if chars < 100 else 10]], max_pending=None, tell_at=50, tell_first=True)
    redis_client.config_resetstat()
    claimed(store, 1, 1000)
    assert least <= redis_client.info("commandstats")["cmdstat_zrange"]["calls"] <= most


@pytest.mark.parametrize("held_by", ["limits", "budget", "provider"])
def test_what_may_not_go_yet_is_not_read_through(redis_client, make_store, held_by):
    """A backlog of thousands behind a limit, a budget, or what the provider wishes costs a claim a few short reads."""
    limits = {"limits": Limits(texts_per_minute=60), "provider": "auto"}.get(held_by)
    budget = Budget(usd_per_day=10, usd_per_million_tokens=1e6)
    terms_of = BudgetTerms(budget, 1e6, 10, 1000) if held_by == "budget" else None
    store = make_store(redis_client, limits=limits)
    if store.buckets is not None:
        store.buckets.fit(10, 1000)
        store.buckets.settle(said=Said(closed_seconds=60.0) if held_by == "provider" else None)
    pairs = [part for i in range(3000) for part in (b"doc:%d" % i, encode_member(f"doc:{i}", "text"))]
    store.enqueue([pairs], max_pending=None, tell_at=50, tell_first=True)
    redis_client.config_resetstat()
    assert len(claimed(store, 1, 3000, budget=terms_of).members) < 10
    assert redis_client.info("commandstats")["cmdstat_zrange"]["calls"] < 8
