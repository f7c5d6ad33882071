"""Single moves at their edges, on a real server and on fakeredis alike."""

from __future__ import annotations

import itertools
import json

import pytest

from embedqueue.values.item import encode_member
from tests.proof.model import LEASE_SECONDS, MAX_DELIVERIES, read
from tests.proof.moves import Queue, asked, terms


def word_of(queue: Queue, key: str) -> str:
    return queue.store.look([asked(key)], terms("embedding"))[0][0]


def notices(queue: Queue) -> list[tuple[str, object]]:
    """Kind and body of all notices that name keys."""
    found = [fields for _, fields in queue.client.xrange(queue.names.events)]
    return [(f[b"kind"].decode(), json.loads(f[b"body"])) for f in found if f[b"body"].startswith(b"[")]


def test_a_blank_text_of_long_ago_is_not_the_newest(queue):
    """Once blank, then embedded, then gone with its hash: its future must not get the zero vector."""
    queue.enqueue([("doc:0", "a")])
    queue.enqueue([("doc:0", "")])
    assert word_of(queue, "doc:0") == "blank"
    queue.enqueue([("doc:0", "b")])
    owner = queue.claim("w1:")
    queue.complete(owner, [encode_member("doc:0", "b")], skip=True)
    queue.check()
    assert word_of(queue, "doc:0") == "gone"


def test_a_late_write_does_not_hide_that_the_newest_text_was_blank(queue):
    """The notice of a stale write tells of no newer text."""
    queue.enqueue([("doc:0", "a")])
    owner = queue.claim("w1:")
    queue.enqueue([("doc:0", "")])
    queue.complete(owner, [encode_member("doc:0", "a")])
    assert word_of(queue, "doc:0") == "blank"
    assert notices(queue)[-2:] == [("blank", ["doc:0"]), ("stale", ["doc:0"])]


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"7", b"[[]]", b"[null, 1]", b'{"doc:0": 1}', b"\xff"])
def test_notices_of_others_do_not_stop_a_look(queue, body):
    """Whatever somebody else wrote into the stream."""
    queue.enqueue([("doc:0", "a")])
    queue.enqueue([("doc:0", "")])
    queue.client.xadd(queue.names.events, {"kind": "blank", "by": "", "body": body})
    queue.client.xadd(queue.names.events, {"kind": "done"})
    assert word_of(queue, "doc:0") == "blank"


def test_an_item_that_kills_its_workers(queue):
    """Deliveries are counted by leases that run out, the last one is made alone, and then it is a dead letter."""
    bad, good = encode_member("doc:bad", "x"), encode_member("doc:good", "x")
    queue.enqueue([("doc:bad", "x")])
    for count in range(1, MAX_DELIVERIES):
        queue.claim("w1:")
        queue.lease_ends(bad)
        queue.claim("w2:", 0)  # only to see what ran out
        queue.check()
        assert queue.model.claims[b"doc:bad"].deliveries == count
        queue.model.check(read(queue.client, queue.names))
    queue.enqueue([("doc:good", "x")])
    queue.claim("w1:")
    assert list(queue.model.inflight) == [good], "it took a neighbour along"
    queue.claim("w3:", alone=True)
    assert set(queue.model.inflight) == {good, bad}
    queue.lease_ends(bad)
    queue.claim("w2:")
    queue.check()
    info = json.loads(queue.client.hget(queue.names.dead_info, "doc:bad"))
    assert info["deliveries"] == MAX_DELIVERIES
    assert "died 3 times" in info["reason"]
    assert notices(queue)[-1] == ("failed", ["doc:bad"])


def test_everybody_is_told(queue):
    """What waiters in other processes live by: a notice of each end, with the worker that tells and the keys."""
    queue.enqueue([("doc:0", "a"), ("doc:1", "b"), ("doc:2", "c")])
    owner = queue.claim("w1:")
    queue.complete(owner, [encode_member("doc:0", "a"), encode_member("doc:1", "b")])
    queue.reject(owner, encode_member("doc:2", "c"))
    assert notices(queue) == [("done", ["doc:0", "doc:1"]), ("failed", ["doc:2"])]
    last = queue.client.xrevrange(queue.names.events, count=1)[0][1]
    assert last[b"by"].decode() == owner


