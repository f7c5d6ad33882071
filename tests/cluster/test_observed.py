"""Django, Prometheus and OpenTelemetry beside a queue on a cluster."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.parts import PATIENCE_SECONDS, PROGRAM_SECONDS, eventually

IN_DJANGO = """
from django.core.management import call_command
from embedqueue.contrib.django import queue
queue.enqueue("doc:1", "one").result(45)
call_command("embedqueue", "stats", "--json")
"""


def test_django(cluster, client, provider):
    """Its queue, and its command."""
    pytest.importorskip("django", reason='Django is in the extra "embedqueue[django]"')
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.web.djsite.settings",
        "EMBEDQUEUE_REDIS_URL": cluster.url,
        "EMBEDQUEUE_PROVIDER": "openai",
        "EMBEDQUEUE_BASE_URL": provider.openai_url,
        "EMBEDQUEUE_API_KEY": "test-key",
        "EMBEDQUEUE_DIMENSIONS": "16",
    }
    command = [sys.executable, "-m", "django", "shell", "-c", IN_DJANGO]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PROGRAM_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"waiting": 0' in done.stdout
    assert client.hget("doc:1", "embedding")


def test_prometheus(make_queue, client):
    prometheus = pytest.importorskip("prometheus_client", reason='metrics are in the extra "embedqueue[prometheus]"')
    from embedqueue.metrics import Metrics

    registry = prometheus.CollectorRegistry()
    make_queue(client, observers=[Metrics(registry)]).enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    make_queue(client, observers=[Metrics(registry)], worker=False, start=False, namespace="other").enqueue(
        "doc:2", "two"
    )

    def value(name, queue="embed_queue"):
        return registry.get_sample_value(f"embedqueue_{name}", {"queue": queue})

    eventually(lambda: value("embedded_total") == 1, "it is counted")
    eventually(lambda: (value("enqueued_total"), value("waiting"), value("workers")) == (1, 0, 1))
    assert (value("waiting", "other"), value("workers", "other")) == (1, 0)


def test_a_trace_goes_from_process_to_process(make_queue, cluster, client):
    pytest.importorskip(
        "opentelemetry.sdk", reason='traces are in the extra "embedqueue[otel]"; the tests need its SDK'
    )
    from tests.metrics.test_tracing import Recorded

    web, worker = Recorded(), Recorded()
    future = make_queue(client, worker=False, observers=[web.tracing]).enqueue("doc:1", "one")
    assert client.ttl("{embed_queue}:trace:doc:1") > 0
    with cluster.client() as theirs:
        make_queue(theirs, observers=[worker.tracing])
        future.result(PATIENCE_SECONDS)
        eventually(lambda: worker.named("embedqueue embed"), "the batch is told of")
    (enqueue,), (batch,) = web.named("embedqueue enqueue"), worker.named("embedqueue embed")
    assert batch.parent.span_id == enqueue.context.span_id
    assert not client.exists("{embed_queue}:trace:doc:1")
