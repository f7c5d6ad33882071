"""``queue.search`` and ``queue.create_index`` on a real Redis with its search module."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import redis

from embedqueue import EmbedQueueError, SearchHit
from embedqueue.search import search as search_module
from embedqueue.search.definition import told
from embedqueue.search.hits import fields_of
from embedqueue.testing import FakeEmbedder
from tests.parts import PATIENCE_SECONDS, eventually

TEXTS = {"doc:cat": "the cat sat on the mat", "doc:dog": "a dog barked", "doc:bank": "monetary policy of the bank"}
#: The score that is expected of two vectors, by the index's distance, as docs/search.md states it.
SCORES = {
    "COSINE": lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
    "IP": lambda a, b: a @ b,
    "L2": lambda a, b: 1 / (1 + np.sum((a - b) ** 2)),
}


@pytest.fixture
def embedder():
    return FakeEmbedder(16)


@pytest.fixture
def queue(make_queue, searching, embedder):
    return make_queue(searching)


def fill(queue, client, **more):
    for key, text in TEXTS.items():
        client.hset(key, mapping={"text": text, "lang": "de" if key == "doc:dog" else "en", **more})
        queue.enqueue(key, text).result(PATIENCE_SECONDS)


def found(queue, text, count=len(TEXTS), **options):
    """The hits, once Redis has read all hashes."""
    options.setdefault("index", "notes")
    eventually(lambda: len(queue.search(text, **options)) == count, "all are indexed")
    return queue.search(text, **options)


@pytest.mark.parametrize("client", [{}, {"decode_responses": True}, {"protocol": 3}, {"protocol": 2}])
def test_the_nearest_hashes_come_first_whatever_the_client(make_queue, searching_redis, searching, embedder, client):
    """With their fields, but for the vector; the client itself is not changed."""
    given = searching_redis.client(**client)
    queue = make_queue(given)
    queue.create_index("notes", "doc:")
    fill(queue, searching, raw=b"\xff\x00")
    hits = found(queue, "where is the cat")
    assert [hit.redis_key for hit in hits][0] == "doc:cat"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(isinstance(hit, SearchHit) for hit in hits)
    fields = dict(hits[0].fields)
    assert fields.pop("embedding_of").startswith("gemini-embedding-001/16/- ")
    assert fields == {"text": TEXTS["doc:cat"], "lang": "en", "raw": b"\xff\x00"}
    assert given.hget("doc:cat", "lang") == ("en" if client.get("decode_responses") else b"en")
    given.close()


@pytest.mark.parametrize("algorithm", ["HNSW", "flat"])
@pytest.mark.parametrize("distance", ["COSINE", "L2", "ip"])
def test_scores_are_what_they_are_said_to_be(queue, searching, embedder, algorithm, distance):
    """As numpy reckons them, whatever the index measures by; higher is nearer."""
    queue.create_index("notes", "doc:", algorithm=algorithm, distance=distance)
    fill(queue, searching)
    question = embedder.vector_of("where is the cat")
    for hit in found(queue, "where is the cat"):
        expected = SCORES[distance.upper()](question, embedder.vector_of(TEXTS[hit.redis_key]))
        assert hit.score == pytest.approx(expected, abs=1e-5)


def test_a_vector_that_happens_to_be_text_stays_bytes():
    fields = fields_of([(b"embedding", b"1234"), (b"text", b"1234")], raw="embedding")
    assert fields == {"embedding": b"1234", "text": "1234"}


def test_k_filter_and_fields(queue, searching, embedder):
    """Any expression of Redis' search filters; fields are those that were asked for, the vector included."""
    queue.create_index("notes", ["doc:", "other:"], fields={"lang": "TAG", "text": "text"}, provenance=True)
    fill(queue, searching)
    found(queue, "the cat")
    assert [hit.redis_key for hit in queue.search("the cat", 1, index="notes")] == ["doc:cat"]
    [hit] = queue.search("the cat", index="notes", filter="@lang:{de}", return_fields=["lang", "no such field"])
    assert (hit.redis_key, hit.fields) == ("doc:dog", {"lang": "de"})
    hits = queue.search("the cat", index="notes", filter="@lang:{en} | @text:barked", return_fields=[])
    assert len(hits) == 3
    assert all(hit.fields == {} for hit in hits)
    [hit] = queue.search("the cat", 1, index="notes", return_fields=["embedding"])
    assert hit.fields == {"embedding": embedder.bytes_of(TEXTS["doc:cat"])}
    space = r"@embedding_of:{gemini\-embedding\-001\/16\/\-}"
    assert len(queue.search("the cat", index="notes", filter=space)) == 3
    assert queue.search("the cat", index="notes", filter=space.replace("16", "17")) == []
    with pytest.raises(redis.ResponseError):
        queue.search("the cat", index="notes", filter="@lang:{")


