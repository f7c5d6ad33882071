"""Options are refused when the queue is made, not when the worker meets them."""

from __future__ import annotations

import inspect
import pickle
import typing

import pytest
import tenacity

import embedqueue
import embedqueue.testing
from embedqueue.values.options import Options, QueueOptions

BAD = [
    ("model", None, TypeError),
    ("model", b"bytes", TypeError),
    ("model", "", ValueError),
    ("model", "\ud800", ValueError),
    ("embedding_field", 5, TypeError),
    ("embedding_field", "", ValueError),
    ("namespace", None, TypeError),
    ("namespace", "", ValueError),
    ("namespace", "{tag}", ValueError),
    ("flush_interval", "1", TypeError),
    ("flush_interval", None, TypeError),
    ("flush_interval", True, TypeError),
    ("flush_interval", -1, ValueError),
    ("flush_interval", float("nan"), ValueError),
    ("flush_interval", float("inf"), ValueError),
    ("max_batch_size", 0, ValueError),
    ("max_batch_size", 1.5, TypeError),
    ("max_batch_size", True, TypeError),
    ("max_batch_size", None, TypeError),
    ("api_batch_limit", 0, ValueError),
    ("api_batch_limit", "50", TypeError),
    ("api_batch_tokens", -1, ValueError),
    ("max_concurrency", 0, ValueError),
    ("max_concurrency", "many", TypeError),
    ("max_concurrency", 2.0, TypeError),
    ("lease_seconds", 0, ValueError),
    ("lease_seconds", None, TypeError),
    ("lease_seconds", 0.0001, ValueError),
    ("max_deliveries", 0, ValueError),
    ("max_deliveries", False, TypeError),
    ("max_pending", 0, ValueError),
    ("max_pending", 1.0, TypeError),
    ("max_text_chars", 0, ValueError),
    ("max_text_chars", "8", TypeError),
    ("min_replicas", -1, ValueError),
    ("min_replicas", 1.0, TypeError),
    ("min_replicas", True, TypeError),
    ("replica_patience", 0, ValueError),
    ("replica_patience", None, TypeError),
    ("replica_patience", 86_401, ValueError),
    ("limits", 600, TypeError),
    ("limits", "automatic", TypeError),
    ("flush_on_wait", 1, TypeError),
    ("flush_on_wait", None, TypeError),
    ("worker", "no", TypeError),
    ("wait_linger", -0.1, ValueError),
    ("wait_linger", None, TypeError),
    ("retry", 3, TypeError),
    ("retry", tenacity.Retrying, TypeError),
    ("retry", tenacity.AsyncRetrying(), TypeError),
    ("cache_ttl", 0, ValueError),
    ("cache_ttl", 0.0001, ValueError),
    ("cache_ttl", "day", TypeError),
    ("if_missing", "ignore", ValueError),
    ("if_missing", None, ValueError),
    ("if_missing", [], ValueError),
    ("vector_type", "float64", ValueError),
    ("vector_type", None, ValueError),
    ("economy", 1, TypeError),
    ("economy_promote", "no", TypeError),
    ("economy_after", "day", TypeError),
    ("economy_after", -1, ValueError),
    ("economy_after", float("inf"), ValueError),
    ("economy_deadline", True, TypeError),
    ("economy_lag", None, TypeError),
    ("economy_min_texts", 0, ValueError),
    ("economy_min_texts", 3000, ValueError),
    ("economy_max_texts", 50_001, ValueError),
    ("economy_max_texts", 1.5, TypeError),
    ("economy_poll", 15, TypeError),
    ("economy_poll", (15,), TypeError),
    ("economy_poll", ("a", "b"), TypeError),
    ("economy_poll", (True, 2), TypeError),
    ("economy_poll", (600, 15), ValueError),
    ("economy_poll", "0, 15", ValueError),
    ("provenance_field", "embedding", ValueError),
    ("budget", 5, TypeError),
    ("successor", "a queue", TypeError),
]


