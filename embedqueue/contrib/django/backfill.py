"""The texts of models with ``EmbeddedText``, for the commands that look at them and enqueue them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from django.apps import apps

from embedqueue.backlog.inspection import LOOK_ITEMS, Text
from embedqueue.cli.context import Table
from embedqueue.cli.project import ProjectSource
from embedqueue.settings.settings import SettingsError

from .models import EmbeddedText


def tables(source: ProjectSource, labels: Sequence[str], database: str | None) -> list[Table]:
    """The models that a command is to look at.

    Args:
        source: of the command; where it names a queue, only models of that one are meant.
        labels: models as ``app.Model``; all if none is named.
        database: alias; None for the one that each model's manager takes.

    Raises:
        SettingsError: a label is not such a model.
    """
    known = {model._meta.label_lower: model for model in apps.get_models() if issubclass(model, EmbeddedText)}
    unknown = [label for label in labels if label.lower() not in known]
    if unknown:
        raise SettingsError(f"{unknown[0]} is not a model with EmbeddedText; there are {', '.join(known) or 'none'}")
    if labels:
        chosen = [known[label.lower()] for label in labels]
    else:
        chosen = [model for model in known.values() if not model._meta.proxy]  # a proxy's rows are another model's
    return [
        Table(
            model._meta.label,
            source.of(model.embed_queue),
            partial(_texts, model, database),
            _rows(model, database).count,
        )
        for model in chosen
        if not source.names or model.embed_queue in source.names
    ]


def _rows(model: type[EmbeddedText], database: str | None) -> Any:
    return model._default_manager.using(database)


def _texts(model: type[EmbeddedText], database: str | None) -> Iterator[Text]:
    for instance in _rows(model, database).order_by("pk").iterator(chunk_size=LOOK_ITEMS):
        yield instance.embed_key(), instance.embed_text()
