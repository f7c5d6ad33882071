"""A second field is filled, read and kept alone: what may happen on the way, and rarely does."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace

import pytest
import redis

from embedqueue import EmbedQueueError
from embedqueue.operating import cutover, reembed_run
from embedqueue.operating.cutover import cut_over, finish, roll_back
from embedqueue.operating.reembed import Reembedding
from embedqueue.operating.reembed_run import Work
from embedqueue.operating.runs import NamedRun
from embedqueue.search.aliases import Aliases
from embedqueue.settings.settings import Settings, read_environment
from embedqueue.store.cluster.lazy import LazyCluster
from embedqueue.values.item import FORGOTTEN, decode_member, encode_member
from embedqueue.values.provenance import digest

MODEL = "text-embedding-3-small"


@pytest.fixture
def settings(env):
    """Of the first queue, with which no worker has ever worked, and of the second."""
    first = read_environment(env)
    return first, first.second("v2", MODEL=MODEL, DIMENSIONS="8")


@pytest.fixture
def work(settings):
    with Reembedding(*settings, "doc:*", "body") as made:
        yield made


owners = (f"w:{number}/60.000:" for number in itertools.count(1))


def embed(work: Reembedding) -> None:
    """A worker of the second queue embeds all that waits there."""
    how = {"probe_limit": 50, "lease_seconds": 60.0, "max_deliveries": 5, "alone": True}
    claim = work.other.claim(next(owners), 50, terms=work.terms, **how)
    items = [decode_member(member) for member in claim.members]
    written = [(one.redis_key, member, bytes(32), digest(one.text)) for one, member in zip(items, claim.members)]
    work.other.complete(claim.owner, work.terms, written)


def filled(work: Reembedding, client, *keys: str) -> None:
    """Hashes with texts, and their vectors in the second field."""
    for key in keys:
        client.hset(key, "body", f"text of {key}")
    work.begin()
    for _ in work.fill(within=60, max_waiting=1000, check=lambda: None, rest=lambda: None):
        embed(work)


def enqueue(work: Reembedding, key: str, text: str) -> None:
    pair = [key.encode(), encode_member(key, text)]
    work.store.enqueue([pair], max_pending=None, tell_at=50, tell_first=False)


def test_on_a_cluster_it_is_refused(settings, monkeypatch):
    monkeypatch.setattr(Settings, "client", lambda _: LazyCluster([("127.0.0.1", 1)]))
    with pytest.raises(EmbedQueueError, match="Redis Cluster"):
        Reembedding(*settings, "doc:*", "body")


def test_a_finish_waits_for_calls_under_way_and_changes_nothing_where_they_take_long(work, redis_client, monkeypatch):
    filled(work, redis_client, "doc:1")
    assert "is read from now on" in cut_over(work, None, 1.0)
    enqueue(work, "other", "is embedded just now")
    how = {"probe_limit": 50, "lease_seconds": 60.0, "max_deliveries": 5, "alone": True}
    assert work.other.claim(next(owners), 50, **how).members
    monkeypatch.setattr(cutover, "POLL_SECONDS", 0.01)
    with pytest.raises(TimeoutError, match="still under way"):
        finish(work, 0.05, yes=True)
    assert work.other.status().pause_seconds is None, "workers of the second queue go on"
    assert work.store.change.second() is not None


def test_texts_on_their_way_are_waited_for_however_long_the_look_through_all_texts_takes(
    work, redis_client, monkeypatch
):
    filled(work, redis_client, "doc:1")
    now, texts, claims = [0.0], work.texts, []

    def slow():
        yield from texts()
        now[0] += 1000.0

    def sleep(seconds):
        now[0] += seconds
        embed(work)
        for claim in claims:
            work.other.release([(claim.owner, member) for member in claim.members])

    def add(key, text):
        pair = [key.encode(), encode_member(key, text)]
        work.other.enqueue([pair], max_pending=None, tell_at=50, tell_first=False)

    monkeypatch.setattr(work, "texts", slow)
    monkeypatch.setattr(cutover, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    redis_client.hset("doc:1", "body", "new")
    add("doc:1", "new")
    assert "is read from now on" in cut_over(work, None, 5.0)
    add("other", "is embedded just now")
    how = {"probe_limit": 50, "lease_seconds": 60.0, "max_deliveries": 5, "alone": True}
    claims.append(work.other.claim(next(owners), 50, **how))
    assert "Done" in finish(work, 5.0, yes=True)


def test_what_waits_in_the_first_queue_alone_goes_along(work, redis_client):
    """Its text stands in no hash that matches, so nobody has put it into the second queue."""
    enqueue(work, "note:7", "a note")
    redis_client.zadd("embed_queue:pending", {encode_member("note:8", "of another program"): 1})
    filled(work, redis_client, "doc:1")
    cut_over(work, None, 1.0)
    assert "has one field, v2" in finish(work, 1.0, yes=True)
    waiting = {decode_member(member).redis_key for member in redis_client.zrange("embed_queue:pending", 0, -1)}
    assert waiting == {"note:7", "note:8"}
    assert work.store.status().strays == 0


def waiting(client) -> list[str]:
    """The texts that wait once the change is finished."""
    return sorted(decode_member(member).text for member in client.zrange("embed_queue:pending", 0, -1))


@pytest.mark.parametrize(("meanwhile", "left"), [(encode_member("note:7", "newer"), ["newer"]), (FORGOTTEN, [])])
def test_what_goes_along_takes_no_newer_texts_place(work, redis_client, monkeypatch, meanwhile, left):
    """Somebody enqueues another one, or forgets it, just when it is to be put into the second queue."""
    enqueue(work, "note:7", "private and old")
    filled(work, redis_client, "doc:1")
    cut_over(work, None, 1.0)
    look, done = cutover.inspect, []

    def looking(*args):
        found = look(*args)
        if not done and args[1] == [("note:7", "private and old")]:
            done.append(work.store.enqueue([[b"note:7", meanwhile]], max_pending=None, tell_at=50, tell_first=False))
        return found

    monkeypatch.setattr(cutover, "inspect", looking)
    finish(work, 1.0, yes=True)
    assert done
    assert waiting(redis_client) == left


def test_a_newer_text_of_the_first_queue_alone_goes_along(work, redis_client):
    """The second field has a vector of an earlier change, which was taken back."""
    redis_client.hset("note:7", mapping={"v2": bytes(32), "v2_of": f"{work.terms.space} {digest('v1')} 1"})
    enqueue(work, "note:7", "v2")
    filled(work, redis_client, "doc:1")
    cut_over(work, None, 1.0)
    finish(work, 1.0, yes=True)
    assert waiting(redis_client) == ["v2"]


def test_what_another_program_adds_while_calls_are_under_way_goes_along(work, redis_client, monkeypatch):
    filled(work, redis_client, "doc:1")
    cut_over(work, None, 1.0)
    enqueue(work, "other", "is embedded just now")
    how = {"probe_limit": 50, "lease_seconds": 60.0, "max_deliveries": 5, "alone": True}
    claim = work.other.claim(next(owners), 50, terms=work.terms, **how)

    def sleep(_: float) -> None:
        redis_client.zadd("embed_queue:pending", {encode_member("note:8", "of another program"): 1})
        work.other.complete(claim.owner, work.terms, [("other", claim.members[0], bytes(32), digest("x"))])

    monkeypatch.setattr(cutover.time, "sleep", sleep)
    finish(work, 5.0, yes=True)
    assert waiting(redis_client) == ["of another program"]


def test_what_cannot_be_put_in_order_is_not_dropped(work, redis_client):
    """The command was given another model for the first queue than its workers have."""
    filled(work, redis_client, "doc:1")
    cut_over(work, None, 1.0)
    redis_client.hset("embed_queue:settings", mapping={"model": "another", "embedding_field": "embedding"})
    redis_client.zadd("embed_queue:pending", {encode_member("note:8", "of another program"): 1})
    with pytest.raises(EmbedQueueError, match="another model than this command was given"):
        finish(work, 1.0, yes=True)
    assert work.store.change.second() is not None
    assert work.other.status().pause_seconds is None, "workers of the second queue go on"
    assert waiting(redis_client) == ["of another program"]


def test_a_process_with_the_settings_of_before_takes_out_the_vector_of_a_deleted_document(
    work, redis_client, make_queue
):
    """Until it is deployed anew, it knows nothing of the field that is the only one now."""
    before = make_queue(start=False)
    filled(work, redis_client, "doc:1")
    cut_over(work, None, 1.0)
    finish(work, 1.0, yes=True)
    assert redis_client.hexists("doc:1", "v2")
    before.forget("doc:1", vector=True)
    assert redis_client.hkeys("doc:1") == [b"body"]


def test_a_finish_that_was_killed_when_the_old_index_was_gone_goes_on(work, redis_client, monkeypatch):
    filled(work, redis_client, "doc:1")
    cut_over(work, None, 1.0)
    work.store.change.read_from(work.store.change.reading() | {"aliases": [("docs", "docs:1", "docs:2")]})
    monkeypatch.setattr(Aliases, "over", lambda *_: iter([("docs:2", None)]))
    monkeypatch.setattr(Aliases, "drop", lambda _, name: pytest.fail(f"{name} is dropped"))
    assert "has one field, v2" in finish(work, 1.0, yes=True)


def test_a_hash_that_goes_while_its_text_is_waited_for_holds_up_nothing(work, redis_client, monkeypatch):
    filled(work, redis_client, "doc:1", "doc:2")
    redis_client.hset("doc:1", mapping={"body": "newer", "embedding": b"v" * 32})
    enqueue(work, "doc:1", "newer")
    monkeypatch.setattr(cutover, "POLL_SECONDS", 0.01)
    read_again = work.read_again
    monkeypatch.setattr(work, "read_again", lambda texts: (redis_client.delete("doc:1"), read_again(texts))[1])
    assert "is read from now on" in cut_over(work, None, 10.0)


def test_of_a_text_that_is_blank_by_now_the_vector_goes_before_it_is_read(work, redis_client):
    filled(work, redis_client, "doc:1", "doc:2")
    redis_client.hset("doc:1", "body", " ")
    cut_over(work, None, 1.0)
    assert not redis_client.hexists("doc:1", "v2")
    assert redis_client.hexists("doc:2", "v2")


def test_how_long_vectors_are_is_asked_where_nobody_says(env, provider):
    del env["EMBEDQUEUE_DIMENSIONS"]
    first = read_environment(env)
    with Reembedding(first, first.second("v2", MODEL="a-model"), "doc:*", "body") as work:
        assert work.terms.dimensions is None
        work.begin()
        assert work.terms.dimensions
        assert work.other.agreed()["dimensions"] == str(work.terms.dimensions)


def test_it_rests_while_too_many_wait(work, redis_client):
    """And goes on when they are embedded."""
    work.begin()
    for number in range(3):
        redis_client.hset(f"doc:{number}", "body", "text")
        enqueue(work, f"doc:{number}", "text")
    redis_client.hset("doc:3", "body", "text")
    rests: list[int] = []

    def rest() -> None:
        rests.append(work.other.pending_count())
        embed(work)

    parts = list(work.fill(within=60, max_waiting=2, check=lambda: None, rest=rest))
    assert (rests, [put for put, *_ in parts]) == ([3], [1])


def test_a_vector_that_comes_between_the_look_and_the_enqueue_is_not_paid_for_again(work, redis_client, monkeypatch):
    redis_client.hset("doc:1", "body", "text")
    work.begin()
    enqueue = work.other.enqueue

    def late(*args, **how):
        redis_client.hset("doc:1", "v2_of", f"{work.terms.space} {digest('newer')} {10**15}")
        return enqueue(*args, **how)

    monkeypatch.setattr(work.other, "enqueue", late)
    parts = list(work.fill(within=60, max_waiting=1000, check=lambda: None, rest=lambda: None))
    assert [put for put, *_ in parts] == [0]
    assert work.other.pending_count() == 0


@pytest.fixture
def at_work(work, redis_client, monkeypatch):
    """Fills the second field; others embed what is there each time that it rests. And what it says."""
    monkeypatch.setattr(reembed_run, "POLL_SECONDS", 0.01)
    redis_client.hset("doc:1", "body", "text")
    rest = Work._rest
    monkeypatch.setattr(Work, "_rest", lambda of: (rest(of), embed(work)))
    work.begin()
    said: list[str] = []
    with NamedRun(work.store.runs, "mine", "reembed") as run:
        yield Work(work, work.plan(), run, None, 60.0, 1000, say=said.append, say_seconds=60.0), said


def test_others_are_asked_to_embed_it(at_work, redis_client):
    """At once, however long it could wait."""
    at_work, _ = at_work
    assert at_work.until_complete() == 0
    assert redis_client.hexists("doc:1", "v2")
    kinds = [fields[b"kind"] for _, fields in redis_client.xrange("embed_queue:v2:events")]
    assert b"flush" in kinds


def test_it_goes_on_when_redis_is_there_again(at_work, monkeypatch):
    at_work, said = at_work
    outages = [redis.ConnectionError("away"), redis.TimeoutError("slow"), redis.ReadOnlyError("a replica by now")]
    unfinished = at_work.reembedding.unfinished

    def asking(flush):
        if outages:
            raise outages.pop()
        return unfinished(flush)

    monkeypatch.setattr(at_work.reembedding, "unfinished", asking)
    assert at_work.until_complete() == 0
    assert [line.rpartition(": ")[2] for line in said] == ["ReadOnlyError", "TimeoutError", "ConnectionError"]
    assert "Redis does not answer" in said[0]


def test_a_change_that_is_taken_back_meanwhile_ends_it(at_work, work, redis_client):
    """Nothing more is paid for."""
    at_work, _ = at_work
    roll_back(work)
    with pytest.raises(EmbedQueueError, match="taken back"):
        at_work.until_complete()
    assert redis_client.keys("embed_queue:v2:pending*") == []


def test_a_password_that_is_wrong_by_now_ends_it(at_work, monkeypatch):
    at_work, _ = at_work

    def refuse(_):
        raise redis.AuthenticationError("WRONGPASS")

    monkeypatch.setattr(at_work.reembedding, "unfinished", refuse)
    with pytest.raises(redis.AuthenticationError):
        at_work.until_complete()


def test_a_worker_of_its_own_is_told_when_all_is_in(at_work, settings):
    """So that a process that ends now has begun what it can."""
    at_work, _ = at_work
    asked = threading.Event()
    with settings[1].queue(worker=False) as at_work.queue:
        at_work.queue.flush_now = asked.set
        at_work.until_all_is_in()
    assert asked.is_set()