def test_an_index_of_somebody_elses_making(make_queue, searching, embedder):
    """Over the same field under another name, with other numbers in it; the field's name needs escaping."""
    queue = make_queue(searching, embedding_field="my-vector")
    schema = ["my-vector", "AS", "a.name", "VECTOR", "FLAT", 6, "TYPE", "FLOAT32", "DIM", 16, "DISTANCE_METRIC", "L2"]
    searching.execute_command("FT.CREATE", "notes", "ON", "HASH", "PREFIX", 1, "doc:", "SCHEMA", *schema)
    fill(queue, searching)
    assert found(queue, "the cat")[0].redis_key == "doc:cat"
    assert "my-vector" not in found(queue, "the cat")[0].fields


def test_an_equal_index_is_no_fault_and_another_is_told(queue, searching):
    """Each difference is named, with both sides."""
    options = {"fields": {"lang": "TAG SEPARATOR ;"}, "provenance": True}
    queue.create_index("notes", ["doc:", "note:"], **options)
    queue.create_index("notes", ["note:", "doc:"], **options)
    with pytest.raises(EmbedQueueError, match=r"prefixes: 'doc:', 'note:', not 'doc:'.*FT\.DROPINDEX notes"):
        queue.create_index("notes", "doc:", **options)
    for name, value, words in (
        ("algorithm", "FLAT", "algorithm: HNSW, not FLAT"),
        ("distance", "L2", "metric: COSINE, not L2"),
        ("fields", {"lang": "NUMERIC"}, "lang TAG, not embedding_of TAG, lang NUMERIC"),
    ):
        with pytest.raises(EmbedQueueError, match=words):
            queue.create_index("notes", ["doc:", "note:"], **options | {name: value})


def test_an_index_of_another_length(make_queue, searching):
    """To create is refused; so is to search, which would find nothing."""
    make_queue(searching, embedder=FakeEmbedder(8)).create_index("notes", "doc:")
    queue = make_queue(searching, embedder=FakeEmbedder(16), namespace="another")
    with pytest.raises(EmbedQueueError, match="dimensions: 8, not 16"):
        queue.create_index("notes", "doc:")
    with pytest.raises(EmbedQueueError, match="holds vectors of 8 numbers, and the query's has 16"):
        queue.search("the cat", index="notes")


def test_an_index_without_vectors_of_ours(queue, searching):
    searching.execute_command("FT.CREATE", "texts", "ON", "HASH", "SCHEMA", "text", "TEXT")
    with pytest.raises(EmbedQueueError, match="no vectors of the field 'embedding'"):
        queue.search("the cat", index="texts")


def test_numbers_that_are_not_known(queue, searching):
    schema = ["embedding", "VECTOR", "FLAT", 6, "TYPE", "BFLOAT16", "DIM", 16, "DISTANCE_METRIC", "L2"]
    searching.execute_command("FT.CREATE", "small", "ON", "HASH", "SCHEMA", *schema)
    with pytest.raises(EmbedQueueError, match="vectors of BFLOAT16"):
        queue.search("the cat", index="small")


def test_a_distance_that_redis_does_not_tell():
    """Old search modules do not: a score would be a guess."""
    info = [b"attributes", [[b"identifier", b"embedding", b"attribute", b"embedding", b"type", b"VECTOR"]]]
    with pytest.raises(EmbedQueueError, match="does not tell which distance"):
        told("notes", info, "embedding")


def micros(client):
    """The server's clock. To look at the hash itself would remove it."""
    seconds, rest = client.time()
    return seconds * 1_000_000 + rest


def test_a_hash_that_expires_meanwhile_is_no_hit(queue, searching):
    """Redis finds it, and has nothing to show of it."""
    queue.create_index("notes", "doc:")
    fill(queue, searching)
    found(queue, "the cat")
    searching.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    try:
        searching.pexpire("doc:dog", 1)
        began = micros(searching)
        eventually(lambda: micros(searching) > began + 2000, "expired")
        assert {hit.redis_key for hit in queue.search("the cat", index="notes")} == {"doc:cat", "doc:bank"}
    finally:
        searching.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 1)