@pytest.mark.parametrize(("name", "value", "error"), BAD, ids=lambda part: repr(part).partition(" object at ")[0][:30])
def test_refused(name, value, error):
    """A bad option raises an error of the right kind that names it."""
    with pytest.raises(error) as refusal:
        Options(**{name: value})
    assert refusal.value.name == name
    assert str(refusal.value).startswith(f"{name} ")
    again = pickle.loads(pickle.dumps(refusal.value))
    assert (again.name, str(again)) == (name, str(refusal.value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flush_interval", 0),
        ("flush_interval", 0.05),
        ("wait_linger", 0),
        ("max_batch_size", 1),
        ("max_concurrency", "auto"),
        ("max_pending", None),
        ("max_pending", 1),
        ("min_replicas", 0),
        ("min_replicas", None),
        ("min_replicas", 3),
        ("replica_patience", 0.001),
        ("replica_patience", 86_400),
        ("cache_ttl", None),
        ("cache_ttl", 0.5),
        ("lease_seconds", 1),
        ("retry", tenacity.Retrying()),
        ("namespace", "my:queue"),
        ("model", "модель"),
        ("if_missing", "skip"),
        ("vector_type", "float16"),
    ],
)
def test_accepted(name, value):
    """What lies on the edge of an option's range is taken as it is."""
    assert getattr(Options(**{name: value}), name) == value


def test_unknown_option(fake_redis):
    """A misspelt option of the queue is a TypeError."""
    with pytest.raises(TypeError, match="max_bach_size"):
        embedqueue.EmbeddingBatchQueue(embedqueue.testing.FakeEmbedder(), fake_redis, max_bach_size=5)


def test_queue_refuses_bad_options(fake_redis):
    """The queue's constructor validates."""
    with pytest.raises(ValueError, match="max_batch_size"):
        embedqueue.EmbeddingBatchQueue(embedqueue.testing.FakeEmbedder(), fake_redis, max_batch_size=0)


def test_keywords_are_those_of_the_options():
    """What type checkers know of the queue's keywords are the names and types, and the defaults, that are validated."""
    init, hints = embedqueue.EmbeddingBatchQueue.__init__, typing.get_type_hints(Options)
    positional = {name: hints.pop(name) for name in ("model", "flush_interval", "max_batch_size")}
    assert typing.get_type_hints(QueueOptions) == hints
    own = typing.get_type_hints(init)
    assert {name: own[name] for name in positional} == positional
    told, validated = inspect.signature(init).parameters, inspect.signature(Options).parameters
    assert {name: told[name].default for name in validated} == {name: validated[name].default for name in validated}


def test_constants():
    """The constants that docs/design.md promises."""
    assert embedqueue.EMBED_DIMENSIONS == 3072
    assert embedqueue.DEFAULT_FLUSH_INTERVAL == 3600.0
    assert embedqueue.DEFAULT_MAX_BATCH_SIZE == 50
    assert embedqueue.API_BATCH_LIMIT == 50
    assert embedqueue.PENDING_ZSET_KEY == "embed_queue:pending"


def test_defaults():
    """The defaults that the README and docs/design.md promise."""
    options = Options()
    assert (options.model, options.flush_interval, options.max_batch_size) == ("google/gemini-embedding-001", 3600, 50)
    assert (options.embedding_field, options.namespace, options.api_batch_limit) == ("embedding", "embed_queue", 50)
    assert (options.max_concurrency, options.lease_seconds, options.max_deliveries) == (4, 60, 5)
    assert (options.max_pending, options.flush_on_wait, options.wait_linger) == (None, True, 0.005)
    assert (options.worker, options.cache_ttl, options.if_missing) == (True, None, "create")
    assert options.max_text_chars is None
    assert (options.min_replicas, options.replica_patience) == (0, 10)


def test_a_job_must_have_time():
    """What leaves its job before it could enter one makes no sense."""
    with pytest.raises(ValueError, match="economy_deadline"):
        Options(economy=True, economy_after=100.0, economy_deadline=100.0)
    assert Options(economy_after=100.0).economy_deadline == 7200.0
    assert Options(economy_poll="15, 600").economy_poll == (15.0, 600.0)
