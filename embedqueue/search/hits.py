"""What a search finds, and how near it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A hash that was found.

    Attributes:
        redis_key: of the hash.
        score: how near its vector is to the query's; higher is nearer. With COSINE the cosine of the angle between them
            (1 is the same direction), with IP their inner product, with L2 ``1 / (1 + d)``, where d is the square of
            their Euclidean distance.
        fields: of the hash, by name: str, or bytes where a value is no UTF-8. Without the vector, unless it was asked
            for: it is bytes.
    """

    redis_key: str
    score: float
    fields: Mapping[str, str | bytes]


def score_of(metric: str, distance: float) -> float:
    """The score that a distance is.

    Args:
        metric: "COSINE", "IP" or "L2".
        distance: as Redis has it: of COSINE and IP 1 minus the product, of L2 the square.
    """
    return 1.0 / (1.0 + distance) if metric == "L2" else 1.0 - distance


def fields_of(pairs: Iterable[tuple[bytes, bytes]], *, raw: str) -> dict[str, str | bytes]:
    """The fields of a hit.

    Args:
        pairs: names and values.
        raw: the field of the vector, which stays bytes even if it happens to be UTF-8.
    """
    fields: dict[str, str | bytes] = {}
    for name, value in pairs:
        decoded = name.decode("utf-8", "replace")
        fields[decoded] = value if decoded == raw else _text(value)
    return fields


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
