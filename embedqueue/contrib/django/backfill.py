"""Enqueues the texts of models that have no vector yet. May be stopped and started again at any time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice

from django.apps import apps

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.settings import SettingsError
from embedqueue.values.vectors import FLOAT32

from .access import queues
from .models import EmbeddedText

#: Instances that are looked at in one round trip.
BATCH = 500
#: Items that may wait at a time, unless told otherwise.
DEFAULT_MAX_WAITING = 5000
#: Seconds between two looks at a queue that is full enough.
POLL_SECONDS = 0.5


def backfill(
    labels: Sequence[str] = (),
    *,
    queue: str | None = None,
    using: str | None = None,
    max_waiting: int = DEFAULT_MAX_WAITING,
    everything: bool = False,
    wait: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Enqueue instances of models with :class:`EmbeddedText` whose hash has no vector, or one of other dimensions.

    Args:
        labels: models as ``app.Model``; all if none is named.
        queue: only models of this queue, or None for all.
        using: alias of the database; None for the one that each model's manager takes.
        max_waiting: go on only while fewer items wait.
        everything: also those that have a vector.
        wait: return when all of it is embedded, instead of leaving it to whichever worker comes.
        say: prints a line.

    Returns:
        How many were enqueued.

    Raises:
        SettingsError: a label is not such a model.
    """
    count = 0
    for model in _models(labels):
        if queue is None or model.embed_queue == queue:
            found = _backfill_model(model, using, max_waiting, everything)
            if found and wait:
                queues[model.embed_queue].flush()
            say(f"{model._meta.label}: {found}")
            count += found
    return count


def _models(labels: Sequence[str]) -> list[type[EmbeddedText]]:
    known = {model._meta.label_lower: model for model in apps.get_models() if issubclass(model, EmbeddedText)}
    unknown = [label for label in labels if label.lower() not in known]
    if unknown:
        raise SettingsError(f"{unknown[0]} is not a model with EmbeddedText; there are {', '.join(known) or 'none'}")
    if labels:
        return [known[label.lower()] for label in labels]
    return [model for model in known.values() if not model._meta.proxy]  # a proxy's rows are another model's


def _backfill_model(model: type[EmbeddedText], using: str | None, max_waiting: int, everything: bool) -> int:
    name = model.embed_queue
    queue, settings, client = queues[name], queues.settings(name), queues.redis(name)
    field, size = settings.option("embedding_field"), FLOAT32.itemsize * settings.dimensions
    count = 0
    instances = model._default_manager.using(using).order_by("pk").iterator(chunk_size=BATCH)
    while part := list(islice(instances, BATCH)):
        pipeline = client.pipeline(transaction=False)
        for instance in part:
            pipeline.hstrlen(instance.embed_key(), field)
        sizes = pipeline.execute(raise_on_error=False)  # a key of another type becomes a dead letter that says so
        pairs = [
            (instance.embed_key(), instance.embed_text())
            for instance, found in zip(part, sizes, strict=True)
            if everything or found != size
        ]
        pairs = [(redis_key, text) for redis_key, text in pairs if text.strip()]
        if pairs:
            _wait_for_room(queue, max_waiting)
            queue.enqueue_many(pairs)
            count += len(pairs)
    return count


def _wait_for_room(queue: EmbeddingBatchQueue, max_waiting: int) -> None:
    while queue.pending_count() >= max_waiting:
        queue.flush_now()
        time.sleep(POLL_SECONDS)