def test_a_schema_that_redis_refuses(queue):
    with pytest.raises(redis.ResponseError):
        queue.create_index("notes", "doc:", fields={"lang": "TAG NONSENSE"})


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"lang": 3}, "must be one of TAG.*, not 3"),
        ({"lang": None}, "must be one of TAG.*, not None"),
        ({"lang": ""}, "must be one of TAG.*, not ''"),
        ({"lang": []}, r"must be one of TAG.*, not \[\]"),
        ({"lang": b"TAG"}, "must be one of TAG.*, not b'TAG'"),
        ({3: "TAG"}, "of which 3 is none"),
        ({"": "TAG"}, "of which '' is none"),
        (["lang"], "must be a dict.*, not list"),
        ("lang", "must be a dict.*, not str"),
    ],
)
def test_fields_that_are_none(queue, searching, fields, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        queue.create_index("notes", "doc:", fields=fields)
    assert searching.execute_command("FT._LIST") == []


@pytest.mark.parametrize("prefix", [3, None, b"doc:", [], ["doc:", 3], ""])
def test_prefixes_that_are_none(queue, searching, prefix):
    with pytest.raises(ValueError, match="what the keys of your hashes begin with"):
        queue.create_index("notes", prefix)
    assert searching.execute_command("FT._LIST") == []


def test_an_index_that_is_not_there(queue):
    with pytest.raises(EmbedQueueError, match=r"no index 'nothing'.*create_index"):
        queue.search("the cat", index="nothing")


def test_an_index_that_is_made_anew_is_known_anew(queue, searching, monkeypatch):
    """What it measures by is remembered for a while only."""
    queue.create_index("notes", "doc:", distance="COSINE")
    fill(queue, searching)
    found(queue, "the cat")
    searching.execute_command("FT.DROPINDEX", "notes")
    queue.create_index("notes", "doc:", distance="L2")  # this process knows at once
    assert found(queue, "the cat")[-1].score > 0
    searching.config_resetstat()
    queue.search("the cat", index="notes")
    assert looks(searching) == 0
    monkeypatch.setattr(search_module, "REMEMBERED_SECONDS", 0.0)
    queue.search("the cat", index="notes")
    assert looks(searching) == 1


def looks(client):
    """How often Redis was asked what an index is."""
    return client.info("commandstats").get("cmdstat_FT.INFO", {"calls": 0})["calls"]


def test_other_databases_are_refused_with_a_sentence(make_queue, searching_redis, searching, embedder):
    queue = make_queue(searching_redis.client(db=1))
    for use in (lambda: queue.create_index("notes", "doc:"), lambda: queue.search("the cat", index="notes")):
        with pytest.raises(EmbedQueueError, match="database 0 only, and this client uses database 1"):
            use()


def test_a_redis_without_the_module_is_refused_with_a_sentence(make_queue, redis_client):
    queue = make_queue()
    for use in (lambda: queue.create_index("notes", "doc:"), lambda: queue.search("the cat", index="notes")):
        with pytest.raises(EmbedQueueError, match="no search module"):
            use()


def test_a_user_with_the_rights_of_the_page_and_no_others(make_queue, searching_redis, searching, embedder):
    """docs/redis-acl.md lists what a search needs beside what a queue does."""
    page = (Path(__file__).parents[2] / "docs" / "redis-acl.md").read_text("utf-8")
    rules = re.search(r"ACL SETUSER (.*?)\n```", page, re.DOTALL).group(1).replace("\\\n", " ").split()
    more = re.search(r"Searches .*? need `(.*?)`.*?`(~embeddings)`", page, re.DOTALL)
    searching.execute_command("ACL", "SETUSER", *rules, *" ".join(more.groups()).split())
    queue = make_queue(searching_redis.client(username="embedqueue", password="password"), cache_ttl=60)
    queue.create_index("embeddings", "doc:")
    queue.create_index("embeddings", "doc:")
    for key, text in TEXTS.items():
        queue.enqueue(key, text).result(PATIENCE_SECONDS)
    assert found(queue, "the cat", index="embeddings")[0].redis_key == "doc:cat"
    searching.acl_deluser("embedqueue")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"prefix": ""}, ValueError),
        ({"prefix": []}, ValueError),
        ({"prefix": ["doc:", 7]}, ValueError),
        ({"algorithm": "TREE"}, ValueError),
        ({"distance": "MANHATTAN"}, ValueError),
        ({"fields": {"lang": "STRING"}}, ValueError),
        ({"fields": {"embedding": "TAG"}}, ValueError),
    ],
)
def test_what_is_no_index(queue, arguments, error):
    with pytest.raises(error):
        queue.create_index("notes", **{"prefix": "doc:"} | arguments)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"k": 0}, ValueError),
        ({"k": True}, ValueError),
        ({"return_fields": "text"}, TypeError),
        ({"text": " "}, ValueError),
    ],
)
def test_what_is_no_search(queue, embedder, arguments, error):
    """Nothing is paid for it."""
    with pytest.raises(error):
        queue.search(**{"text": "the cat", "index": "notes"} | arguments)
    assert embedder.calls == []


def test_provenance_that_is_not_written_cannot_be_held(make_queue, searching):
    with pytest.raises(ValueError, match="no provenance_field"):
        make_queue(searching, provenance_field=None).create_index("notes", "doc:", provenance=True)


def test_a_length_that_is_not_known_yet(make_queue, searching, embedder):
    """It is that of what is written already, where the embedder cannot tell."""
    fill(make_queue(searching), searching)
    embedder.dimensions = None
    make_queue(searching, start=False).create_index("notes", "doc:")
    with pytest.raises(EmbedQueueError, match="length of the vectors is not known"):
        make_queue(searching, start=False, namespace="empty").create_index("others", "doc:")
