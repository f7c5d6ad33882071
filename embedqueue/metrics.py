"""Prometheus metrics of queues (extra ``prometheus``).

::

    metrics = Metrics()                                     # on prometheus_client's own registry, or on yours
    queue = EmbeddingBatchQueue(..., observers=[metrics])

Counters and histograms are of this process, and are prometheus_client's own, so that its multiprocess mode adds them up
over gunicorn's workers. All of a queue stand at 0 from when it is made: what appears at its first event only, has risen
by nothing yet, and the first alert is missed. What waits, is in flight or is dead stands in Redis and is asked for at
each scrape; it is the same whichever process answers, so a dashboard takes the maximum of it over processes, and never
the sum.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any, get_args

import redis
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from redis.exceptions import RedisError

from .observers.history import ANSWERED
from .store.door import open_store
from .store.store import Store
from .values.errors import NotReplicated
from .values.observer import (
    BatchReport,
    CallReport,
    Observer,
    Outcome,
    RedisReport,
    ReleaseReport,
    SavedBy,
    SavingReport,
)
from .values.stats import DeadLetter

#: The variable that puts prometheus_client into its multiprocess mode.
MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_CALL_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_CALL_TEXTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
_WAIT_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 21600, 86400)
#: The values that a second label may have, by its name.
_VALUES = {
    "outcome": get_args(Outcome), "by": get_args(SavedBy), "counted": ("measured", "estimated"),
}  # fmt: skip


class _Families:
    """The counters and histograms on one registry, made once: a name may stand on it only once."""

    def __init__(self, registry: Any) -> None:
        self._made: list[tuple[Any, tuple[str, ...]]] = []  # each family with the labels that it has beside the queue

        def counter(name: str, words: str, *labels: str) -> Any:
            return made(Counter(f"embedqueue_{name}", words, ("queue", *labels), registry=registry), labels)

        def histogram(name: str, words: str, buckets: Sequence[float]) -> Any:
            return made(Histogram(f"embedqueue_{name}", words, ("queue",), registry=registry, buckets=buckets), ())

        def made(family: Any, labels: tuple[str, ...]) -> Any:
            self._made.append((family, labels))
            return family

        self.enqueued = counter("enqueued", "Items accepted.")
        self.not_enqueued = counter("not_enqueued", "Items refused: the queue was full, or Redis failed.")
        self.not_replicated = counter("not_replicated", "Items accepted that min_replicas did not have in time.")
        self.embedded = counter("embedded", "Items whose vector was written.")
        self.truncated = counter(
            "truncated", "Embedded items of which only a beginning was sent: their text is too long."
        )
        self.retried = counter("retried", "Items released because the provider failed.")
        self.rejected = counter("rejected", "Items that became dead letters.")
        self.calls = counter("api_calls", "API calls that came back, by outcome.", "outcome")
        self.texts = counter("texts_sent", "Texts in API calls, those that failed included.")
        self.texts_unanswered = counter(
            "texts_unanswered", "Texts in API calls that failed after they were sent: they may be charged."
        )
        self.tokens = counter("tokens_sent", "Estimated tokens in API calls, those that failed included.")
        self.tokens_used = counter(
            "tokens_used", "Tokens that are paid for: counted by the provider, or else estimated.", "counted"
        )
        self.texts_saved = counter("texts_saved", "Texts that need not be sent.", "by")
        self.tokens_saved = counter("tokens_saved", "Estimated tokens that need not be sent.", "by")
        self.leases = counter("leases_expired", "Claims whose worker died or lost Redis.")
        self.redis_errors = counter("redis_errors", "Commands that Redis did not answer, or refused.")
        self.call_seconds = histogram("api_call_seconds", "Seconds of API calls.", _CALL_SECONDS)
        self.call_texts = histogram("api_call_texts", "Texts in API calls.", _CALL_TEXTS)
        self.wait_seconds = histogram(
            "wait_seconds", "Seconds from enqueue to written vector, of the oldest item of a claim.", _WAIT_SECONDS
        )

    def begin(self, queue: str) -> None:
        """Let every series of a queue stand at 0, unless it stands already."""
        for family, labels in self._made:
            for values in product(*(_VALUES[label] for label in labels)):
                family.labels(queue, *values)


class QueueCollector:
    """What of queues stands in Redis, asked for at each scrape. :class:`Metrics` registers it.

    Where Redis does not answer, ``embedqueue_up`` is 0 and the other gauges are missing, and the scrape goes on.
    """

    def __init__(self) -> None:
        self._stores: dict[str, Store] = {}  # by namespace; one operation on it at a time, so it needs no lock

    def add(self, namespace: str, client: redis.Redis | redis.RedisCluster) -> None:
        """Look at this queue as well.

        Args:
            namespace: of the queue.
            client: of its Redis; it is neither changed nor used itself.
        """
        if namespace not in self._stores:
            self._stores[namespace] = open_store(client, namespace)

    def describe(self) -> Iterable[Any]:
        """The names, so that nothing is asked for when this is registered."""
        return self._families()

    def collect(self) -> Iterator[Any]:
        """The gauges."""
        up, waiting, in_flight, dead, oldest, due, paused, spent, workers, outsourced = families = self._families()
        for namespace, store in list(self._stores.items()):
            try:
                status = store.status(workers=True, budget=True)
            except RedisError:
                up.add_metric([namespace], 0)
                continue
            up.add_metric([namespace], 1)
            waiting.add_metric([namespace], status.waiting)
            in_flight.add_metric([namespace], status.in_flight)
            outsourced.add_metric([namespace], status.outsourced)
            dead.add_metric([namespace], status.dead)
            oldest.add_metric([namespace], status.oldest_age_seconds or 0.0)
            due.add_metric([namespace], max(0.0, status.score_age_seconds or 0.0))
            paused.add_metric([namespace], status.pause_seconds or 0.0)
            if status.workers is not None:
                workers.add_metric([namespace], status.workers)
            if status.budget is not None and status.budget.known:
                spent.add_metric([namespace, "day"], status.budget.day)
                spent.add_metric([namespace, "month"], status.budget.month)
        yield from families

    @staticmethod
    def _families() -> list[Any]:
        return [
            GaugeMetricFamily(f"embedqueue_{name}", words, labels=["queue", *labels])
            for name, words, *labels in (
                ("up", "1 if Redis answers."),
                ("waiting", "Items that wait."),
                ("in_flight", "Items that a worker has claimed."),
                ("dead", "Dead letters."),
                ("oldest_age_seconds", "Age of the item that is due before all others; 0 if none waits."),
                (
                    "due_age_seconds",
                    "The same, less by what it may wait longer than others, or more.",
                ),
                ("paused_seconds", "For how long nobody claims, because the provider failed; 0 if there is no pause."),
                (
                    "budget_spent_dollars",
                    "Spent of the budget on this day or in this month, of UTC; none without a budget.",
                    "period",
                ),
                ("workers", "Workers that were heard of within the last minute."),
                ("outsourced", "Items that are in the provider's batch jobs."),
            )
        ]


_lock = threading.Lock()
_known: weakref.WeakKeyDictionary[Any, tuple[_Families, QueueCollector]] = weakref.WeakKeyDictionary()  # by registry


class Metrics(Observer):
    """Counts what queues do. One object serves several queues; each has its namespace for the label ``queue``.

    Args:
        registry: where the metrics stand; prometheus_client's own by default.
    """

    def __init__(self, registry: Any = None) -> None:
        self.registry = REGISTRY if registry is None else registry
        with _lock:
            found = _known.get(self.registry)
            if found is None:
                found = _known[self.registry] = _Families(self.registry), QueueCollector()
                self.registry.register(found[1])
        self._families, self.collector = found

    def bind(self, namespace: str, client: redis.Redis | redis.RedisCluster) -> Observer:
        """An observer for this queue."""
        self.collector.add(namespace, client)
        return _QueueMetrics(self._families, namespace)

    def multiprocess_registry(self) -> Any:
        """A registry for one scrape in multiprocess mode: the sums of all processes' counters, and the gauges."""
        registry: Any = CollectorRegistry()
        collect_files: Any = MultiProcessCollector  # it has no annotations
        collect_files(registry)
        registry.register(self.collector)
        return registry

    def exposition(self) -> tuple[str, bytes]:
        """Content type and body of an answer to a scrape, also in multiprocess mode."""
        registry = self.multiprocess_registry() if MULTIPROCESS_VARIABLE in os.environ else self.registry
        return str(CONTENT_TYPE_LATEST), bytes(generate_latest(registry))


