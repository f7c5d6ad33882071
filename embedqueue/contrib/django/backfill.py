"""Enqueues the texts of models that have no vector yet. May be stopped and started again at any time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from django.apps import apps

from embedqueue.operating.backlog import DEFAULT_MAX_WAITING, LOOK_ITEMS, Filler
from embedqueue.settings.settings import SettingsError

from .access import queues
from .models import EmbeddedText


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
    instances = model._default_manager.using(using).order_by("pk").iterator(chunk_size=LOOK_ITEMS)
    pairs = ((instance.embed_key(), instance.embed_text()) for instance in instances)
    filler = Filler(
        queues.settings(name), queues[name], queues.redis(name), everything=everything, max_waiting=max_waiting
    )
    return sum(taken for taken, _ in filler.fill(pair for pair in pairs if pair[1].strip()))
