"""What a hash has of its text: the right vector, another one, or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from embedqueue.store.hashes import Looked
from embedqueue.store.records import Terms
from embedqueue.store.store import Store
from embedqueue.values.item import encode_member, is_blank
from embedqueue.values.provenance import Provenance, digest, read_provenance
from embedqueue.values.sink import ReadingSink, Sink, SinkRow
from embedqueue.values.vectors import size_bytes

#: redis_key and text.
Text = tuple[str, str]

#: What is wrong: no vector; the vector of another text (any vector is, where the text is blank); one of another model,
#: length or role; one of another length, or beside which stands what nobody of ours writes.
FAULTS: Final = ("missing", "other_text", "other_space", "malformed")
#: A vector of the right length, of which nothing says what it is of.
UNLABELLED: Final = "unlabelled"
#: What is wrong will be put right, for this very text is queued.
WAITING: Final = "waiting"
RIGHT: Final = "right"
EVERYTHING: Final = (*FAULTS, UNLABELLED, WAITING, RIGHT)
#: No queue takes the text, or its key: it is too long, or no UTF-8.
UNFIT: Final = "unfit"

#: Hashes that are looked at in one round trip.
LOOK_ITEMS = 500


class Found(NamedTuple):
    """What a hash has of its text.

    Attributes:
        kind: one of the words above.
        stamp: of the item whose vector it has; 0 where that is not known.
        newest: stamp of the newest item of its key that is known, live or not, by the hash also where a sink has the
            vector; 0 where none is.
        line: the provenance by which it was judged, as it stands beside the vector; empty where none does.
    """

    kind: str
    stamp: int
    newest: int
    line: bytes


def inspect(store: Store, texts: Sequence[Text], terms: Terms, sink: Sink | None = None) -> list[Found]:
    """Look at the hashes of texts, in one round trip, and move no vectors; what a sink writes is looked for there.

    Args:
        store: Redis.
        texts: no more than ``LOOK_ITEMS``.
        terms: on which a worker would write.
        sink: of the queue; asked where it can be read.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    redis_keys = [redis_key for redis_key, _ in texts]
    if terms.dimensions is None:  # else every vector were of another space
        terms = terms.learned(store.agreed())
    looked = store.hashes.look(redis_keys, terms)
    if isinstance(sink, ReadingSink):
        rows = sink.read(redis_keys)
        looked = [
            _in_sink(one, rows[key], terms) if key in rows else one for key, one in zip(redis_keys, looked, strict=True)
        ]
    return [_found(text, found, terms) for text, found in zip(texts, looked, strict=True)]


def _in_sink(looked: Looked, row: SinkRow | None, terms: Terms) -> Looked:
    """The same with what a sink has in the place of what the hash has; but for the newest item that the hash knows."""
    size = 0 if row is None else size_bytes(len(row.vector), terms.vector_type)
    line = row.provenance.encode() if row is not None and row.digest else b""
    of = read_provenance(looked.provenance)
    newest = max(of.stamp if of else 0, looked.live_stamp)
    return looked._replace(vector_bytes=size, provenance=line, live_stamp=newest)


def _found(text: Text, looked: Looked, terms: Terms) -> Found:
    of = read_provenance(looked.provenance)
    kind = _kind(text[1], looked, of, terms)
    if kind in FAULTS and not is_blank(text[1]) and looked.live == encode_member(*text):
        kind = WAITING
    stamp = of.stamp if of else 0
    return Found(kind, stamp, max(stamp, looked.live_stamp), looked.provenance)


def _kind(text: str, looked: Looked, of: Provenance | None, terms: Terms) -> str:
    """What is wrong, whatever waits. ``of``: what its provenance says, if that is a line of ours."""
    if not looked.vector_bytes:
        return RIGHT if is_blank(text) else "missing"
    if is_blank(text):
        return "other_text"
    if of is not None and of.space != terms.space:
        return "other_space"
    right = terms.dimensions is None or looked.vector_bytes == size_bytes(terms.dimensions, terms.vector_type)
    if not right or (looked.provenance and of is None):
        return "malformed"
    if of is None:
        return UNLABELLED
    return RIGHT if of.digest == digest(text) else "other_text"


def hashes_with_text(store: Store, match: str, text_field: str) -> Iterator[Text]:
    """Keys of hashes that match a pattern, and their texts; the queue's own, and those without the field, are left out.

    A key or a text that is no UTF-8 is left out as well: it could not be enqueued.

    Args:
        store: Redis.
        match: a pattern as SCAN takes it.
        text_field: of the hashes.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    keys = store.hashes.matching(match)
    while part := list(islice(keys, LOOK_ITEMS)):
        for key, text in zip(part, store.hashes.fields(part, text_field), strict=True):
            if text is not None:
                try:
                    yield key.decode(), text.decode()
                except UnicodeDecodeError:
                    continue