class _QueueMetrics(Observer):
    """The metrics of one queue."""

    def __init__(self, families: _Families, queue: str) -> None:
        self._families = families
        self._queue = queue
        families.begin(queue)
        self._enqueued = families.enqueued.labels(queue)  # what is used for each enqueue is looked up once

    def enqueued(self, redis_keys: Sequence[str]) -> None:
        self._enqueued.inc(len(redis_keys))

    def not_enqueued(self, redis_keys: Sequence[str], error: BaseException) -> None:
        if isinstance(error, NotReplicated):  # it is queued all the same
            self._enqueued.inc(len(redis_keys))
            self._families.not_replicated.labels(self._queue).inc(len(redis_keys))
        else:
            self._families.not_enqueued.labels(self._queue).inc(len(redis_keys))

    def call_ended(self, report: CallReport) -> None:
        families, queue = self._families, self._queue
        families.calls.labels(queue, report.outcome).inc()
        families.texts.labels(queue).inc(report.texts)
        families.tokens.labels(queue).inc(report.tokens)
        families.texts_unanswered.labels(queue).inc(report.texts if report.maybe_paid else 0)
        if report.used_tokens is not None:
            families.tokens_used.labels(queue, "measured").inc(report.used_tokens)
        elif report.outcome in ANSWERED:
            families.tokens_used.labels(queue, "estimated").inc(report.tokens)
        families.call_seconds.labels(queue).observe(report.seconds)
        families.call_texts.labels(queue).observe(report.texts)

    def job_ended(self, report: CallReport) -> None:
        counted = "estimated" if report.used_tokens is None else "measured"
        tokens = report.tokens if report.used_tokens is None else report.used_tokens
        self._families.tokens_used.labels(self._queue, counted).inc(tokens)

    def written(self, report: BatchReport) -> None:
        self._families.embedded.labels(self._queue).inc(report.items)
        self._families.truncated.labels(self._queue).inc(report.truncated)
        self._families.wait_seconds.labels(self._queue).observe(report.waited_seconds)

    def saved(self, report: SavingReport) -> None:
        self._families.texts_saved.labels(self._queue, report.by).inc(report.texts)
        self._families.tokens_saved.labels(self._queue, report.by).inc(report.tokens)

    def released(self, report: ReleaseReport) -> None:
        self._families.retried.labels(self._queue).inc(len(report.redis_keys))

    def died(self, letter: DeadLetter) -> None:
        self._families.rejected.labels(self._queue).inc()

    def leases_ended(self, count: int) -> None:
        self._families.leases.labels(self._queue).inc(count)

    def redis_failed(self, report: RedisReport) -> None:
        self._families.redis_errors.labels(self._queue).inc()
