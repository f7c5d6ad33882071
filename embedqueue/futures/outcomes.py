"""Finds out what became of items that somebody in this process waits for, if no call of its own tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from redis.exceptions import RedisError

from embedqueue.store.records import Asked, Terms
from embedqueue.store.store import Store
from embedqueue.values.errors import BatchFailed, ItemRejected, was_forgotten
from embedqueue.values.item import BLANK, FORGOTTEN, decode_member
from embedqueue.values.log import logger
from embedqueue.values.provenance import digest
from embedqueue.values.sink import ReadingSink, Sink
from embedqueue.values.vectors import to_bytes

from .demand import Waker
from .waiters import Waiters, Waiting

#: What is said of a process whose settings are not those of the workers.
DIFFERENT = (
    "another embedding_field, model, dimensions or vector_type than this process has; embedqueue space show tells which"
)


class Outcomes:
    """Asks Redis, and ends futures accordingly. Thread-safe.

    Args:
        store: Redis.
        waiters: the unfinished futures of this process.
        terms: returns on which terms this process writes: in which fields of the users' hashes, and in which space.
        zero: the vector of a blank text, as the bytes that would be stored; may ask a provider for its length.
        waker: told of items that somebody waits for and that nobody has claimed.
        works_at: whether an item of a key is in the hands of this process, which ends its futures then.
        sink: asked for what no hash has, where it can be read; else None.
    """

    def __init__(
        self,
        store: Store,
        waiters: Waiters,
        terms: Callable[[], Terms],
        zero: Callable[[], bytes],
        waker: Waker,
        works_at: Callable[[str], bool],
        sink: Sink | None = None,
    ) -> None:
        self._store = store
        self._waiters = waiters
        self._terms = terms
        self._zero = zero
        self._waker = waker
        self._works_at = works_at
        self._sink = sink if isinstance(sink, ReadingSink) else None

    def find_out(
        self,
        redis_keys: Iterable[str] | None,
        *,
        wanted: bool = False,
        blank_ms: int | None = None,
        done: bool = False,
    ) -> None:
        """Ask Redis what became of items, and end the futures of those that have ended.

        Args:
            redis_keys: of the items; None for all that have unfinished futures here.
            wanted: only items that somebody waits for in ``.result()``.
            blank_ms: when it was told that the newest text of the keys is blank, by Redis' clock, in milliseconds since
                1970; None where nobody has told that. It says nothing of a text that came later and is embedded.
            done: whether vectors of the keys are known to have just been written.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        urgent: list[str] = []  # released, or superseded by a text that nobody has asked for yet
        for part in self._waiters.slices(redis_keys, wanted=wanted):
            asked = [_asked(redis_key, entries) for redis_key, entries in part.items()]
            stamps = {entry: entry.stamp for entries in part.values() for entry in entries}
            found = self._look(asked)
            for (redis_key, entries), one, (word, value) in zip(part.items(), asked, found, strict=True):
                newer = word == "done" and blank_ms is not None and one.stamp // 1000 > blank_ms
                blank = blank_ms is not None and not newer
                outcome = self._outcome(redis_key, word, value, blank, done)
                if outcome is not None:
                    # But not for those who have enqueued the same text again since: what was asked is not of them.
                    self._waiters.resolve([e for e in entries if e.committed and e.stamp == stamps[e]], outcome)
                elif value in (b"pending", b"in a job") and any(entry.wanted for entry in entries):
                    urgent.append(redis_key)
        if urgent:
            self._waker.demanded(urgent)

    def _look(self, asked: Sequence[Asked]) -> list[tuple[str, bytes]]:
        """As ``Store.look``; what no hash has may stand in the sink."""
        found = self._store.look(asked, self._store.learned(self._terms()))
        gone = {one.redis_key: one for one, (word, _) in zip(asked, found, strict=True) if word == "gone"}
        if self._sink is None or not gone:
            return found
        try:
            rows = self._sink.read(list(gone))
        except Exception as error:  # it may be away: whoever looks after those who wait asks again
            logger.debug("embedqueue: the sink does not tell what it has: %s", error)
            return [("unknown", b"") if word == "gone" else (word, value) for word, value in found]
        vector_type = self._terms().vector_type
        written = {
            key: to_bytes(row.vector, vector_type)
            for key, row in rows.items()
            if row is not None and (row.stamp >= gone[key].stamp > 0 or row.digest == gone[key].digest != "")
        }
        return [
            ("done", written[one.redis_key]) if one.redis_key in written else answer
            for one, answer in zip(asked, found, strict=True)
        ]

    def _outcome(
        self, redis_key: str, word: str, value: bytes, blank: bool, done: bool
    ) -> bytes | BatchFailed | ItemRejected | None:
        """The end of a key's futures, by a word of ``store/lua/look.lua``; None if the item, or its call, is live."""
        if word == "dead":
            return ItemRejected(redis_key, value.decode("utf-8", "replace"))
        if word == "blank" or (blank and word != "live"):
            try:
                return self._zero()
            except RedisError:
                raise
            except Exception as error:  # an embedder's own, of any kind; others wait for what else is known
                return BatchFailed(f"{redis_key} is blank, and nobody knows how long its zero vector is: {error}")
        if word == "done" or (done and word == "unproven"):
            return value
        if word == "differs":
            return BatchFailed(f"{redis_key} was embedded by workers with {DIFFERENT}")
        if word == "forgotten":
            return was_forgotten(redis_key)
        if word in ("gone", "unproven"):
            if self._works_at(redis_key):  # asked after the look: it may be acknowledged, and its vector only here
                return None
            return ItemRejected(
                redis_key, "neither queued, nor dead, nor does its hash hold a vector that is known to be of it"
            )
        return None


def _asked(redis_key: str, entries: Sequence[Waiting]) -> Asked:
    """What to ask about a key. Its older texts end as its newest does."""
    newest = entries[-1]
    member = newest.member  # empty where the future has ended meanwhile: then the answer is for nobody
    no_text = member in (BLANK, FORGOTTEN)  # or the key is being forgotten just now
    return Asked(redis_key, newest.stamp, "" if no_text else digest(decode_member(member).text))
