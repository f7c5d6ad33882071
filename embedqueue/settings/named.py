"""Objects that settings name by a path, such as ``"myapp.embedders.Mine"`` or ``"myapp.embedders:Mine"``."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from embedqueue.embedders import Embedder
from embedqueue.values.words import words_of

#: Options of the queue that are objects, and may be named.
FUNCTIONS = ("ON_BATCH", "ON_ERROR", "ON_DEAD")
OBSERVERS = "OBSERVERS"
#: Options of the queue that are one object.
OBJECTS = ("SINK",)


class NameFault(ValueError):
    """A path that leads nowhere, or to what cannot be used; to be read after the setting's name."""


def found(path: str) -> Any:
    """The object at a path.

    Args:
        path: ``module.name``, or ``module:name``, where the name may have dots.

    Raises:
        NameFault: there is none.
    """
    path = path.strip()
    module, mark, name = path.partition(":")
    if not mark:
        module, _, name = path.rpartition(".")
    if not (module and name and all(part.isidentifier() for part in [*module.split("."), *name.split(".")])):
        raise NameFault(f'must be a path such as "myapp.embedders.Mine", not {path!r}')
    try:
        value: Any = importlib.import_module(module)
    except Exception as error:
        why = f"{type(error).__name__}: {words_of(error)}"
    else:
        for part in name.split("."):
            value = getattr(value, part, _MISSING)
            if value is _MISSING:
                raise NameFault(f"names {path!r}, but {module} has no {name}")
        return value
    raise NameFault(f"names {path!r}, but {module} cannot be imported ({why})")


def made(value: Any) -> Any:
    """A class or a function is called without arguments; an object is taken as it is."""
    return value() if inspect.isclass(value) or inspect.isroutine(value) else value


def option(name: str, value: Any) -> Any:
    """A queue's option with what it names in the place of names; any other option as it stands.

    Args:
        name: in capitals.
        value: as the user gave it.

    Raises:
        NameFault: a path leads nowhere, or what stands there cannot be made.
    """
    if name in FUNCTIONS and isinstance(value, str):
        return None if value.strip().lower() in ("", "none") else found(value)
    if name in OBJECTS and isinstance(value, str):
        return None if value.strip().lower() in ("", "none") else _made_now(value)
    if name != OBSERVERS:
        return value
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        return value  # the queue says what is wrong with it
    return tuple(_made_now(one) for one in value)


def _made_now(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return made(found(value))
    except NameFault:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {words_of(error)}"
    raise NameFault(f"names {value.strip()!r}, which could not be made ({why})")


class OwnEmbedder:
    """An application's own embedder: found when settings are read, made once, at its first use.

    Args:
        given: a path, a class or function that is called without arguments, or the embedder itself.

    Raises:
        NameFault: a path leads nowhere.
    """

    def __init__(self, given: Any) -> None:
        self._value = found(given) if isinstance(given, str) else given
        self.name = given.strip() if isinstance(given, str) else _name(given)
        self._made: Embedder | None = None

    def __repr__(self) -> str:
        return self.name

    def get(self) -> Embedder:
        """The embedder.

        Raises:
            NameFault: it cannot be made, or is none.
        """
        if self._made is None:
            made_now = self._make()
            if not (callable(getattr(made_now, "embed_batch", None)) and _has_dimensions(made_now)):
                words = "which is no embedder: it must have dimensions and embed_batch(texts, model)"
                raise NameFault(f"names {self.name!r}, {words}")
            self._made = self._made or made_now  # two threads at once may both make one
        return self._made

    @property
    def default_model(self) -> str | None:
        """What it calls its model; None if it does not, or cannot be made here: ``get`` says so where it is needed."""
        try:
            model = getattr(self.get(), "default_model", None)
        except NameFault:
            return None
        return model if isinstance(model, str) else None

    def _make(self) -> Any:
        try:
            return made(self._value)
        except Exception as error:
            why = f"{type(error).__name__}: {words_of(error)}"
        raise NameFault(f"names {self.name!r}, which could not be made ({why})")


_MISSING = object()


def _name(value: Any) -> str:
    value = value if inspect.isclass(value) or inspect.isroutine(value) else type(value)
    return f"{value.__module__}.{value.__qualname__}"


def _has_dimensions(embedder: Any) -> bool:
    """Whether it has them; without asking, for that may load a model."""
    return inspect.getattr_static(embedder, "dimensions", _MISSING) is not _MISSING or hasattr(embedder, "dimensions")
