"""Enqueues the texts of models whose hashes lack their vectors. May be stopped and started again at any time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

from django.apps import apps

from embedqueue.backlog.filler import DEFAULT_MAX_WAITING, Verified, to_fix, verified
from embedqueue.backlog.inspection import LOOK_ITEMS
from embedqueue.operating.spending import Spending
from embedqueue.settings.settings import SettingsError
from embedqueue.values.item import is_blank

from .access import queues
from .models import EmbeddedText


def backfill(
    labels: Sequence[str] = (),
    *,
    queue: str | None = None,
    using: str | None = None,
    max_waiting: int = DEFAULT_MAX_WAITING,
    everything: bool = False,
    relabel: bool = False,
    wait: bool = False,
    spending: Spending | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Enqueue instances of models with :class:`EmbeddedText` whose hash lacks the vector of their text.

    Args:
        labels: models as ``app.Model``; all if none is named.
        queue: only models of this queue, or None for all.
        using: alias of the database; None for the one that each model's manager takes.
        max_waiting: go on only while fewer items wait.
        everything: also those that have the vector of their text.
        relabel: also those that have a vector of the right length of which nothing says what it is of.
        wait: return when all of it is embedded, instead of leaving it to whichever worker comes.
        spending: asks before much is spent, as the command does; None: nobody is asked.
        say: prints a line.

    Returns:
        How many were enqueued.

    Raises:
        SettingsError: a label is not such a model.
    """
    kinds, count = None if everything else to_fix(relabel=relabel), 0
    for model in _models(labels, queue):
        found = verified(_look(model, using, kinds, max_waiting, spending)).fixed
        if found and wait:
            queues[model.embed_queue].flush()
        say(f"{model._meta.label}: {found}")
        count += found
    return count


def verify(labels: Sequence[str] = (), *, queue: str | None = None, using: str | None = None) -> Verified:
    """Look whether the hashes of instances have the vectors of their texts. Nothing is changed.

    Args:
        labels: models as ``app.Model``; all if none is named.
        queue: only models of this queue, or None for all.
        using: alias of the database; None for the one that each model's manager takes.

    Returns:
        How many there are of each kind, of all these models.

    Raises:
        SettingsError: a label is not such a model.
    """
    return verified(part for model in _models(labels, queue) for part in _look(model, using, ()))


def _models(labels: Sequence[str], queue: str | None) -> list[type[EmbeddedText]]:
    known = {model._meta.label_lower: model for model in apps.get_models() if issubclass(model, EmbeddedText)}
    unknown = [label for label in labels if label.lower() not in known]
    if unknown:
        raise SettingsError(f"{unknown[0]} is not a model with EmbeddedText; there are {', '.join(known) or 'none'}")
    if labels:
        chosen = [known[label.lower()] for label in labels]
    else:
        chosen = [model for model in known.values() if not model._meta.proxy]  # a proxy's rows are another model's
    return [model for model in chosen if queue is None or model.embed_queue == queue]


def _look(
    model: type[EmbeddedText],
    using: str | None,
    kinds: Collection[str] | None,
    max_waiting: int | None = None,
    spending: Spending | None = None,
) -> Iterator[tuple[int, Counter[str]]]:
    """As ``Filler.fill``, over the rows of a model; a blank text is left as it is."""
    instances = model._default_manager.using(using).order_by("pk").iterator(chunk_size=LOOK_ITEMS)
    texts = ((instance.embed_key(), instance.embed_text()) for instance in instances)
    queue = queues[model.embed_queue]
    before = None if spending is None else spending.before(queue)
    filler = queue._filler(kinds, max_waiting, full=lambda waiting: None, before=before)
    return filler.fill(text for text in texts if kinds == () or not is_blank(text[1]))
