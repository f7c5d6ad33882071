"""What Prometheus is told: every figure, on the user's own registry, and none twice."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason='metrics are in the extra "embedqueue[prometheus]"')

import redis
from prometheus_client import CollectorRegistry, generate_latest

from embedqueue import EmbeddingBatchQueue, InputRejected, NotReplicated, TransientError
from embedqueue.metrics import Metrics
from embedqueue.testing import FakeEmbedder, eager_queue
from tests.inside import FIRST_PAUSE_SECONDS
from tests.parts import PROGRAM_SECONDS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def registry():
    return CollectorRegistry()


def value(registry, name, queue="embed_queue", **labels):
    return registry.get_sample_value(f"embedqueue_{name}", {"queue": queue, **labels})


def test_an_item_is_counted_on_its_way(registry):
    """Enqueued, sent, embedded; equal texts and the cache save."""
    queue = eager_queue(observers=[Metrics(registry)], cache_ttl=60)
    queue.enqueue_many([("a", "one"), ("b", "one"), ("c", "two words")])
    queue.enqueue("d", "one")
    assert value(registry, "enqueued_total") == 4
    assert value(registry, "embedded_total") == 4
    assert value(registry, "api_calls_total", outcome="ok") == 1
    assert value(registry, "texts_sent_total") == 2
    assert value(registry, "tokens_sent_total") == 4
    assert value(registry, "texts_saved_total", by="duplicate") == 1
    assert value(registry, "tokens_saved_total", by="cache") == 1
    assert value(registry, "api_call_seconds_count") == 1
    assert value(registry, "api_call_texts_sum") == 2
    assert value(registry, "wait_seconds_count") == 2
    assert value(registry, "waiting") == value(registry, "in_flight") == value(registry, "dead") == 0
    assert value(registry, "workers") == 0, "an eager queue has no worker"
    queue.redis.set("embed_queue:workers", "no hash")
    assert value(registry, "workers") is None, "not known"


def test_what_fails_is_counted(registry, monkeypatch):
    """By outcome; what is given back, and what is given up."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)

    def rule(texts):
        if "bad" in texts:
            return InputRejected("no")
        return TransientError("busy") if "busy" in texts else None

    queue = eager_queue(FakeEmbedder(rule=rule), observers=[Metrics(registry)])
    queue.enqueue("a", "bad")
    queue.enqueue("b", "busy")
    assert value(registry, "rejected_total") == value(registry, "dead") == 1
    assert value(registry, "retried_total") == value(registry, "waiting") == 1
    assert value(registry, "api_calls_total", outcome="rejected") == 1
    assert value(registry, "api_calls_total", outcome="transient") == 1
    assert value(registry, "api_calls_total", outcome="ok") == 1  # the canary
    assert value(registry, "paused_seconds") > 0
    assert value(registry, "oldest_age_seconds") > 0


