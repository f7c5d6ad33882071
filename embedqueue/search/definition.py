"""What an index is: which hashes it is over, and which of their fields it holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.vectors import VectorType, index_type

ALGORITHMS = ("HNSW", "FLAT")
METRICS = ("COSINE", "L2", "IP")
FIELD_TYPES = ("TAG", "TEXT", "NUMERIC", "GEO", "GEOSHAPE")


@dataclass(frozen=True, kw_only=True)
class Definition:
    """An index over hashes.

    Attributes:
        prefixes: what the hashes' keys begin with; any of them.
        vector_field: the field of the vectors.
        algorithm: one of ``ALGORITHMS``, or what else Redis knows.
        data_type: of the vectors' numbers.
        dimensions: length of the vectors.
        metric: one of ``METRICS``.
        fields: the type of each other field, the first word of its schema.
        alias: by which queries name the vectors' field.
        schema: of each other field, all words; not compared.
        filter: an expression that a hash must satisfy to be in the index, or ""; not compared.
    """

    prefixes: frozenset[str]
    vector_field: str
    algorithm: str
    data_type: str
    dimensions: int
    metric: str
    fields: Mapping[str, str]
    alias: str = field(default="", compare=False)
    schema: Mapping[str, Sequence[str]] = field(default_factory=dict, compare=False)
    filter: str = field(default="", compare=False)

    def command(self, name: str) -> list[str | int]:
        """The command that creates the index."""
        words: list[str | int] = ["FT.CREATE", name, "ON", "HASH", "PREFIX", len(self.prefixes), *sorted(self.prefixes)]
        words += ["FILTER", self.filter] if self.filter else []
        words += ["SCHEMA", self.vector_field, "VECTOR", self.algorithm, 6, "TYPE", self.data_type]
        words += ["DIM", self.dimensions, "DISTANCE_METRIC", self.metric]
        for other, schema in self.schema.items():
            words += [other, *schema]
        return words

    def differences(self, there: Definition) -> str:
        """In what an index that is there differs from this one, in words; "" where it does not."""
        names = ("prefixes", "vector_field", "algorithm", "data_type", "dimensions", "metric", "fields")
        told = []
        for name in names:
            ours, theirs = getattr(self, name), getattr(there, name)
            if ours != theirs:
                told.append(f"its {name.replace('_', ' ')}: {_shown(theirs)}, not {_shown(ours)}")
        return "; ".join(told)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {kind}" for name, kind in sorted(value.items())) or "none"
    return ", ".join(map(repr, sorted(value))) if isinstance(value, frozenset) else str(value)


def define(
    prefix: str | Iterable[str],
    *,
    vector_field: str,
    dimensions: int,
    algorithm: str,
    distance: str,
    fields: Mapping[str, str | Sequence[str]],
    vector_type: VectorType = "float32",
) -> Definition:
    """Define an index, as users describe it.

    Args:
        prefix: one or more.
        vector_field: the field of the vectors.
        dimensions: length of the vectors.
        algorithm: in capitals or not, as ``distance``.
        distance: the metric.
        fields: other fields, and the type of each, or its whole schema in words.
        vector_type: what the vectors are written as.

    Raises:
        TypeError, ValueError: what cannot be.
    """
    prefixes = list(prefix) if isinstance(prefix, Iterable) and not isinstance(prefix, str) else [prefix]
    if not prefixes or not all(isinstance(one, str) and one for one in prefixes):
        raise ValueError("prefix must be what the keys of your hashes begin with, such as 'doc:', or several of those")
    schema: dict[str, tuple[str, ...]] = {}
    for name, given in fields.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"fields has the types of fields by their names, of which {name!r} is none")
        words = given.split() if isinstance(given, str) else given
        kind, *options = words if words and isinstance(words, Sequence) and not isinstance(words, bytes) else [given]
        if name == vector_field:
            raise ValueError(f"the field {name!r} holds the vectors, so it has no other type")
        schema[name] = (_one_of(f"fields[{name!r}]", kind, FIELD_TYPES), *map(str, options))
    return Definition(
        prefixes=frozenset(prefixes),
        vector_field=vector_field,
        algorithm=_one_of("algorithm", algorithm, ALGORITHMS),
        data_type=index_type(vector_type),
        dimensions=dimensions,
        metric=_one_of("distance", distance, METRICS),
        fields={name: words[0] for name, words in schema.items()},
        alias=vector_field,
        schema=schema,
    )


def _one_of(name: str, given: object, known: Sequence[str]) -> str:
    if isinstance(given, str) and given.upper() in known:
        return given.upper()
    raise ValueError(f"{name} must be one of {', '.join(known)}, not {given!r}")


def told(name: str, reply: Sequence[Any], vector_field: str) -> Definition:
    """The definition of an index that is there.

    Args:
        name: of the index.
        reply: what ``FT.INFO`` answers under RESP2.
        vector_field: the field of the queue's vectors.

    Raises:
        EmbedQueueError: the index holds no vectors of that field, or Redis does not tell how it measures them.
    """
    info = _pairs(reply)
    over = _pairs(info.get("index_definition", ()))
    attributes = [_pairs(attribute) for attribute in info.get("attributes", ())]
    ours = next(
        (one for one in attributes if (one.get("identifier"), one.get("type")) == (vector_field, "VECTOR")), None
    )
    if ours is None:
        raise EmbedQueueError(f"the index {name!r} holds no vectors of the field {vector_field!r}")
    metric = str(ours.get("distance_metric", "")).upper()
    if metric not in METRICS:
        raise EmbedQueueError(f"Redis does not tell which distance the index {name!r} has: take Redis 8")
    others = [one for one in attributes if one is not ours]
    return Definition(
        prefixes=frozenset(over.get("prefixes", ())),
        vector_field=vector_field,
        algorithm=str(ours.get("algorithm", "")).upper(),
        data_type=str(ours.get("data_type", "")).upper(),
        dimensions=int(ours.get("dim", 0)),
        metric=metric,
        fields={str(one["identifier"]): str(one["type"]) for one in others},
        alias=str(ours.get("attribute", vector_field)),
        schema={str(one["identifier"]): ("AS", str(one["attribute"]), str(one["type"])) for one in others},
        filter=str(over.get("filter", "")),
    )


def named(reply: Sequence[Any]) -> str:
    """The name of the index of which ``FT.INFO`` answers so; not that of an alias."""
    return str(_pairs(reply).get("index_name", ""))


def like(there: Definition, vector_field: str, dimensions: int, data_type: str) -> Definition:
    """The same over another field of vectors. Of other fields names and types stay: Redis does not tell all options.

    Raises:
        EmbedQueueError: it holds vectors of still another field, of which Redis does not tell enough.
    """
    vectors = [name for name, kind in there.fields.items() if kind == "VECTOR"]
    if vectors:
        raise EmbedQueueError(
            f"the index holds vectors of {vectors[0]!r} as well: create one like it over {vector_field!r} yourself, "
            "and it is taken"
        )
    new = {"vector_field": vector_field, "dimensions": dimensions, "data_type": data_type, "alias": vector_field}
    return replace(there, **new)  # type: ignore[arg-type]


def _pairs(reply: Sequence[Any]) -> dict[str, Any]:
    """A flat list of names and values as a dictionary, with text for bytes; what is behind a pair is left out."""
    plain = [_plain(part) for part in reply]
    return {name: value for name, value in zip(plain[::2], plain[1::2], strict=False) if isinstance(name, str)}


def _plain(part: Any) -> Any:
    if isinstance(part, list):
        return [_plain(one) for one in part]
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else part


def escaped(name: str) -> str:
    """A field's name as a query writes it."""
    return re.sub(r"(\W)", r"\\\1", name)
