"""The books of a queue: what others leave and take, layouts, late copies, settings that differ, flushes, looks."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from dataclasses import replace

import pytest
import redis

from embedqueue import BatchFailed, EmbedQueueError
from embedqueue.store.records import Asked, Claim, Terms, Within
from embedqueue.store.store import Store
from embedqueue.testing import FakeEmbedder
from embedqueue.values.item import encode_member
from embedqueue.values.provenance import digest
from tests.inside import BARRED_SECONDS, Copies
from tests.parts import DIMENSIONS, PATIENCE_SECONDS, eventually, expected, stored
from tests.proof.moves import terms

FIELDS = ("embedding", "embedding_of")
TERMS = Terms(*FIELDS, "m", 16, "m/16/-", "create")
VECTOR = bytes(64)
LEASE_SECONDS = 1000.0


class Books:
    """A store, and hands that enqueue, claim and write by it."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.store = Store(client, "embed_queue")
        self.keys = self.store.keys
        self.claims = 0
        self.claim: Claim  # the last one

    def enqueue(self, *pairs: tuple[str, str]) -> int:
        """Returns a stamp that none of these items is below."""
        group = [part for key, text in pairs for part in (key.encode(), encode_member(key, text) if text else b"")]
        return self.store.enqueue([group], max_pending=None, tell_at=50, tell_first=True)[2]

    def take(self, limit: int = 10, *, worker: str = "w", terms: Terms | None = TERMS) -> list[bytes]:
        """Claim, once the books are in order; members are held by ``self.claim.owner``."""
        while True:
            self.claims += 1
            self.claim = self.store.claim(
                f"{worker}:{self.claims}/{LEASE_SECONDS}:", limit, probe_limit=limit, lease_seconds=LEASE_SECONDS,
                max_deliveries=3, alone=True, terms=terms,
            )  # fmt: skip
            if self.claim.status != "adopt":
                return self.claim.members
            assert self.claims < 100, "the books never come in order"
            self.store.adoption.run(TERMS)
            self.store.adoption.adopt(self.claim.strays, TERMS)

    def write(self, *members: bytes) -> list[str]:
        pairs = [json.loads(member) for member in members]
        lines = [
            (pair["redis_key"], member, VECTOR, digest(pair["text"]))
            for pair, member in zip(pairs, members, strict=True)
        ]
        return self.store.complete(self.claim.owner, TERMS, lines)

    def waits(self) -> list[bytes]:
        return self.client.zrange(self.keys.pending, 0, -1)

    def named(self) -> dict[bytes, bytes]:
        """Key and member of ``latest``."""
        return {key: value.partition(b" ")[2] for key, value in self.client.hgetall(self.keys.latest).items()}

    def everything(self) -> dict[bytes, object]:
        """All that stands in Redis, but for times that pass."""
        found: dict[bytes, object] = {}
        for key in self.client.keys("*"):
            kind = self.client.type(key)
            if kind == b"zset":
                found[key] = self.client.zrange(key, 0, -1, withscores=True)
            elif kind == b"hash":
                found[key] = self.client.hgetall(key)
            elif kind == b"stream":
                found[key] = self.client.xrange(key)
            else:
                found[key] = self.client.get(key)
        return found


@pytest.fixture(params=["redis", "fakeredis"])
def books(request):
    made = Books(request.getfixturevalue("redis_client" if request.param == "redis" else "fake_redis"))
    yield made
    made.store.close()


def ours(key: str, text: str = "text") -> bytes:
    return encode_member(key, text)


# -- what other programs take ---------------------------------------------------------------------------------------


def take_from_pending(books):
    books.client.zpopmin(books.keys.pending)


def delete_pending(books):
    books.client.delete(books.keys.pending)


def take_from_inflight(books):
    [member] = books.take()
    books.client.zrem(books.keys.inflight, member)


def delete_inflight(books):
    books.take()
    books.client.delete(books.keys.inflight)


GHOSTS = [take_from_pending, delete_pending, take_from_inflight, delete_inflight]


@pytest.mark.parametrize("text", ["text", "another"])
@pytest.mark.parametrize("taken", GHOSTS)
def test_what_another_program_has_taken_can_be_enqueued_again(books, taken, text):
    """The same text too: it is not mistaken for the one that is gone, and its vector is written."""
    books.enqueue(("doc:1", "text"))
    taken(books)
    books.enqueue(("doc:1", text))
    assert books.waits() == [ours("doc:1", text)]
    assert books.take() == [ours("doc:1", text)]
    assert books.write(ours("doc:1", text)) == ["done"]
    assert books.client.hget("doc:1", "embedding") == VECTOR
    assert not books.named() and not books.client.hgetall(books.keys.claims)


@pytest.mark.parametrize("taken", GHOSTS)
def test_what_another_program_has_taken_is_forgotten(books, taken):
    """It holds up neither a claim nor a flush, and whoever waits for it is told to look."""
    books.enqueue(("doc:1", "text"))
    taken(books)
    books.enqueue(("doc:2", "text"))
    assert books.take() == [ours("doc:2")]
    assert books.claim.unknown == -1
    books.store.adoption.run(TERMS)
    assert books.named() == {b"doc:2": ours("doc:2")}
    assert [fields[b"body"] for _, fields in books.client.xrange(books.keys.events) if fields[b"kind"] == b"stale"] == [
        b'["doc:1"]'
    ]