@pytest.mark.parametrize(
    ("tell_at", "tell_first", "told"), [(50, True, [1]), (50, False, []), (2, False, [2]), (1, True, [1])]
)
def test_workers_are_told_of_enough(queue, tell_at, tell_first, told):
    """Once at the first item where nobody here works, once at enough, and not for each one after."""
    seen = []
    for place in range(1, 5):
        before = queue.client.xlen(queue.names.events)
        pair = [f"doc:{place}".encode(), encode_member(f"doc:{place}", "x")]
        queue.store.enqueue([pair], max_pending=None, tell_at=tell_at, tell_first=tell_first)
        if queue.client.xlen(queue.names.events) > before:
            seen.append(place)
    assert seen == told


@pytest.mark.parametrize(("tell_at", "tell_first", "told"), [(50, True, [1]), (50, False, []), (4, False, [2])])
def test_workers_are_told_of_enough_at_once(queue, tell_at, tell_first, told):
    """The same where one call brings several items."""
    seen = []
    for place in range(1, 5):
        before = queue.client.xlen(queue.names.events)
        pairs = [(f"doc:{place}{half}".encode(), encode_member(f"doc:{place}{half}", "x")) for half in "ab"]
        queue.store.enqueue([[*pairs[0], *pairs[1]]], max_pending=None, tell_at=tell_at, tell_first=tell_first)
        if queue.client.xlen(queue.names.events) > before:
            seen.append(place)
    assert seen == told


def test_a_probe_is_one_call(queue):
    """After a pause one claim of one call's size tries; its end lets all go on, its failure makes the pause longer."""
    queue.enqueue([(f"doc:{place}", "x") for place in range(5)])
    owner = queue.claim("w1:", 2)
    for seconds in (20.0, 40.0, 80.0):
        members = list(queue.model.inflight)
        assert fail(queue, owner, *members) == seconds
        queue.model.fail(owner, members, "down", 20, 300, 0, 0)
        queue.check()
        queue.client.delete(queue.names.pause)
        queue.model.pause = ""
        owner = queue.claim("w1:", 10)
        assert len(queue.model.inflight) == 2
        queue.claim("w2:", 10)
        assert len(queue.model.inflight) == 2, "two probed at once"
    assert owner == queue.model.probe
    queue.complete(owner, list(queue.model.inflight))
    queue.claim("w2:", 10)
    queue.check()
    assert len(queue.model.inflight) == 3


def test_items_of_one_call_keep_their_order(queue):
    """And none lies in the future, where a later call would come before it."""
    keys = ["doc:c", "doc:a", "doc:d", "doc:b"]
    queue.enqueue([(key, "x") for key in keys])
    queue.enqueue([("doc:0", "x")])
    queue.claim("w1:")
    assert [member for _, member in queue.hands] == [encode_member(key, "x") for key in [*keys, "doc:0"]]


def test_a_blank_text_of_an_idle_queue_wakes_nobody(queue):
    queue.enqueue([("doc:0", "")])
    assert queue.client.xlen(queue.names.events) == 0


def kinds(queue: Queue) -> list[str]:
    return [fields[b"kind"].decode() for _, fields in queue.client.xrange(queue.names.events)]


def test_workers_are_told_of_one_item_that_waits_again(queue):
    """Another process that has nothing to do drains what was due already, and looks at what waits at the end."""
    queue.enqueue([("doc:0", "a")])
    member = encode_member("doc:0", "a")
    owner = queue.claim("w1:")
    told = kinds(queue)
    assert queue.release(owner, [member]) == 1
    assert kinds(queue) == [*told, "flush"]
    queue.reject(queue.claim("w1:"), member)
    queue.retry_dead([b"doc:0"])
    assert kinds(queue) == [*told, "flush", "failed", "wake"]


def test_what_changes_nothing_is_told_to_nobody(queue):
    """A notice wakes every worker of every process."""
    queue.enqueue([("doc:0", "a")])
    member = encode_member("doc:0", "a")
    told = kinds(queue)
    assert queue.release("w1:") == queue.release("w1:1:", [member]) == 0
    queue.reject("w1:1:", member)
    queue.retry_dead([b"doc:0"])
    assert kinds(queue) == told


@pytest.mark.parametrize(("prober", "ours"), [("w1:1/9:", True), ("w2:1/9:", False)])
def test_a_renewal_keeps_up_the_probe_of_its_worker_and_no_pause(queue, prober, ours):
    """A call that tests the provider may take longer than its lease; what others set lasts as long as they said."""
    queue.client.set(queue.names.pause_probe, prober, px=50_000)
    queue.store.hold(50, "probe w1:1/9:")  # a reason of somebody's is only words
    queue.store.extend("w1:", 1000, [])
    assert (queue.client.pttl(queue.names.pause_probe) > 900_000) == ours
    assert 40_000 < queue.client.pttl(queue.names.pause) <= 50_000


