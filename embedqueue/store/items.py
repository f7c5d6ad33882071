"""The live items of a queue, for people who look: some at a time, in order, or by a part of their keys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .keys import Keys
from .scripts import Scripts

#: Where an item stands: it waits, it is claimed, or it waits for its last delivery.
Place = Literal["pending", "inflight", "alone"]
PLACES: tuple[Place, ...] = get_args(Place)
#: Longest redis_key that a mark names; of longer ones it counts.
_MARK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the order of items, next to one of them: items come and go, and it stays.

    Attributes:
        way: "after" that item, or "before" it.
        score: of the item, as Redis writes it.
        redis_key: of the item; "" where it has none, or a long one, or one that nobody has adopted.
        skip: how many others of its score stood before it.
    """

    way: Literal["after", "before"]
    score: str
    redis_key: str = ""
    skip: int = 0


@dataclass(frozen=True, slots=True)
class LiveItem:
    """An item as people are shown it.

    Attributes:
        redis_key: its hash; "" where its member is not our JSON.
        place: where it stands.
        score: as Redis writes it: of one that waits, the time that orders it; of one in flight, the end of its lease.
        enqueued_at: Unix time at which it was enqueued, as far as that is known.
        deliveries: how often its lease has run out.
        worker: that has claimed it; "" where none has.
        size_bytes: of its member.
        text: the beginning of its text, or of the member that is not our JSON; "" where that was not asked for.
        ties: how many others of its score stand before it.
        adopted: whether the queue's books name it; another program has left what they do not.
    """

    redis_key: str
    place: Place
    score: str
    enqueued_at: float
    deliveries: int
    worker: str
    size_bytes: int
    text: str
    ties: int
    adopted: bool

    def mark(self, way: Literal["after", "before"]) -> Mark:
        """The place behind it, or before it."""
        known = self.adopted and len(self.redis_key.encode()) <= _MARK_BYTES
        return Mark(way, self.score, self.redis_key if known else "", self.ties + (way == "after"))


@dataclass(frozen=True, slots=True)
class ItemsPage:
    """Some items of one place.

    Attributes:
        now: Unix time, by the server's clock.
        total: items in this place.
        rank: of the first of these, counted from 0.
        items: fewer than were asked for at the end, or where they are long.
    """

    now: float
    total: int
    rank: int
    items: list[LiveItem]


@dataclass(frozen=True, slots=True)
class Found:
    """What one step of a search has found.

    Attributes:
        keys: redis_key and where it stands; "" where another program has taken it away.
        cursor: for the next step; "0" when all was looked at.
    """

    keys: dict[str, str]
    cursor: str


class Items:
    """Shows live items. Reads only. Thread-safe.

    Every method raises ``redis.RedisError`` where Redis does not answer or refuses.

    Args:
        scripts: of the queue.
        keys: of the queue.
    """

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._call = scripts.call
        self._keys = keys

    def page(self, place: Place, start: int | Mark = 0, limit: int = 25, text_bytes: int = 0) -> ItemsPage:
        """Some items of one place, in one round trip.

        Args:
            place: which.
            start: the rank of the first one, counted from 0; the last page where there are not so many. Or a mark that
                an item of another page has given.
            limit: how many at most.
            text_bytes: of the beginning of each text; 0 for no texts.
        """
        where: tuple[str | int, ...]
        if isinstance(start, Mark):
            where = (start.way, start.score, start.skip, start.redis_key)
        else:
            where = ("rank", start, 0, "")
        now, total, rank, *values = self._call("list_items", (), place, *where, limit, text_bytes)
        items = [_item(place, values[at : at + 8]) for at in range(0, len(values), 8)]
        return ItemsPage(float(now), total, rank, items)

    def find(self, words: str, *, dead: bool = False, cursor: str = "0", enough: int = 25) -> Found:
        """One step of a search for redis_keys that contain some words: a round trip that looks at 2,000 items.

        Args:
            words: as they stand in the key; nothing in them is a pattern.
            dead: look among the dead letters.
            cursor: "0", or what the step before has told.
            enough: the step ends with so many.
        """
        pattern = "*" + re.sub(r"([\\*?\[])", r"\\\1", words) + "*"
        further, *found = self._call("find_items", (), "dead" if dead else "live", cursor, pattern, enough)
        texts = [one.decode("utf-8", "surrogateescape") for one in found]
        return Found(dict(zip(texts[::2], texts[1::2], strict=True)), further.decode())


def _item(place: Place, values: list[Any]) -> LiveItem:
    score, size, key, since, claim, text, ties, adopted = values
    _, deliveries, owner = (*claim.split(b" "), b"", b"", b"")[:3]
    return LiveItem(
        redis_key=key.decode("utf-8", "replace"),
        place=place,
        score=score.decode(),
        enqueued_at=float(since),
        deliveries=int(deliveries) if deliveries.isdigit() else 0,
        worker=owner.partition(b":")[0].decode("utf-8", "replace"),
        size_bytes=size,
        text=text.decode("utf-8", "ignore"),
        ties=ties,
        adopted=bool(adopted),
    )