# -- what other programs leave --------------------------------------------------------------------------------------

STYLES = (  # of the same pair
    lambda key, text: json.dumps({"redis_key": key, "text": text}).encode(),
    lambda key, text: json.dumps({"text": text, "redis_key": key}, separators=(",", ":")).encode(),
    lambda key, text: json.dumps({"redis_key": key, "text": text}, indent=1).encode() + b"\n",
    lambda key, text: json.dumps({"id": 7, "redis_key": key, "text": text}).encode().replace(b"doc", rb"\u0064oc"),
)


def leave(books, scores: list[float], key: str = "doc:1") -> list[bytes]:
    """Texts of a key in the styles of others, with these scores; floats below 1e6 are seconds from now on."""
    seconds, micros = books.client.time()
    now = seconds + micros / 1e6
    members = [STYLES[place % len(STYLES)](key, f"text {place}") for place in range(len(scores))]
    at = [now + score if abs(score) < 1e6 else score for score in scores]
    books.client.zadd(books.keys.pending, dict(zip(members, at, strict=True)))
    return members


@pytest.mark.parametrize(
    ("scores", "winner"),
    [
        ([-30, -20, -10, -40], 2),
        ([-10, -20], 0),
        ([float("-inf"), -20], 1),
        ([-20, float("inf")], 1),
        ([500, -20, 1000], 2),
        ([1000, float("inf"), 500], 1),
        ([float("-inf")], 0),
    ],
)
def test_the_newest_of_several_texts_that_others_have_left_stays(books, scores, winner):
    """Whatever its style; its score lies between nought and now, so that it is claimed when it is its turn."""
    members = leave(books, scores)
    assert books.take() == [members[winner]]
    assert books.named() == {b"doc:1": members[winner]}
    assert not books.waits()
    score = float(books.client.hget(books.keys.claims, "doc:1").split()[0])
    assert 0 <= score <= float("{}.{:06}".format(*books.client.time()))
    assert books.write(members[winner]) == ["done"]


@pytest.mark.parametrize(
    ("seconds", "wins"), [(-100, False), (float("-inf"), False), (0.5, True), (float("inf"), True)]
)
@pytest.mark.parametrize("held", [False, True], ids=["waiting", "in flight"])
def test_of_a_text_of_ours_and_one_of_others_the_newer_one_stays(books, seconds, wins, held):
    """Where ours is in flight, its worker writes nothing any more."""
    books.enqueue(("doc:1", "ours"))
    if held:
        books.take()
    before = books.claim if held else None
    [theirs] = leave(books, [seconds])
    found = books.take(worker="v")
    assert books.named() == {b"doc:1": theirs if wins else ours("doc:1", "ours")}
    assert found == ([theirs] if wins else [] if held else [ours("doc:1", "ours")])
    if held:
        books.claim = before
        assert books.write(ours("doc:1", "ours")) == ["stale" if wins else "done"]


def test_what_is_in_flight_and_was_enqueued_again_by_another_program_is_not_handed_out_twice(books):
    books.enqueue(("doc:1", "text"))
    [member] = books.take()
    first = books.claim
    books.client.zadd(books.keys.pending, {member: 1})
    assert books.take(worker="v") == []
    assert not books.waits()
    books.claim = first
    assert books.write(member) == ["done"]


@pytest.mark.parametrize("place", ["inflight", "alone"])
def test_what_others_have_left_among_what_is_claimed_is_adopted_as_well(books, place):
    books.client.zadd(getattr(books.keys, place), {ours("doc:1"): 2e9})
    assert books.take() == [ours("doc:1")]
    assert books.named() == {b"doc:1": ours("doc:1")}


def test_the_newest_of_texts_far_apart_in_the_queue_stays(redis_client):
    """They are looked at in slices, one after another, while time goes on."""
    books = Books(redis_client)
    now = redis_client.time()[0]
    newest, older = STYLES[0]("doc:1", "newest"), STYLES[1]("doc:1", "older")
    redis_client.zadd(books.keys.pending, {newest: now + 3000, older: now + 1000})
    redis_client.zadd(books.keys.pending, {STYLES[0](f"other:{place}", "x"): now + 2000 for place in range(600)})
    assert len(books.take(1000)) == 601
    assert books.named()[b"doc:1"] == newest


def test_a_text_older_than_the_vector_in_the_hash_is_dropped(books):
    """A newer text was embedded meanwhile: what another program left before that is out of date."""
    books.enqueue(("doc:1", "new"))
    books.write(*books.take())
    leave(books, [-100])
    assert books.take() == []
    assert not books.waits() and not books.named()
    [theirs] = leave(books, [0.5])
    assert books.take() == [theirs]


BLANK = b'{"redis_key":"doc:1","text":" "}'


@pytest.mark.parametrize("member", [None, BLANK], ids=["adopted", "rejected"])
def test_what_others_leave_supersedes_the_dead_letter_of_its_key(books, member):
    """One key has one dead letter at most, and none beside a live item."""
    books.enqueue(("doc:1", "bad"))
    [bad] = books.take()
    owner = books.claim.owner
    assert books.store.reject(owner, [(owner, bad, "bad", False)]) == ["dead"]
    [theirs] = leave(books, [1]) if member is None else [member]
    books.client.zadd(books.keys.pending, {theirs: time.time()})
    assert books.take() == ([theirs] if member is None else [])
    assert bad not in books.client.zrange(books.keys.dead, 0, -1)
    assert books.client.hlen(books.keys.dead_info) == books.client.zcard(books.keys.dead) == (member is not None)


