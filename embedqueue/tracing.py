"""OpenTelemetry traces (extra ``otel``): from an enqueue to the written vector, across processes.

::

    queue = EmbeddingBatchQueue(..., observers=[Tracing()])     # in the processes that enqueue, and in those that work

A member of the queue has no room for a trace, so the trace context of an item travels beside it, in a key of its own
with an expiry, ``embed_queue:trace:REDIS_KEY``. It is written only for what is sampled, and goes with the item.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import redis
from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .store.clients import private_client
from .store.door import near
from .values.observer import BatchReport, CallReport, Observer, ReleaseReport
from .values.stats import DeadLetter

#: Seconds by which a call may seem older than its batch: both are reckoned back from when they were told.
SAME_SECONDS = 0.05
#: Seconds for which the trace context of an item is kept at most.
CONTEXT_SECONDS = 86_400
#: Distinct enqueues that one batch is linked with at most: OpenTelemetry's own limit of links.
MOST_LINKS = 128
#: Seconds that Redis may take for a trace context; no trace is worth more.
REDIS_SECONDS = 1.0

_propagator = TraceContextTextMapPropagator()


class Tracing(Observer):
    """Makes spans. One object serves several queues.

    Args:
        tracer_provider: where spans go; OpenTelemetry's own setting by default.
    """

    def __init__(self, tracer_provider: Any = None) -> None:
        self._provider = tracer_provider

    def bind(self, namespace: str, client: redis.Redis | redis.RedisCluster) -> Observer:
        """An observer for this queue."""
        return _QueueTracing(trace.get_tracer("embedqueue", tracer_provider=self._provider), namespace, client)


class _OfThread(threading.local):
    """What a thread has begun and not ended."""

    def __init__(self) -> None:
        self.enqueues: list[Any] = []  # spans, the innermost last
        self.calls: list[CallReport] = []


class _QueueTracing(Observer):
    """Traces of one queue.

    Args:
        tracer: makes the spans.
        namespace: of the queue.
        client: the user's; connections of our own are made with its settings.
    """

    def __init__(self, tracer: Any, namespace: str, client: redis.Redis | redis.RedisCluster) -> None:
        self._tracer = tracer
        beside, name, _ = near(client, namespace)
        self._prefix = f"{name}:trace:"
        self._about = {"messaging.system": "embedqueue", "messaging.destination.name": namespace}
        self._redis: Any = private_client(beside, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS)
        self._of_thread = _OfThread()

    # -- enqueuing ---------------------------------------------------------------------------------------------

    def enqueuing(self, redis_keys: Sequence[str]) -> None:
        """The context is written first: a worker may claim the item the moment it is in."""
        span = self._tracer.start_span(
            "embedqueue enqueue",
            kind=SpanKind.PRODUCER,
            attributes={
                **self._about,
                "messaging.operation.type": "send",
                "messaging.batch.message_count": len(redis_keys),
            },
        )
        self._of_thread.enqueues.append(span)
        if span.get_span_context().trace_flags.sampled:
            carrier: dict[str, str] = {}
            _propagator.inject(carrier, trace.set_span_in_context(span))
            pipeline = self._redis.pipeline(transaction=False)
            for redis_key in redis_keys:
                pipeline.set(self._prefix + redis_key, carrier["traceparent"], ex=CONTEXT_SECONDS)
            pipeline.execute()

    def enqueued(self, redis_keys: Sequence[str]) -> None:
        self._of_thread.enqueues.pop().end()

    def not_enqueued(self, redis_keys: Sequence[str], error: BaseException) -> None:
        span = self._of_thread.enqueues.pop()
        _fail(span, type(error).__name__, type(error).__name__)
        span.end()

    # -- working -----------------------------------------------------------------------------------------------

    def call_ended(self, report: CallReport) -> None:
        """It belongs to what this thread will tell of next."""
        self._of_thread.calls.append(report)

    def written(self, report: BatchReport) -> None:
        """A span for the batch with its calls, and one in the trace of each enqueue that it does not belong to."""
        began = report.time - report.seconds
        contexts = self._contexts(report.redis_keys, keep=False)
        attributes = {"messaging.batch.message_count": report.items, "embedqueue.texts": report.texts}
        batch = self._batch(contexts, began, attributes)
        self._end_calls(batch, began)
        batch.end(_ns(report.time))
        self._in_each_trace("embedqueue written", batch, contexts, began, report.time)

    def released(self, report: ReleaseReport) -> None:
        """The contexts stay: the items will be tried again."""
        contexts = self._contexts(report.redis_keys, keep=True)
        calls = list(self._of_thread.calls)
        began = min((call.time - call.seconds for call in calls), default=report.time)
        attributes = {"messaging.batch.message_count": len(report.redis_keys)}
        batch = self._batch(contexts, began, attributes)
        self._end_calls(batch, began)
        _fail(
            batch,
            next((_error_type(call) for call in reversed(calls) if call.outcome != "ok"), "_OTHER"),
            report.reason,
        )
        batch.end(_ns(report.time))

    def died(self, letter: DeadLetter) -> None:
        """Why it died stays out: a provider's words may quote the text."""
        for context in self._contexts([letter.redis_key], keep=False):
            span = self._tracer.start_span(
                "embedqueue dead letter", trace.set_span_in_context(context), SpanKind.CONSUMER, self._about
            )
            _fail(span, "dead_letter", "dead letter")
            span.end()

    # -- parts -------------------------------------------------------------------------------------------------

    def _contexts(self, redis_keys: Iterable[str], *, keep: bool) -> list[Any]:
        """The distinct spans by which items were enqueued, as spans that others may descend from."""
        keys = [self._prefix + redis_key for redis_key in redis_keys]
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.mget(keys)
        if not keep:
            pipeline.delete(*keys)
        parents = {value.decode() for value in pipeline.execute()[0] if value}
        found = (_propagator.extract({"traceparent": parent}) for parent in sorted(parents)[:MOST_LINKS])
        return [trace.get_current_span(context) for context in found]

    def _batch(self, contexts: Sequence[Any], began: float, attributes: dict[str, Any]) -> Any:
        """A span that goes on with the trace of its items if they are all of one, and is linked with each of them."""
        links = [Link(context.get_span_context()) for context in contexts]
        of_one = len({link.context.trace_id for link in links}) == 1
        return self._tracer.start_span(
            "embedqueue embed",
            trace.set_span_in_context(contexts[0]) if of_one else trace.set_span_in_context(trace.INVALID_SPAN),
            SpanKind.CONSUMER,
            {**self._about, "messaging.operation.type": "process", **attributes},
            links,
            _ns(began),
        )

    def _end_calls(self, batch: Any, began: float) -> None:
        """A span for each call of this thread since then; what is older led to nothing that was told."""
        calls, self._of_thread.calls = self._of_thread.calls, []
        for call in calls:
            start = call.time - call.seconds
            if start >= began - SAME_SECONDS:
                start = max(start, began)
                span = self._tracer.start_span(
                    "embeddings",
                    trace.set_span_in_context(batch),
                    SpanKind.CLIENT,
                    _about_call(call),
                    start_time=_ns(start),
                )
                if call.outcome != "ok":
                    _fail(span, _error_type(call), call.error)
                span.end(_ns(call.time))

    def _in_each_trace(self, name: str, batch: Any, contexts: Sequence[Any], began: float, ended: float) -> None:
        """Whoever looks at the trace of an enqueue finds there when its vector was written, and by which batch."""
        link = Link(batch.get_span_context())
        for context in contexts:
            if context.get_span_context().trace_id != batch.get_span_context().trace_id:
                span = self._tracer.start_span(
                    name, trace.set_span_in_context(context), SpanKind.CONSUMER, self._about, [link], _ns(began)
                )
                span.end(_ns(ended))


def _about_call(call: CallReport) -> dict[str, Any]:
    """By OpenTelemetry's semantic conventions for spans of generative AI; what is not known is left out."""
    host, port = call.server or (None, None)
    attributes = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": call.provider or None,
        "gen_ai.request.model": call.model or None,
        "gen_ai.usage.input_tokens": call.tokens if call.used_tokens is None else call.used_tokens,
        "server.address": host,
        "server.port": port,
        "embedqueue.texts": call.texts,
        "embedqueue.outcome": call.outcome,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _error_type(call: CallReport) -> str:
    """The HTTP status, or "timeout" or "connection", or the outcome: a few words that one can group by."""
    return call.cause or call.outcome if call.status is None else str(call.status)


def _fail(span: Any, kind: str, words: str | None) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, words))


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