@pytest.mark.parametrize(("prober", "ours"), [("w1:1/9:", True), ("w2:1/9:", False)])
def test_a_release_lets_go_of_its_probe_and_of_no_pause(queue, prober, ours):
    queue.client.set(queue.names.pause_probe, prober, px=50_000)
    queue.store.hold(50, "probe w1:1/9:")
    queue.store.release_all("w1:")
    assert queue.client.exists(queue.names.pause_probe) == (not ours)
    assert queue.client.get(queue.names.pause) == b"probe w1:1/9:"


def test_a_release_of_some_items_leaves_the_probe_of_its_worker(queue):
    """They are of other calls, which fail beside the one that tests the provider."""
    queue.client.set(queue.names.pause_probe, "w1:1/9:", px=50_000)
    queue.enqueue([("doc:0", "x")])
    queue.client.delete(queue.names.pause_probe)
    queue.claim("w1:")
    queue.client.set(queue.names.pause_probe, "w1:9/9:", px=50_000)
    queue.model.probe = "w1:9/9:"
    queue.release("w1:", list(queue.model.inflight))
    assert queue.client.exists(queue.names.pause_probe)
    queue.check()


def test_a_wish_of_the_provider_outlasts_a_shorter_pause_that_people_set_during_a_probe(queue):
    """A longer one, or one without an end, stays as it is."""
    for seconds, words in ((2, b"down"), (200, b"maintenance"), (None, b"maintenance")):
        queue.client.set(queue.names.pause_probe, "w1:1:", px=9000)
        queue.store.hold(seconds, "maintenance")
        fail(queue, "w1:1:", least_seconds=100)
        assert queue.client.get(queue.names.pause) == words
        queue.client.delete(*queue.names.pauses)


def test_a_pause_by_hand_in_the_words_of_a_failure_lasts_as_long_as_people_wish(queue):
    owner, member = under_way(queue, "doc:0")
    fail(queue, owner, member, least_seconds=20)
    queue.store.hold(3600, "down")
    assert queue.store.status().pause_seconds > 3590


def test_a_pause_that_people_set_during_a_probe_outlasts_it(queue):
    """Whatever the probe's answer is."""
    queue.client.set(queue.names.pause_level, 1)
    queue.model.level = 1
    queue.enqueue([("doc:0", "x")])
    owner = queue.claim("w1:")
    queue.store.hold(None, "maintenance")
    queue.model.pause = "maintenance"
    queue.complete(owner, [encode_member("doc:0", "x")])
    queue.check()
    status = queue.store.status()
    assert (status.pause_reason, status.probing, status.failing) == ("maintenance", False, False)


def test_who_gives_nothing_back_keeps_what_it_holds(queue):
    queue.enqueue([("doc:0", "text")])
    queue.claim("w1:")
    assert queue.store.release([]) == 0
    queue.check()


def under_way(queue: Queue, *keys: str) -> list:
    """Items of these keys are claimed: the name of the claim, and their members."""
    queue.enqueue([(key, "x") for key in keys])
    return [queue.claim("w1:"), *(encode_member(key, "x") for key in keys)]


def fail(queue: Queue, owner: str, *members: bytes, least_seconds: float = 0.0) -> float:
    """A call of these items fails."""
    times = {"first_seconds": 20, "most_seconds": 300, "least_seconds": least_seconds}
    return queue.store.fail(owner, [(owner, member) for member in members], reason="down", **times)


def test_that_the_provider_failed_is_known_for_a_while_after_the_pause(queue):
    """So that whoever comes next sends one call; but an idle queue is not failing for ever."""
    owner, member = under_way(queue, "doc:0")
    fail(queue, owner, member, least_seconds=20)
    assert 15_000 < queue.client.pttl(queue.names.pause) <= 20_000
    assert 615_000 < queue.client.pttl(queue.names.pause_level) <= 620_000


def test_a_wish_of_the_provider_makes_a_pause_longer(queue):
    """Of calls that fail side by side, the one that was told to wait for longest decides."""
    owner, *members = under_way(queue, "doc:0", "doc:1", "doc:2")
    assert fail(queue, owner, members[0], least_seconds=20) == 20
    assert fail(queue, owner, members[1], least_seconds=100) == 100
    assert 95_000 < queue.client.pttl(queue.names.pause) <= 100_000
    fail(queue, owner, members[2], least_seconds=20)
    assert 95_000 < queue.client.pttl(queue.names.pause)