@pytest.mark.parametrize(
    "other", [{"field": "other", "provenance_field": "other_of"}, {"model": "n"}, {"dimensions": 8}]
)
def test_who_is_at_odds_with_the_namespace_adopts_nothing(books, other):
    """It would look in its own field for the age of the vector, and take what is older for the newest."""
    books.enqueue(("doc:1", "new"))
    books.write(*books.take())
    leave(books, [-100, 100])
    stranger = replace(TERMS, **other)
    assert books.store.adoption.run(stranger) == []
    books.store.adoption.adopt(books.client.zrange(books.keys.pending, 0, -1), stranger)
    assert len(books.waits()) == 2 and not books.named()
    assert len(books.take()) == 1


TWO_KEYS = [
    b'{"redis_key":"doc:1","text":"x","redis_key":"doc:2"}',
    b'{"redis_key":"doc:1","text":"x","redis_key":7}',
    b'{"redis_key":"doc:1","text":"x","text":"y"}',
    b'{"redis_key":"doc:1","text":"x","text":7}',
]


@pytest.mark.parametrize("member", TWO_KEYS)
def test_a_member_that_readers_of_json_read_otherwise_is_not_looked_at_for_ever(redis_client, member):
    """It is embedded, or a dead letter, once; what else waits is served."""
    books = Books(redis_client)
    redis_client.zadd(books.keys.pending, {member: 1})
    books.enqueue(("doc:3", "text"))
    found = books.take()
    assert ours("doc:3") in found
    assert books.take() == []
    assert redis_client.zcard(books.keys.dead) == (member not in found)
    books.enqueue(("doc:1", "text"))
    assert books.take() == [ours("doc:1")]


# -- layouts --------------------------------------------------------------------------------------------------------


def first_layout(books, *, waiting: list[str], held: list[str]) -> None:
    """What the first release leaves: ``latest`` holds members alone, and there are no settings."""
    now = books.client.time()[0]
    for key in waiting:
        books.client.zadd(books.keys.pending, {ours(key): now - 60})
    for key in held:
        books.client.zadd(books.keys.inflight, {ours(key): now + 60})
        books.client.hset(books.keys.claims, key, f"{now - 60}.000000 0 old:1/60.000:")
    for key in waiting + held:
        books.client.hset(books.keys.latest, key, ours(key))


def test_what_the_first_release_has_left_is_worked_off(books):
    """What waits, and what is in flight: by whoever holds it, or when its lease has run out."""
    first_layout(books, waiting=["doc:1", "doc:2"], held=["doc:3", "doc:4"])
    assert sorted(books.take()) == [ours("doc:1"), ours("doc:2")]
    assert books.write(ours("doc:1"), ours("doc:2"), ours("doc:3")) == ["done"] * 3
    books.client.zadd(books.keys.inflight, {ours("doc:4"): 1})
    assert books.take() == [ours("doc:4")]
    assert books.write(ours("doc:4")) == ["done"]
    assert not books.named() and not books.client.hgetall(books.keys.claims)
    lines = [books.client.hget(f"doc:{place}", "embedding_of").split() for place in range(1, 5)]
    assert [line[1].decode() for line in lines] == [digest("text")] * 4


def test_keys_that_the_first_release_has_left_take_newer_texts(books):
    """And the same text again, and a blank one; a flush waits for all that is live."""
    first_layout(books, waiting=["doc:1", "doc:2", "doc:3"], held=["doc:4"])
    assert books.store.status("flush").unfinished == 4
    books.enqueue(("doc:1", "newer"), ("doc:2", "text"), ("doc:3", ""), ("doc:4", "newer"))
    assert books.store.status("flush").unfinished == 1
    assert sorted(books.take()) == [ours("doc:1", "newer"), ours("doc:2"), ours("doc:4", "newer")]
    assert books.write(ours("doc:4")) == ["stale"]
    assert books.write(*books.claim.members) == ["done"] * 3
    assert books.store.status("flush").unfinished == 0


def test_what_the_first_release_has_in_flight_is_not_given_up_for_an_older_text_of_others(books):
    first_layout(books, waiting=[], held=["doc:1"])
    leave(books, [-100])
    assert books.take() == []
    assert books.write(ours("doc:1")) == ["done"]


def test_a_layout_of_a_later_release_is_refused(books):
    """In words that say what to do; nothing changes."""
    books.enqueue(("doc:1", "text"))
    books.client.hset(books.keys.settings, "layout", "3")
    before = books.everything()
    for attempt in (lambda: books.enqueue(("doc:1", "newer")), books.take):
        with pytest.raises(
            EmbedQueueError, match=r"have layout 3, and this release .* knows layout 2 only: use the rel"
        ):
            attempt()
    assert books.everything() == before


