"""Which vector indexes a check finds fault with: those that leave out hashes of this queue, and no other queue's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import redis

from embedqueue.operating.indexes import examine_indexes
from embedqueue.settings.settings import Settings

OURS = Settings(provider="openai", model="openai/ours", dimensions=16)


class Search:
    """A Redis with one index over the field ``embedding``, as its search module tells of it."""

    def __init__(self, *, db: int = 0, provenance: str | None = None, dim: int = 16, **facts: Any) -> None:
        self.connection_pool = SimpleNamespace(connection_kwargs={"db": db})
        words = ("identifier", "embedding", "type", "VECTOR", "data_type", facts.pop("kind", "FLOAT32"), "dim")
        attribute = [*(word.encode() for word in words), dim]
        self.info = [b"attributes", [attribute]]
        for name, value in ({"num_docs": 0, "hash_indexing_failures": 0} | facts).items():
            self.info += [name.encode(), str(value).encode()]
        self.sample = [1, b"doc:1", [b"embedding_of", provenance.encode()]] if provenance else [1, b"doc:1", []]

    def execute_command(self, name: str, *words: Any) -> Any:
        answers = {"FT._LIST": [b"idx"], "FT.INFO": self.info, "FT.SEARCH": self.sample}
        if isinstance(answers[name], Exception):
            raise answers[name]
        return answers[name]


def told(search: Search, **others: Settings) -> tuple[str, str]:
    [finding] = examine_indexes(OURS, search, others)
    assert finding.about == "index"
    return finding.level, finding.words


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        ({"num_docs": 3}, "ok", "idx: 16 dimensions, FLOAT32, 3 hashes"),
        ({"num_docs": 3, "hash_indexing_failures": 2}, "warning", "could not index 2 hashes"),
        ({"dim": 32, "num_docs": 3, "provenance": "theirs/32/- ab 1"}, "ok", "vectors of another model, theirs"),
        ({"dim": 32, "num_docs": 3, "provenance": "ours/32/- ab 1"}, "warning", "keep it while 3 hashes use it"),
        ({"dim": 32, "num_docs": 3}, "warning", "keep it while 3 hashes use it"),
        ({"dim": 32, "num_docs": 3, "provenance": "theirs/32/- ab 1", "hash_indexing_failures": 1}, "warning", "keep"),
        ({"dim": 32, "percent_indexed": 0.2}, "warning", "keep it while 0 hashes use it"),  # it is still being filled
        ({"dim": 32, "hash_indexing_failures": 4}, "problem", "4 hashes were left out, and none is in it: drop it"),
        ({"dim": 32}, "warning", "no hash is in it; if it is meant for this queue, drop it (FT.DROPINDEX idx)"),
        ({"kind": "FLOAT64", "hash_indexing_failures": 1}, "problem", "holds vectors of 16 FLOAT64 numbers"),
    ],
)
def test_an_index_over_the_queues_field(facts, level, words):
    """What hashes use is never advised to be dropped."""
    found, said = told(Search(**facts))
    assert (found, words in said) == (level, True), (found, said)
    assert facts.get("num_docs", 0) == 0 or "drop" not in said.lower()


def test_an_index_of_another_queue_of_the_application_is_theirs():
    """By its field and its dimensions; one that fits nobody is told of."""
    images = Settings(provider="openai", model="theirs", dimensions=32)
    assert told(Search(dim=32), images=images) == (
        "ok",
        "idx: 32 dimensions, FLOAT32, 0 hashes; it is of the queue images",
    )
    assert told(Search(dim=64), images=images)[0] == "warning"
    titles = Settings(provider="openai", model="t", dimensions=32, options={"embedding_field": "title_embedding"})
    assert told(Search(dim=32), titles=titles)[0] == "warning"


def test_an_index_over_another_field_is_none_of_our_business():
    theirs = Settings(provider="openai", model="m", dimensions=16, options={"embedding_field": "title_embedding"})
    assert list(examine_indexes(theirs, Search(dim=32, hash_indexing_failures=3), {})) == []


def test_what_cannot_be_asked_is_not_judged():
    """Without provenance, or without the right to search, whose hashes they are is not known; nothing is dropped."""
    search = Search(dim=32, num_docs=3)
    search.sample = redis.ResponseError("NOPERM")
    assert told(search)[0] == "warning"
    none = Settings(provider="openai", model="ours", dimensions=16, options={"provenance_field": None})
    [finding] = examine_indexes(none, Search(dim=32, num_docs=3, provenance="theirs/32/- ab 1"), {})
    assert finding.level == "warning" and "drop" not in finding.words.lower()


def test_only_database_0_is_indexed():
    """Whoever keeps hashes elsewhere is told before they search in vain."""
    level, words = told(Search(db=3))
    assert level == "warning" and "hashes of database 3 are in no index" in words