def test_a_scrape_asks_each_queue_once(registry, redis_client):
    """Also for what is spent: a scrape of many queues takes no longer than it has to."""
    queue = eager_queue(redis=redis_client, observers=[Metrics(registry)])
    queue.enqueue("a", "one")
    redis_client.hset("embed_queue:budget", mapping={"day": redis_client.time()[0] // 86400, "day:spent": 1_500_000})
    generate_latest(registry)  # whose connection stands from now on
    redis_client.config_resetstat()
    generate_latest(registry)
    asked = redis_client.info("commandstats")
    assert asked["cmdstat_evalsha"]["calls"] == 1
    assert asked["cmdstat_time"]["calls"] == 1, "that of the script: nobody else asks for anything"
    assert value(registry, "budget_spent_dollars", period="day") == 1.5


def test_redis_that_is_gone_breaks_no_scrape(registry):
    """One gauge says so; the counters are there; the failed enqueue is counted."""
    client = redis.Redis(unix_socket_path="/nonexistent/embedqueue.sock")
    queue = eager_queue(redis=client, observers=[Metrics(registry)])
    with pytest.raises(redis.ConnectionError):
        queue.enqueue("a", "b")
    assert value(registry, "up") == 0
    assert value(registry, "waiting") is None
    assert value(registry, "redis_errors_total") == 1
    assert value(registry, "not_enqueued_total") == 1
    assert b"embedqueue_up" in generate_latest(registry)


def test_what_too_few_replicas_have_is_enqueued_all_the_same(registry, redis_client):
    """And counted apart."""
    options = {"min_replicas": 1, "replica_patience": 0.01, "worker": False}
    queue = EmbeddingBatchQueue(FakeEmbedder(), redis_client, observers=[Metrics(registry)], **options)
    with pytest.raises(NotReplicated):
        queue.enqueue_many([("a", "x"), ("b", "y")])
    assert value(registry, "enqueued_total") == value(registry, "not_replicated_total") == 2
    assert value(registry, "not_enqueued_total") == 0
    assert value(registry, "waiting") == 2
    queue.stop()


def test_several_queues_and_several_objects_share_a_registry(registry, fake_redis):
    """Each queue has its label; a second object on the registry is no error."""
    for namespace in ("one", "two"):
        eager_queue(redis=fake_redis, namespace=namespace, observers=[Metrics(registry)]).enqueue(f"k:{namespace}", "x")
    eager_queue(redis=fake_redis, namespace="two", observers=[Metrics(registry)]).enqueue("k:2", "y")
    assert value(registry, "enqueued_total", queue="one") == 1
    assert value(registry, "enqueued_total", queue="two") == 2
    assert value(registry, "waiting", queue="two") == 0
    _, body = Metrics(registry).exposition()
    assert body.count(b'embedqueue_waiting{queue="two"}') == 1


def test_a_scrape_in_multiprocess_mode(redis_server, redis_client, tmp_path):
    """Whichever process answers tells the sum of all processes' counters, and the gauges of Redis once."""
    code = f"""
import redis
from embedqueue.metrics import Metrics
from embedqueue.testing import eager_queue
metrics = Metrics()
queue = eager_queue(redis=redis.from_url({redis_server.url!r}), observers=[metrics])
queue.enqueue_many([("doc:1", "one"), ("doc:2", "two")])
print(metrics.exposition()[1].decode())
"""
    for count in (2.0, 4.0):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
            timeout=PROGRAM_SECONDS,
        )
        lines = done.stdout.splitlines()
        for name, number in (("enqueued_total", count), ("embedded_total", count), ("up", 1.0), ("waiting", 0.0)):
            told = [line for line in lines if line.startswith(f"embedqueue_{name}{{")]
            assert told == [f'embedqueue_{name}{{queue="embed_queue"}} {number}']


def test_all_series_stand_at_zero_from_the_start(registry):
    """A counter that appears with its first event has not risen, as Prometheus sees it: the first alert is missed."""
    eager_queue(redis=redis.Redis(unix_socket_path="/nonexistent/embedqueue.sock"), observers=[Metrics(registry)])
    for outcome in ("ok", "partial", "transient", "rejected", "too_large", "configuration"):
        assert value(registry, "api_calls_total", outcome=outcome) == 0
    for by in ("duplicate", "cache"):
        assert value(registry, "texts_saved_total", by=by) == value(registry, "tokens_saved_total", by=by) == 0
    for family in registry.collect():
        told = [sample for sample in family.samples if sample.labels.get("queue") == "embed_queue"]
        assert told or family.type == "gauge", f"{family.name} stands from the start"
    assert value(registry, "up") == 0


def test_leases_and_lost_claims(registry):
    """What an observer is told, is counted."""
    Metrics(registry).bind("q", redis.Redis()).leases_ended(3)
    assert registry.get_sample_value("embedqueue_leases_expired_total", {"queue": "q"}) == 3


def names(registry) -> set[str]:
    """Every name that a query may use."""
    found = set()
    for family in registry.collect():
        found.add(family.name)
        found |= {f"{family.name}{end}" for end in ("_total", "_bucket", "_sum", "_count")}
    return found


def test_the_grafana_dashboard_asks_for_what_there_is(registry):
    """It is JSON that Grafana takes, and no panel is empty for a misspelt name."""
    eager_queue(observers=[Metrics(registry)])
    board = json.loads((DOCS / "grafana.json").read_text("utf-8"))
    asked = set()
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            asked |= set(re.findall(r"\bembedqueue_\w+", target["expr"]))
        assert panel["title"] and panel["datasource"]["uid"] == "${datasource}"
    assert len({json.dumps(panel["gridPos"]) for panel in board["panels"]}) == len(board["panels"])
    assert asked <= names(registry)
    table = set(re.findall(r"^\| `(embedqueue_\w+)", (DOCS / "metrics.md").read_text("utf-8"), re.MULTILINE))
    assert table == {name for name in names(registry) if _is_plain(name, registry)}


def _is_plain(name: str, registry) -> bool:
    """A counter with its _total, a gauge or a histogram by its own name."""
    return name in {f.name + ("_total" if f.type == "counter" else "") for f in registry.collect()}


def test_the_page_runs():
    """The blocks of docs/metrics.md, in order, as one program."""
    pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")
    names: dict[str, object] = {"__name__": __name__}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "metrics.md").read_text("utf-8"), re.DOTALL):
        exec(block, names)
    answer = names["app"].test_client().get("/metrics")
    assert b"embedqueue_up" in answer.data
    assert answer.content_type.startswith("text/plain")