def test_a_worker_refuses_a_later_layout_once_and_goes_on_when_it_is_its_own(
    redis_client, make_queue, monkeypatch, caplog
):
    monkeypatch.setattr(*BARRED_SECONDS, 0.02)
    future = make_queue(worker=False).enqueue("doc:1", "text")
    redis_client.hset("embed_queue:settings", "layout", "3")
    queue = make_queue()
    with caplog.at_level(logging.ERROR, "embedqueue"):
        for _ in range(3):
            eventually(lambda: queue.stats().pause_reason, "it says so")
            eventually(lambda: _claims_by(redis_client) > 0, "it tries again")
            redis_client.config_resetstat()
    assert ["layout 3" in record.message for record in caplog.records] == [True]
    assert redis_client.zcard("embed_queue:pending") == 1
    with pytest.raises(EmbedQueueError, match="layout 3"):
        queue.enqueue("doc:2", "text")
    redis_client.hset("embed_queue:settings", "layout", "2")
    assert future.result(PATIENCE_SECONDS) == expected("text")


def _claims_by(client) -> int:
    """How many scripts have failed since the figures were reset."""
    return client.info("commandstats").get("cmdstat_evalsha", {"failed_calls": 0})["failed_calls"]


# -- copies that come late ------------------------------------------------------------------------------------------


def held_by_another(books):
    """The item waits again, and another worker has it."""
    assert books.take(worker="v") == [ours("doc:1")]


@pytest.mark.parametrize("meanwhile", [lambda books: None, held_by_another], ids=["nothing", "another claim"])
@pytest.mark.parametrize("what", ["release", "reject", "fail", "release_all"])
def test_a_copy_of_what_ends_a_claim_changes_nothing(books, what, meanwhile):
    """Of a command that was answered long ago."""
    copies = Copies(books.store)
    books.enqueue(("doc:1", "text"))
    books.take()
    owner = books.claim.owner
    if what == "release":
        assert books.store.release([(owner, ours("doc:1"))]) == 1
    elif what == "release_all":
        assert books.store.release_all(owner) == 1
    elif what == "reject":
        assert books.store.reject(owner, [(owner, ours("doc:1"), "bad", False)]) == ["dead"]
        assert books.store.dead.retry(["doc:1"]) == 1
    else:
        times = {"first_seconds": 100, "most_seconds": 100, "least_seconds": 0}
        books.store.fail(owner, [(owner, ours("doc:1"))], **times, reason="down")
        books.client.delete(*books.keys.pauses)
    sent = len(copies.sent) - 1
    assert copies.sent[sent][0] == what
    meanwhile(books)
    before = _without_times(books)
    copies.arrive(sent)
    assert _without_times(books) == before


def _without_times(books) -> dict[bytes, object]:
    found = books.everything()
    settings = found[books.keys.settings.encode()]
    found[books.keys.settings.encode()] = {name: value.split()[:1] for name, value in settings.items()}
    return found


@pytest.mark.parametrize("text", ["text", "newer", ""])
def test_a_copy_of_an_enqueue_changes_nothing(books, text):
    """Whether it is a copy of the last one or of an older one, and whatever became of its item."""
    copies = Copies(books.store)
    books.enqueue(("doc:1", "text"))
    books.enqueue(("doc:1", text))
    for ends in (lambda: None, lambda: books.write(*books.take())):
        ends()
        before = books.everything()
        copies.arrive(0)
        copies.arrive(1)
        assert books.everything() == before


def test_a_copy_of_an_enqueue_with_patience_changes_nothing(books):
    """The base is kept anew once nothing is live, but not by a copy."""
    copies = Copies(books.store)
    group = [b"doc:1", ours("doc:1", "text")]
    tell = {"max_pending": None, "tell_at": 50, "tell_first": True}
    books.enqueue(("doc:0", "connects"), ("doc:1", "older"))
    books.store.enqueue([group], **tell, within=Within([60.0], 3600.0))
    books.write(*books.take())
    books.take()  # nothing is left
    books.enqueue(("doc:2", "text"))
    before = books.everything()
    copies.arrive([name for name, *_ in copies.sent].index("enqueue_more"))
    assert books.everything() == before


@pytest.mark.parametrize("next_text", ["newer", ""])
def test_an_enqueue_that_was_given_up_is_refused_when_it_comes_after_the_next(books, next_text):
    """Its sender heard nothing, and sent a newer text."""
    copies = Copies(books.store)
    books.enqueue(("doc:0", "connects"))
    copies.lost = True
    with pytest.raises(redis.TimeoutError):
        books.enqueue(("doc:1", "older"))
    copies.lost = False
    books.enqueue(("doc:1", next_text))
    before = books.everything()
    copies.arrive(1)
    assert books.everything() == before


def test_a_claim_that_was_given_up_takes_nothing_when_it_comes(books):
    """After the worker has let go of it, or has claimed again."""
    copies = Copies(books.store)
    books.enqueue(("doc:1", "text"), ("doc:2", "text"))
    copies.lost = True
    with pytest.raises(redis.TimeoutError):
        books.take()
    copies.lost = False
    books.store.release_all(f"w:1/{LEASE_SECONDS}:")
    copies.arrive(0)
    assert len(books.waits()) == 2
    assert books.take(1) == [ours("doc:1")]
    before = books.everything()
    copies.arrive(0)
    copies.arrive(len(copies.sent) - 1)
    assert books.everything() == before


# -- settings that must agree ---------------------------------------------------------------------------------------


class OfRole(FakeEmbedder):
    """One that embeds documents in a role."""

    task_type = "RETRIEVAL_DOCUMENT"