def test_a_pause_without_an_end_stays_one_when_a_call_fails(queue):
    """Of a call that was under way when somebody wanted nothing claimed."""
    owner, member = under_way(queue, "doc:0")
    queue.store.hold(None, "maintenance")
    assert fail(queue, owner, member, least_seconds=20) > 0
    assert queue.client.get(queue.names.pause) == b"maintenance"
    assert queue.client.pttl(queue.names.pause) == -1


def test_a_probe_is_not_held_up_by_another_call_that_fails(queue):
    """A probe ends with its lease, whatever the provider wishes."""
    owner, member = under_way(queue, "doc:0")
    queue.client.set(queue.names.pause_probe, "w2:1/9:", px=9000)
    assert fail(queue, owner, member, least_seconds=250) <= 9
    assert 0 < queue.client.pttl(queue.names.pause_probe) <= 9000
    assert not queue.client.exists(queue.names.pause)


def test_waiters_elsewhere_are_told_which_keys_a_call_failed_with(queue):
    """All of them where the probe failed: nothing can be served."""
    owner, *members = under_way(queue, "doc:0", "doc:1")
    fail(queue, owner, members[0])
    queue.client.set(queue.names.pause_probe, owner)
    fail(queue, owner, members[1])
    found = [fields for _, fields in queue.client.xrange(queue.names.events) if fields[b"body"]]
    assert [(f[b"kind"], f[b"by"], json.loads(f[b"body"])) for f in found] == [
        (b"unserved", owner.encode(), {"reason": "down", "keys": ["doc:0"]}),
        (b"unserved", owner.encode(), {"reason": "down", "keys": ["doc:1"]}),
        (b"paused", owner.encode(), {"reason": "down"}),
    ]


def test_a_failure_that_was_told_already_begins_no_pause(queue):
    """The answer to the first was lost, and the worker asks again; or a copy of it comes when all is well again."""
    owner, member = under_way(queue, "doc:0")
    assert fail(queue, owner, member) == 20
    told = kinds(queue)
    assert 0 < fail(queue, owner, member, least_seconds=100) <= 20, "the pause is as long as it was"
    queue.client.delete(queue.names.pause)
    assert fail(queue, owner, member) == 0
    assert not queue.client.exists(queue.names.pause)
    assert queue.client.get(queue.names.pause_level) == b"1"
    assert kinds(queue) == told


def test_how_long_a_single_item_waits_and_is_held(queue):
    """What is shown of a queue, and what an idle worker sleeps by."""
    queue.enqueue([("doc:0", "a")])
    status = queue.store.status()
    assert 0 <= status.oldest_age_seconds < 60
    assert status.lease_end_seconds is None
    queue.claim("w1:")
    status = queue.store.status()
    assert status.oldest_age_seconds is None
    assert LEASE_SECONDS - 60 < status.lease_end_seconds <= LEASE_SECONDS


def test_several_are_given_up_at_once(queue):
    """Each for its own reason, as a worker does with what it finds to be none of ours."""
    queue.enqueue([(f"doc:{place}", "x") for place in range(3)])
    owner = queue.claim("w1:")
    items = [(owner, encode_member(f"doc:{place}", "x"), f"reason {place}", False) for place in range(3)]
    assert queue.store.reject(owner, items) == ["dead"] * 3
    letters = queue.store.dead.page(10, 0)
    assert {letter.redis_key: letter.reason for letter in letters} == {f"doc:{n}": f"reason {n}" for n in range(3)}


def test_a_provider_may_say_whatever_it_likes(queue):
    """Its words do not decide whose a dead letter is."""
    member = encode_member("doc:0", "x")
    queue.enqueue([("doc:0", "x")])
    queue.reject(queue.claim("w1:"), member, "not our JSON, says the provider")
    queue.check()
    assert queue.store.dead.retry(["doc:0"]) == 1


def test_who_lost_an_item_to_another_worker_gives_nothing_up(queue):
    """Neither to the dead letters nor back: its new holder goes on."""
    member = encode_member("doc:0", "x")
    queue.enqueue([("doc:0", "x")])
    lost = queue.claim("w1:")
    queue.lease_ends(member)
    queue.claim("w2:")
    assert list(queue.model.inflight) == [member]
    queue.reject(lost, member)
    queue.release(lost, [member])
    queue.check()
    assert list(queue.model.inflight) == [member]


