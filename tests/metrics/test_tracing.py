"""Traces go from an enqueue to the written vector, whichever process does what."""

from __future__ import annotations

import pytest

pytest.importorskip("opentelemetry.sdk", reason='traces are in the extra "embedqueue[otel]"; the tests need its SDK')

import fakeredis
import redis
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from embedqueue import (
    BatchReport,
    CallReport,
    EmbeddingBatchQueue,
    InputRejected,
    OpenAIEmbedder,
    ReleaseReport,
    TransientError,
)
from embedqueue.testing import FakeEmbedder, eager_queue
from embedqueue.tracing import CONTEXT_SECONDS, Tracing
from tests.provider import fail


class Recorded:
    """A provider whose spans can be looked at."""

    def __init__(self, **options) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(self.provider)

    def named(self, name):
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


def test_one_item_is_one_trace_from_process_to_process(fake_redis):
    """The one that enqueues and the one that works share nothing but Redis."""
    web, worker = Recorded(), Recorded()
    producer = EmbeddingBatchQueue(FakeEmbedder(), fake_redis, worker=False, observers=[web.tracing])
    with web.provider.get_tracer("app").start_as_current_span("request") as request:
        producer.enqueue("doc:1", "hello")
    assert 0 < fake_redis.ttl("embed_queue:trace:doc:1") <= CONTEXT_SECONDS
    eager_queue(redis=fake_redis, observers=[worker.tracing]).flush_now()
    (enqueue,) = web.named("embedqueue enqueue")
    (batch,) = worker.named("embedqueue embed")
    (call,) = worker.named("embeddings")
    assert enqueue.parent.span_id == request.get_span_context().span_id
    assert (enqueue.kind, batch.kind, call.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CLIENT)
    assert enqueue.context.trace_id == batch.context.trace_id == call.context.trace_id
    assert batch.parent.span_id == enqueue.context.span_id == batch.links[0].context.span_id
    assert call.parent.span_id == batch.context.span_id
    assert enqueue.end_time <= batch.end_time
    assert batch.start_time <= call.start_time <= call.end_time <= batch.end_time
    assert batch.attributes["messaging.destination.name"] == "embed_queue"
    assert fake_redis.keys("embed_queue:trace:*") == []
    producer.stop()


def test_a_batch_of_many_traces_is_linked_with_each(fake_redis):
    """The batch is a trace of its own; the trace of each enqueue has a span that tells when, with a link to it."""
    seen = Recorded()
    producer = EmbeddingBatchQueue(FakeEmbedder(), fake_redis, worker=False, observers=[seen.tracing])
    for n in range(3):
        producer.enqueue(f"doc:{n}", f"text {n}")
    producer.enqueue_many([("doc:3", "text 3"), ("doc:4", "text 4")])
    eager_queue(redis=fake_redis, observers=[seen.tracing]).flush_now()
    enqueues = seen.named("embedqueue enqueue")
    (batch,) = seen.named("embedqueue embed")
    written = seen.named("embedqueue written")
    assert batch.parent is None
    spans = {span.context.span_id for span in enqueues}
    assert {link.context.span_id for link in batch.links} == spans == {span.parent.span_id for span in written}
    assert len(spans) == 4
    assert all(span.links[0].context.span_id == batch.context.span_id for span in written)
    assert batch.attributes["messaging.batch.message_count"] == 5
    producer.stop()


def test_failures_are_seen(fake_redis):
    """A call that fails, a batch given back, a dead letter; the trace goes on when the item is tried again."""
    seen = Recorded()
    embedder = FakeEmbedder(rule=lambda texts: InputRejected("secret words") if "bad" in texts else None)
    queue = eager_queue(embedder, fake_redis, observers=[seen.tracing])
    embedder.fail_with(TransientError("busy"))
    queue.enqueue("doc:1", "hello")
    (given_back,) = seen.named("embedqueue embed")
    assert (given_back.status.status_code, given_back.status.description) == (StatusCode.ERROR, "busy")
    queue.flush_now()
    _, written = seen.named("embedqueue embed")
    assert written.context.trace_id == given_back.context.trace_id
    assert written.status.status_code is StatusCode.UNSET
    queue.enqueue("doc:2", "bad")
    (dead,) = seen.named("embedqueue dead letter")
    assert dead.context.trace_id == seen.named("embedqueue enqueue")[1].context.trace_id
    assert dead.attributes["error.type"] == "dead_letter"
    assert "secret" not in "".join(span.to_json() for span in seen.exporter.get_finished_spans())
    assert fake_redis.keys("embed_queue:trace:*") == []