OTHERS = {
    "model": {"model": "two"},
    "dimensions": {"embedder": FakeEmbedder(DIMENSIONS + 1)},
    "embedding_field": {"embedding_field": "other", "provenance_field": "embedding_of"},
    "provenance_field": {"provenance_field": None},
    "role": {"embedder": OfRole()},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_worker_at_odds_with_the_namespace_claims_nothing(redis_client, make_queue, monkeypatch, caplog, name):
    """It takes items in, says why in the log, once, and to whoever waits; and goes on once the settings are its own."""
    monkeypatch.setattr(*BARRED_SECONDS, 0.02)
    first = make_queue(model="one")
    first.enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    first.stop()
    kept = redis_client.hget("embed_queue:settings", name)
    other = make_queue(start=False, **{"model": "one", **OTHERS[name]})
    with caplog.at_level(logging.ERROR, "embedqueue"):
        other.start()
        for place in (2, 3, 4):
            with pytest.raises(BatchFailed, match=f"{name} .*{kept.decode()}.*still queued"):
                other.enqueue(f"doc:{place}", "text").result(PATIENCE_SECONDS)
    assert [record.message.count(f"{name} {kept.decode()!r}") for record in caplog.records] == [1]
    assert (other.pending_count(), redis_client.zcard("embed_queue:inflight")) == (3, 0)
    assert name in other.stats().pause_reason
    redis_client.hdel("embed_queue:settings", name)
    # An answer of before may be on its way, which fails whoever waits when it is read.
    eventually(lambda: other.stats().pause_reason is None, "it claims")
    assert other.enqueue("doc:5", "text").result(PATIENCE_SECONDS)
    other.flush(PATIENCE_SECONDS)
    field = OTHERS[name].get("embedding_field", "embedding")
    assert all(redis_client.hexists(f"doc:{place}", field) for place in range(2, 6))
    assert redis_client.hget("embed_queue:settings", name) != kept


@pytest.fixture
def barred(make_queue, monkeypatch):
    """A queue that may not claim, and the namespace's last vector."""
    monkeypatch.setattr(*BARRED_SECONDS, 0.02)
    first = make_queue(model="one")
    first.enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    first.stop()
    queue = make_queue(model="two")
    with pytest.raises(BatchFailed):
        queue.enqueue("doc:2", "text").result(PATIENCE_SECONDS)
    return queue


def test_a_flush_without_a_limit_does_not_wait_for_ever_for_a_worker_that_may_not_claim(barred):
    """As where the provider fails: waiting might never end."""
    ended: list[BaseException] = []

    def flush() -> None:
        try:
            barred.flush()
        except EmbedQueueError as error:
            ended.append(error)

    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    thread.join(45)
    barred.stop()
    thread.join(PATIENCE_SECONDS)
    assert [type(error) for error in ended] == [BatchFailed]
    assert "model" in str(ended[0])


def test_a_process_of_another_field_does_not_take_an_old_vector_for_a_new_one(redis_client, make_queue):
    """The worker writes to its own field; in the other one stands the vector of an older text."""
    make_queue(embedding_field="new").enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    redis_client.hset("doc:2", "old", stored("an older text"))
    future = make_queue(worker=False, embedding_field="old").enqueue("doc:2", "text")
    try:
        assert future.result(PATIENCE_SECONDS) != expected("an older text")
    except EmbedQueueError:
        pass  # it may as well say that it does not know


def test_what_is_written_says_what_it_is_of(redis_client, make_queue):
    """The model, the dimensions and the text; with no field for it, nothing is written."""
    make_queue(model="google/m x:free").enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    space, of, stamp = redis_client.hget("doc:1", "embedding_of").decode().split()
    assert (space, of) == (f"m_x/{DIMENSIONS}/-", digest("text"))
    assert abs(int(stamp) / 1e6 - redis_client.time()[0]) < 60
    for place, field in enumerate(["what", None]):
        queue = make_queue(namespace=f"n{place}", provenance_field=field)
        queue.enqueue(f"new:{place}", "text").result(PATIENCE_SECONDS)
        expected_fields = {b"embedding"} | ({field.encode()} if field else set())
        assert set(redis_client.hkeys(f"new:{place}")) == expected_fields


def test_a_text_of_two_claims_that_stands_twice_in_one_write_counts_once(books):
    """It came back while its call was under way: a flush goes on waiting for the others."""
    books.enqueue(("doc:1", "text"), ("doc:2", "text"))
    assert books.store.status("flush").unfinished == 2
    books.take()
    assert books.write(ours("doc:1"), ours("doc:1")) == ["done", "stale"]
    assert books.store.status("flush").unfinished == 1


def test_dimensions_that_are_learned_late_are_compared_before_anything_is_written(books):
    """The claim did not know them: nothing is written, and the items are still held, to be released."""
    books.enqueue(("doc:1", "text"), ("doc:2", "text"))
    books.write(*books.take(1))
    late = Terms(*FIELDS, "m", None, "m/0/-", "create")
    [member] = books.take(terms=late)
    learned = Terms(*FIELDS, "m", 32, "m/32/-", "create")
    line = ("doc:2", member, bytes(128), digest("text"))
    assert books.store.complete(books.claim.owner, learned, [line]) == ["differs"]
    assert not books.client.exists("doc:2")
    assert books.store.release([(books.claim.owner, member)]) == 1
    assert books.take(terms=learned) == []
    assert (books.claim.status, books.claim.differs) == ("differs", [("dimensions", "16")])
    assert books.take() == [member]


@pytest.mark.parametrize("kind", ["workers", "senders"])
def test_processes_that_come_and_go_leave_no_numbers_behind(books, kind):
    """Each works for a minute only, as under cron, or enqueues once."""
    now = books.client.time()[0]
    line = f"1 {now - 10}.000000" + (" 1 y" if kind == "senders" else "")
    books.client.hset(
        books.keys.settings, mapping={f"{place:012x}:"[: 13 - (kind == "senders")]: line for place in range(1000)}
    )
    for place in range(50):
        books.enqueue((f"doc:{place}", "text"))
        books.claims = 0
        books.take(worker=f"burst{place}")
    assert books.client.hlen(books.keys.settings) < 1000


def test_numbers_that_must_be_kept_are_kept(books):
    """However many there are; so are the settings."""
    now = books.client.time()[0]
    books.client.hset(books.keys.settings, mapping={f"{place:012x}:": f"1 {now + 60}.000000" for place in range(300)})
    books.enqueue(("doc:1", "text"))
    books.write(*books.take())

    def kept() -> set[bytes]:  # but for the number of who enqueues, whose time may be over
        return {name for name in books.client.hkeys(books.keys.settings) if not re.fullmatch(b"[0-9a-f]{12}", name)}

    before = kept()
    for _ in range(60):
        books.take()
    assert kept() == before


def test_a_newer_text_that_another_program_left_begins_with_no_deliveries(books):
    """A worker has died of the older one, which no flush of before waits for."""
    books.enqueue(("doc:0", "text"))
    assert books.store.status("flush").unfinished == 1
    books.enqueue(("doc:1", "text"))
    assert books.take() == [ours("doc:0"), ours("doc:1")]
    books.client.zadd(books.keys.inflight, {ours("doc:1"): 1})
    books.take(0)
    assert sorted(books.client.hkeys(books.keys.claims)) == [b"doc:0", b"doc:1"]
    leave(books, [100])
    books.store.adoption.run(TERMS)
    assert books.client.hkeys(books.keys.claims) == [b"doc:0"]
    assert books.store.status("flush").unfinished == 1


# -- flushes --------------------------------------------------------------------------------------------------------


def test_a_flush_counts_down_whatever_becomes_of_its_items(books):
    """What was enqueued after it began does not count, and each item counts once."""

    def left() -> int:
        return books.store.status("flush").unfinished

    books.enqueue(*((f"doc:{place}", "text") for place in range(8)))
    assert left() == 8
    books.enqueue(("later:1", "text"), ("later:2", "text"), ("doc:7", "text"))
    assert left() == 8
    members = books.take(5)
    assert left() == 8
    assert books.write(members[0]) == ["done"]
    assert left() == 7
    assert books.write(members[0]) == ["stale"]
    assert books.store.reject(books.claim.owner, [(books.claim.owner, members[1], "bad", False)]) == ["dead"]
    assert left() == 6
    assert books.store.dead.retry(["doc:1"]) == 1
    assert left() == 6, "what people put back was not live when the flush began"
    books.enqueue(("doc:2", "newer"))
    assert left() == 5
    books.enqueue(("doc:2", "newest"))
    books.enqueue(("doc:3", ""))
    assert left() == 4
    books.client.zrem(books.keys.inflight, ours("doc:4"))
    books.client.zrem(books.keys.pending, ours("doc:5"))
    assert (left(), books.store.status("flush").strays) == (0, -2), "it tells nothing before the books are in order"
    books.store.adoption.run(TERMS)
    assert left() == 2
    leave(books, [0.5], "doc:6")
    assert books.store.status().strays == 1
    books.store.adoption.run(TERMS)
    assert left() == 1
    books.store.release_all("w:")
    found = books.take(100, worker="v")
    assert books.write(*found) == ["done"] * len(found)
    assert left() == 0
    assert not books.named()


@pytest.mark.parametrize("look", ["erase", "label"])
def test_a_flush_counts_what_others_took_whoever_finds_out(books, look):
    """Else it would wait for as long as anything is live."""
    books.enqueue(("doc:1", "text"), ("doc:2", "text"))
    assert books.store.status("flush").unfinished == 2
    books.client.zrem(books.keys.pending, ours("doc:1"))
    books.client.hset("doc:1", "embedding", VECTOR)
    if look == "erase":
        assert books.store.hashes.erase("doc:1", TERMS, 10**16)
    else:
        assert books.store.hashes.label({"doc:1": "m/16/- 0123456789abcdef 0"}, TERMS) == 1
    books.enqueue(("later", "text"))
    books.write(*books.take(1))
    assert books.store.status("flush").unfinished == 0
    assert books.named()


def test_a_flush_counts_items_that_kill_their_workers(books):
    books.enqueue(("doc:1", "text"))
    assert books.store.status("flush").unfinished == 1
    for _ in range(3):
        books.take()
        books.client.zadd(books.keys.inflight, {ours("doc:1"): 1})
    books.enqueue(("doc:2", "text"))
    assert books.take() == [ours("doc:2")]
    assert [why for _, why, _ in books.claim.rejected] == ["its worker died 3 times (max_deliveries)"]
    assert books.store.status("flush").unfinished == 0


def test_a_flush_does_not_count_what_is_given_up_and_came_after_it(books):
    """It would end before what it waits for."""
    books.enqueue(("doc:1", "text"))
    assert books.store.status("flush").unfinished == 1
    books.enqueue(("doc:2", "text"))
    books.take(2)
    owner = books.claim.owner
    assert books.store.reject(owner, [(owner, ours("doc:2"), "bad", False)]) == ["dead"]
    assert books.store.status("flush").unfinished == 1


def test_a_flush_that_nobody_asks_about_any_more_is_forgotten(books):
    books.enqueue(("doc:1", "text"))
    books.store.status("alive"), books.store.status("dead")
    line = books.client.hget(books.keys.flushes, "dead").decode().split()
    books.client.hset(books.keys.flushes, "dead", f"{line[0]} {line[1]} 1.000000")
    books.write(*books.take())
    assert books.client.hkeys(books.keys.flushes) == [b"alive"]


def test_a_flush_waits_for_what_others_have_left_before_it(redis_client, make_queue):
    books = Books(redis_client)
    [theirs] = leave(books, [-10])
    redis_client.zadd(books.keys.pending, {"no JSON": 1})  # one more left than taken: only so the counts tell of it
    books.enqueue(("gone:1", "text"))
    redis_client.zrem(books.keys.pending, ours("gone:1"))
    queue = make_queue()
    queue.flush(PATIENCE_SECONDS)
    assert redis_client.hget("doc:1", "embedding") == stored(json.loads(theirs)["text"])
    assert not books.named()


# -- what became of an item -----------------------------------------------------------------------------------------


def look(books, stamp: int, text: str = "text", provenance_field: str | None = FIELDS[1]) -> str:
    return books.store.look(
        [Asked("doc:1", stamp, digest(text))], replace(terms(FIELDS[0]), provenance_field=provenance_field)
    )[0][0]


def test_an_old_vector_in_the_hash_is_not_taken_for_that_of_an_item(books):
    """Its item has vanished, and the hash holds what stood there before: of an older text, or of nobody knows what."""
    books.client.hset("doc:1", "embedding", VECTOR)
    stamp = books.enqueue(("doc:1", "text"))
    assert look(books, stamp) == "live"
    books.client.delete(books.keys.pending)
    assert look(books, stamp) in ("gone", "unproven")
    assert not books.named(), "a look forgets what it finds to be gone"
    books.client.hset("doc:1", "embedding_of", f"m/16/- {digest('older')} {stamp - 1}")
    assert look(books, stamp) in ("gone", "unproven")
    books.client.hset("doc:1", "embedding_of", "somebody else's words")
    assert look(books, stamp) in ("gone", "unproven")


@pytest.mark.parametrize("later", [0, 1], ids=["of this item", "of a newer one"])
@pytest.mark.parametrize(
    ("space", "word"),
    [
        ("m/16/-", "done"),
        ("m/16/RETRIEVAL_DOCUMENT", "done"),  # a role is the affair of who writes
        ("other/16/-", "differs"),
        ("of/m/16/-", "differs"),
        ("m/32/-", "differs"),
    ],
)
def test_a_vector_of_another_model_is_nobodys_answer(books, space, word, later):
    """It was written while another model ruled; whoever waits for it has been adopted since, and could not use it."""
    stamp = books.enqueue(("doc:1", "text"))
    assert written(books, f"{space} {digest('text')} {stamp + later}", stamp, TERMS) == word


@pytest.mark.parametrize(("model", "word"), [("m", "done"), ("other", "differs")])
def test_who_does_not_know_the_length_yet_goes_by_the_model(books, model, word):
    stamp = books.enqueue(("doc:1", "text"))
    unknown = Terms(*FIELDS, "m", None, "m/0/-", "create")
    assert written(books, f"{model}/16/- {digest('text')} {stamp}", stamp, unknown) == word


def written(books, line: str, stamp: int, where: Terms) -> str:
    """What is told of an item that was written with this line beside its vector."""
    books.client.delete(books.keys.pending)
    books.client.hset("doc:1", mapping={"embedding": VECTOR, "embedding_of": line})
    return books.store.look([Asked("doc:1", stamp, digest("text"))], where)[0][0]


def test_a_master_that_was_demoted_tells_nothing(redis_client):
    """Its connections of before still stand, and it has not heard of what the new master has taken in since."""
    books = Books(redis_client)
    stamp = books.enqueue(("doc:1", "text"))
    books.client.delete(books.keys.pending)
    books.client.replicaof("127.0.0.1", 1)  # nobody answers there
    try:
        for asked in (("doc:1", stamp), ("doc:2", 0)):  # also where nothing would be put right on the way
            with pytest.raises(redis.exceptions.ReadOnlyError):
                books.store.look([Asked(*asked)], TERMS)
    finally:
        books.client.replicaof("NO", "ONE")
    assert look(books, stamp) == "gone"
    books.store.close()


@pytest.mark.parametrize("of", ["text", "newer"])
def test_a_vector_of_the_text_or_of_a_newer_one_is_that_of_the_item(books, of):
    """Also where no notice tells of it."""
    stamp = books.enqueue(("doc:1", "text"))
    books.enqueue(("doc:1", of))
    assert books.write(*books.take()) == ["done"]
    books.client.delete(books.keys.events)
    assert look(books, stamp) == "done"


def test_without_provenance_a_notice_tells_what_is_done(books):
    """One of the item's own time, not of an older one."""
    books.enqueue(("doc:1", "older"))
    terms = Terms("embedding", None, "m", 16, "m/16/-", "create")

    def write():
        [member] = books.take(terms=terms)
        text = json.loads(member)["text"]
        assert books.store.complete(books.claim.owner, terms, [("doc:1", member, VECTOR, digest(text))]) == ["done"]

    write()
    assert not books.client.hexists("doc:1", "embedding_of")
    eventually(lambda: books.client.time()[1] % 1000 < 500, "the next millisecond, for notices have no finer time")
    stamp = books.enqueue(("doc:1", "text")) + 1000
    books.client.zpopmin(books.keys.pending)
    assert look(books, stamp, provenance_field=None) in ("gone", "unproven")
    stamp = books.enqueue(("doc:1", "text"))
    write()
    assert look(books, stamp, provenance_field=None) == "done"
    books.client.delete("doc:1")
    assert look(books, stamp, provenance_field=None) in ("gone", "unproven")


@pytest.mark.parametrize("stands", [False, True])
def test_an_item_that_was_withdrawn_is_blank_whatever_stands_in_its_hash(books, stands):
    """The notice was missed, and the hash may hold what an older text left."""
    if stands:
        books.client.hset("doc:1", mapping={"embedding": VECTOR, "embedding_of": f"m/16/- {digest('older')} 1"})
    stamp = books.enqueue(("doc:1", "text"))
    books.enqueue(("doc:1", ""))
    assert look(books, stamp) == "blank"


def test_an_item_that_was_given_up_and_discarded_is_gone(books):
    books.client.hset("doc:1", "embedding", VECTOR)
    stamp = books.enqueue(("doc:1", "text"))
    [member] = books.take()
    books.store.reject(books.claim.owner, [(books.claim.owner, member, "bad", False)])
    assert books.store.look([Asked("doc:1", stamp, digest("text"))], terms(FIELDS[0])) == [("dead", b"bad")]
    books.store.dead.discard(["doc:1"])
    assert look(books, stamp) in ("gone", "unproven")


# -- notices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chars", [10, 1500, 3000, 100_000])
def test_notices_are_short_however_long_keys_are(books, chars):
    """Whatever is told: done, stale, failed, unserved, blank. All keys are named, or an empty list is for all."""
    count = {10: 1000, 100_000: 8}.get(chars, 20)  # a claim is bounded in bytes
    keys = [f"{place:04}{'k' * chars}" for place in range(count)]
    books.enqueue(*((key, "text") for key in keys))
    members = books.take(count)
    assert len(members) == count
    quarter = count // 4
    books.write(*members[:quarter])
    owner = books.claim.owner
    books.store.reject(owner, [(owner, member, "bad", False) for member in members[quarter : 2 * quarter]])
    times = {"first_seconds": 1, "most_seconds": 1, "least_seconds": 0}
    failed = [(owner, member) for member in members[2 * quarter : 3 * quarter]]
    books.store.fail(owner, failed, **times, reason="r" * 5000)
    books.enqueue(*((key, "") for key in keys[3 * quarter :]))
    bodies = [(fields[b"kind"].decode(), fields[b"body"]) for _, fields in books.client.xrange(books.keys.events)]
    assert max(len(body) for _, body in bodies) < 10_000
    assert sum(len(body) for _, body in bodies) < 3 * count * (chars + 20) + 2000
    named: dict[str, list[str]] = {}
    for kind, body in bodies:
        if body:
            found = json.loads(body)
            named.setdefault(kind, []).extend(found["keys"] if kind == "unserved" else found)
    expected_kinds = {"done": 0, "failed": 1, "unserved": 2, "blank": 3}
    assert set(named) == set(expected_kinds)
    for kind, place in expected_kinds.items():
        told = keys[place * quarter : (place + 1) * quarter]
        assert sorted(named[kind]) == (told if chars < 3900 else [])


LONG_KEY = "doc:" + "k" * 5000


def test_who_waits_for_a_long_key_hears_of_its_vector(redis_client, make_queue):
    """Though no notice is long enough to name it."""
    make_queue()
    assert make_queue(worker=False).enqueue(LONG_KEY, "text").result(PATIENCE_SECONDS) == expected("text")


def test_nothing_has_waited_for_less_than_no_time(books):
    """It was enqueued by a clock that has been set back since."""
    books.enqueue(("doc:1", "text"))
    ahead = books.client.time()[0] + 60
    books.client.hset(books.keys.latest, "doc:1", b"%d %s" % (ahead * 1_000_000, ours("doc:1")))
    assert books.store.status().oldest_age_seconds == 0
    assert books.take() == [ours("doc:1")]
    assert books.claim.waited_seconds == 0


def test_a_text_that_is_enqueued_again_is_no_older_than_before(books):
    """Its first enqueue was by a clock that has been set back since; what another program then puts back is older."""
    member = ours("doc:1", "newest")
    books.enqueue(("doc:1", "newest"))
    ahead = books.client.time()[0] + 60
    books.client.hset(books.keys.latest, "doc:1", b"%d %s" % (ahead * 1_000_000, member))
    books.enqueue(("doc:1", "newest"))
    books.client.zadd(books.keys.pending, {ours("doc:1", "older"): ahead - 1})
    assert books.take() == [member]