def test_a_claim_tells_how_long_its_oldest_item_has_waited(queue):
    """Whichever comes first: what somebody waits for overtakes older ones. And how old is what it leaves."""
    queue.enqueue([("doc:0", "x"), ("doc:1", "x"), ("doc:2", "x")])
    members = [encode_member(f"doc:{place}", "x") for place in range(3)]
    for place, (member, seconds) in enumerate(zip(members, (50, 100, 200), strict=True)):
        queue.client.zincrby(queue.names.pending, -seconds, member)
        stamp, _, _ = queue.client.hget(queue.names.latest, f"doc:{place}").partition(b" ")
        queue.client.hset(queue.names.latest, f"doc:{place}", b"%d %s" % (int(stamp) - seconds * 10**6, member))

    numbers = itertools.count(1)

    def claim(limit, lease_seconds, urgent):
        return queue.store.claim(
            f"w1:{next(numbers)}:",
            limit,
            probe_limit=2,
            lease_seconds=lease_seconds,
            max_deliveries=3,
            alone=False,
            urgent=urgent,
        )

    first = claim(2, 1000, ["doc:0", "doc:1"])
    assert first.members == members[:2]
    assert 100 <= first.waited_seconds < 160
    assert 200 <= first.oldest_age_seconds < 260
    assert 940 < first.lease_end_seconds <= 1000
    second = claim(2, 300, [])
    assert 200 <= second.waited_seconds < 260
    assert second.oldest_age_seconds is None
    assert 240 < second.lease_end_seconds <= 300


@pytest.mark.parametrize(
    ("max_deliveries", "alone", "taken"),
    [(1, "no", ["doc:0", "doc:1"]), (2, "waits", ["doc:1"]), (3, "no", ["doc:0", "doc:1"])],
)
def test_the_last_delivery_is_made_alone_unless_it_is_the_first(queue, max_deliveries, alone, taken):
    """With max_deliveries=1 nothing is ever delivered again, and nobody has killed a worker yet."""

    def enqueue(key):
        pair = [key.encode(), encode_member(key, "x")]
        queue.store.enqueue([pair], max_pending=None, tell_at=50, tell_first=True)

    numbers = itertools.count(1)

    def claim():
        return queue.store.claim(
            f"w1:{next(numbers)}:", 10, probe_limit=2, lease_seconds=10, max_deliveries=max_deliveries, alone=False
        )

    enqueue("doc:0")
    if max_deliveries > 1:
        queue.lease_ends(claim().members[0])
    enqueue("doc:1")
    second = claim()
    assert (second.alone, second.members) == (alone, [encode_member(key, "x") for key in taken])


def test_a_last_delivery_waits_for_the_end_of_a_pause(queue):
    """Nobody claims while there is one, an idle worker neither."""
    queue.enqueue([("doc:0", "x")])
    for _ in range(MAX_DELIVERIES - 1):
        queue.claim("w1:", alone=True)
        queue.lease_ends(encode_member("doc:0", "x"))
    queue.store.hold(60, "maintenance")
    queue.model.pause = "maintenance"
    queue.claim("w1:", alone=True)
    assert not queue.model.inflight
    queue.client.delete(queue.names.pause)
    queue.model.pause = ""
    queue.claim("w1:", 1, alone=True)
    assert list(queue.model.inflight) == [encode_member("doc:0", "x")]
    queue.check()


def test_a_probe_of_nothing_holds_nobody_up(queue):
    """Where nothing waits there is nothing to test the provider with: the next one that claims something does."""
    queue.client.set(queue.names.pause_level, 1)
    queue.model.level = 1
    queue.claim("w1:")
    assert not queue.client.exists(queue.names.pause_probe)
    queue.enqueue([("doc:0", "x")])
    owner = queue.claim("w2:")
    assert queue.client.get(queue.names.pause_probe) == owner.encode()


@pytest.mark.parametrize("refused", [False, True])
def test_all_go_on_once_a_probe_has_its_answer(queue, refused):
    """Workers of other processes as well, which had been told how long the pause is."""
    queue.client.set(queue.names.pause_level, 1)
    queue.model.level = 1
    queue.enqueue([("doc:0", "x")])
    owner = queue.claim("w1:")
    told = kinds(queue)
    if refused:
        queue.reject(owner, encode_member("doc:0", "x"))
    else:
        queue.complete(owner, [encode_member("doc:0", "x")])
    assert kinds(queue) == [*told, "failed" if refused else "done", "wake"]
    assert not queue.client.exists(*queue.names.pauses)