def test_a_call_says_what_was_asked_of_whom(fake_redis, provider):
    """By OpenTelemetry's conventions: model, provider, server; and the kind of error wherever one is."""
    seen = Recorded()
    embedder = OpenAIEmbedder("test-key", provider.openai_url, 16)
    queue = eager_queue(embedder, fake_redis, model="openai/text-embedding-3-large", observers=[seen.tracing])
    provider.script(fail(503), fail(503))  # the canary fails as well
    queue.enqueue("doc:1", "hello")
    failed, *_ = seen.named("embeddings")
    (given_back,) = seen.named("embedqueue embed")
    assert failed.attributes["error.type"] == given_back.attributes["error.type"] == "503"
    queue.flush_now()
    *_, served = seen.named("embeddings")
    for call in (failed, served):
        assert {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "openai/text-embedding-3-large",
            "server.address": "127.0.0.1",
            "server.port": int(provider.url.rpartition(":")[2]),
        }.items() <= call.attributes.items()
    assert "error.type" not in served.attributes


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"outcome": "configuration", "status": 401}, "401"),
        ({"outcome": "transient", "cause": "timeout"}, "timeout"),
        ({"outcome": "partial"}, "partial"),
    ],
)
def test_errors_are_of_few_kinds(fake_redis, facts, kind):
    """A word to group by, whatever the provider says; what is not known of a call is left out."""
    seen = Recorded()
    observer = seen.tracing.bind("embed_queue", fake_redis)
    observer.call_ended(CallReport(texts=1, tokens=1, seconds=1.0, time=1000.0, **facts))
    observer.released(ReleaseReport(redis_keys=("doc:1",), reason="no", pause_seconds=1.0, time=1000.0))
    (call,), (batch,) = seen.named("embeddings"), seen.named("embedqueue embed")
    assert call.attributes["error.type"] == batch.attributes["error.type"] == kind
    assert not {"server.address", "gen_ai.request.model"} & call.attributes.keys()
    observer.released(ReleaseReport(redis_keys=("doc:1",), reason="the queue stops", pause_seconds=1.0))
    assert seen.named("embedqueue embed")[1].attributes["error.type"] == "_OTHER"


def test_an_embedder_of_ones_own_is_named_by_its_class(fake_redis):
    """Unless it says whose API it is, and where."""
    seen = Recorded()

    class Named(FakeEmbedder):
        provider, server = "acme", ("h", 8)

    class Otherwise(FakeEmbedder):
        provider, server = object(), "http://h:8"

    class Raising(FakeEmbedder):
        @property
        def server(self):
            raise OSError("not now")

    for number, kind in enumerate((FakeEmbedder, Named, Otherwise, Raising)):
        eager_queue(kind(), fake_redis, observers=[seen.tracing]).enqueue(f"doc:{number}", f"text {number}")
    calls = [span.attributes for span in seen.named("embeddings")]
    assert [call["gen_ai.provider.name"] for call in calls] == ["FakeEmbedder", "acme", "Otherwise", "Raising"]
    assert [(call.get("server.address"), call.get("server.port")) for call in calls] == [
        (None, None), ("h", 8), (None, None), (None, None)
    ]  # fmt: skip


def test_a_call_is_in_the_trace_of_its_own_batch_only(fake_redis):
    """A call whose texts all died led to no batch, and is not shown in the next one of its thread."""
    seen = Recorded()
    observer = seen.tracing.bind("embed_queue", fake_redis)
    for ended, outcome in ((1000.0, "rejected"), (1010.0, "ok")):
        observer.call_ended(CallReport(texts=1, tokens=1, seconds=1.0, outcome=outcome, time=ended))
    observer.written(BatchReport(redis_keys=("doc:2",), texts=1, seconds=2.0, waited_seconds=2.0, time=1010.5))
    (batch,) = seen.named("embedqueue embed")
    (call,) = seen.named("embeddings")
    assert (call.end_time, call.attributes["embedqueue.outcome"]) == (1010 * 10**9, "ok")
    assert call.parent.span_id == batch.context.span_id


def test_what_is_not_sampled_leaves_nothing_in_redis(fake_redis):
    """No key is written for it, and whoever embeds it has no links."""
    quiet, seen = Recorded(sampler=ALWAYS_OFF), Recorded()
    producer = EmbeddingBatchQueue(FakeEmbedder(), fake_redis, worker=False, observers=[quiet.tracing])
    producer.enqueue("doc:1", "hello")
    assert fake_redis.keys("embed_queue:trace:*") == []
    eager_queue(redis=fake_redis, observers=[seen.tracing]).flush_now()
    (batch,) = seen.named("embedqueue embed")
    assert not batch.links
    producer.stop()


def test_an_enqueue_that_fails_is_a_failed_span():
    """Redis is gone: the span ends with an error, and the enqueue with redis-py's."""
    seen = Recorded()
    queue = eager_queue(redis=redis.Redis(unix_socket_path="/nonexistent/embedqueue.sock"), observers=[seen.tracing])
    with pytest.raises(redis.ConnectionError):
        queue.enqueue("doc:1", "hello")
    (span,) = seen.named("embedqueue enqueue")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ConnectionError")
    assert span.attributes["error.type"] == "ConnectionError"


def test_queues_have_their_own_contexts():
    """The namespace is part of the key and of every span."""
    client, seen = fakeredis.FakeRedis(server=fakeredis.FakeServer()), Recorded()
    for namespace in ("one", "two"):
        eager_queue(redis=client, namespace=namespace, observers=[seen.tracing]).enqueue("doc:1", "hello")
    assert [span.attributes["messaging.destination.name"] for span in seen.named("embedqueue embed")] == ["one", "two"]
