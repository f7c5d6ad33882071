"""Looks at texts, part by part, and enqueues those whose hashes lack their vectors, while the queue has room."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from embedqueue.store.records import Filled, Terms, differing
from embedqueue.store.store import Store
from embedqueue.values.errors import EmbedQueueError, QueueFull
from embedqueue.values.item import checked_member, is_blank
from embedqueue.values.options import Options

from .inspection import FAULTS, LOOK_ITEMS, UNFIT, UNLABELLED, WAITING, Found, Text, inspect

#: Items that may wait at a time while a backlog is put in, unless told otherwise.
DEFAULT_MAX_WAITING = 5000
#: What there is to know of a text that was not looked at.
UNSEEN = Found("unseen", 0, 0, b"")
#: Seconds between two looks at a queue that is full enough.
FULL_POLL_SECONDS = 0.5
#: Seconds after which one is told that the queue is full and nobody works it.
FULL_TELL_SECONDS = 5.0


class Queue(Protocol):
    """What a filler needs of a queue."""

    @property
    def options(self) -> Options:
        """Its options."""

    def pending_count(self) -> int:
        """How many items wait."""

    def flush_now(self) -> None:
        """Start a drain."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a look at texts and the vectors in their hashes has found.

    Attributes:
        checked: texts that were looked at.
        missing: their hashes have no vector.
        other_text: the vector is of another text; where the text is blank, any is.
        other_space: the vector is of another model, another length or another role.
        unlabelled: the vector has the right length, and nothing says what it is of. That is no fault.
        malformed: the vector has another length, or what stands beside it is not what embedqueue writes.
        waiting: one of these faults, which will be put right, for the very text is queued already; or others have
            enqueued a newer one meanwhile.
        unfit: texts that cannot be enqueued (``max_text_chars``, half a surrogate pair): the log names their keys.
        fixed: texts that were enqueued, and blank ones whose vector was taken out.
    """

    checked: int
    missing: int
    other_text: int
    other_space: int
    unlabelled: int
    malformed: int
    waiting: int
    fixed: int
    unfit: int = 0

    @property
    def faults(self) -> int:
        """How many vectors are not as they should be, those that wait and unlabelled ones left aside."""
        return self.missing + self.other_text + self.other_space + self.malformed + self.unfit


def verified(parts: Iterable[tuple[int, Counter[str]]]) -> Verified:
    """Sum up what :meth:`Filler.fill` yields."""
    fixed, kinds = 0, Counter[str]()
    for count, some in parts:
        fixed += count
        kinds += some
    names = (*FAULTS, UNLABELLED, WAITING, UNFIT)
    return Verified(checked=kinds.total(), fixed=fixed, **{name: kinds[name] for name in names})


def to_fix(*, relabel: bool) -> Collection[str]:
    """Which kinds are put right: the faults, and with ``relabel`` what is unlabelled as well."""
    return (*FAULTS, UNLABELLED) if relabel else FAULTS


class Filler:
    """Enqueues texts, part by part, while the queue has room.

    Args:
        queue: it need not work.
        put: enqueues texts, each unless its key has got an item since that is newer than this stamp (None: each), and
            all with ``within``; returns what became of them.
        store: its Redis.
        terms: returns on which terms its workers write.
        kinds: of what ``inspection`` finds, those that are enqueued (blank texts have their vectors taken out instead);
            None: everything, without a look; but after a wait for room, not those of keys of which others have enqueued
            a text meanwhile.
        unfit: called with a text that cannot be enqueued, and why; it is left out.
        erase: takes the vector of a key away, unless its stamp is this one or a later one; returns whether it has none.
        max_waiting: go on only while fewer items wait; None for no such limit.
        within: seconds in which the texts are to be embedded; None: as any.
        full: called once with how many wait, when there was no room for some seconds. Without it, a full queue is an
            error.
        before: called with texts before they are enqueued, once with each; what it raises ends the filling.
        check: called before each part, and twice a second while there is no room; it may wait, and what it raises ends
            the filling.
    """

    def __init__(
        self,
        queue: Queue,
        put: Callable[[Sequence[Text], Sequence[int] | None, float | None], Iterable[Filled]],
        store: Store,
        terms: Callable[[], Terms],
        kinds: Collection[str] | None,
        *,
        unfit: Callable[[Text, ValueError], None],
        erase: Callable[[str, int], bool],
        max_waiting: int | None = None,
        within: float | None = None,
        full: Callable[[int], None] | None = None,
        before: Callable[[Sequence[Text]], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._before = before
        self._check = check or (lambda: None)
        self._queue = queue
        self._put = put
        self._store = store
        self._terms = terms
        self._kinds = kinds
        self._unfit = unfit
        self._erase = erase
        self._max_waiting = max_waiting
        self._within = within
        self._full = full
        self._full_seconds = 0.0
        self._began_stamp = 0
        self._own_stamps: list[int] = []  # first of each of our enqueues, and first behind it

    def fill(self, texts: Iterable[Text]) -> Iterator[tuple[int, Counter[str]]]:
        """Look, and enqueue. Safe to be stopped at any point, and to be started again.

        Yields:
            Of each part, how many were put right, and how many there were of each kind.

        A text that is older than the newest one of its key, by what was enqueued since this began, is left alone.
        But one case: the newer one has come since the look, some milliseconds, and is embedded already, and no hash
        tells of it that could be seen, as on a cluster, or without a ``provenance_field``.

        Raises:
            TypeError: no pair of strings; the parts before it are in.
            EmbedQueueError: what is wrong would stay so, for the workers of the namespace write otherwise.
            QueueFull: there is no room, and nobody was to be told; the parts before are in.
            NotReplicated: this part is in, and too few replicas had it in time; the parts before are in.
            redis.RedisError: Redis cannot be reached.
        """
        if self._kinds:
            self._meet_workers()
        self._began_stamp = self._store.hashes.last_stamp()
        source = iter(texts)
        at_once = min(LOOK_ITEMS, self._queue.options.max_pending or LOOK_ITEMS, self._max_waiting or LOOK_ITEMS)
        while part := list(islice(source, at_once)):
            self._check()
            count = len(part)
            most = self._queue.options.max_text_chars if self._kinds is None else None  # else it may be right as it is
            part = [text for text in part if self._is_fit(text, most)]
            found = [(text, UNSEEN) for text in part] if self._kinds is None else self._look(part)
            looked = [pair for pair in found if self._can_stay_or_go(*pair)]
            mine = self._mine(looked)
            blank = [] if self._kinds is None else [(text, one) for text, one in mine if is_blank(text[1])]
            done = self._enqueue([pair for pair in mine if pair not in blank])
            emptied, stay = self._empty(blank)
            done |= emptied
            left = [one.kind for text, one in looked if self._is_due(one) and not (text in done or text in stay)]
            counts = Counter(one.kind for _, one in looked) - Counter(left)
            counts += Counter({WAITING: len(left), UNFIT: count - len(looked)})
            yield sum(text in done for text, _ in mine), counts

    def _can_stay_or_go(self, text: Text, one: Found) -> bool:
        """False for what would be enqueued, and is too long for that."""
        due = one.kind in (self._kinds or FAULTS)
        return not due or is_blank(text[1]) or self._is_fit(text, self._queue.options.max_text_chars)

    def _is_fit(self, text: Text, max_chars: int | None) -> bool:
        """Whether the queue would take it. One that it would not holds up no other."""
        try:
            checked_member(*text, self._queue.options.namespace, max_chars)
        except ValueError as error:
            self._unfit(text, error)
            return False
        return True

    def _meet_workers(self) -> None:
        kept, ours = self._store.agreed(), self._terms().agreed
        differ = differing(kept, ours)
        if differ:
            raise EmbedQueueError(
                f"nothing is put right: the workers of the namespace write with another {', '.join(differ)} than this "
                "process has; embedqueue space show tells which"
            )

    def _look(self, texts: Sequence[Text]) -> list[tuple[Text, Found]]:
        found = inspect(self._store, texts, self._terms(), self._queue.options.sink)
        return list(zip(texts, found, strict=True))

    def _mine(self, looked: Iterable[tuple[Text, Found]]) -> list[tuple[Text, Found]]:
        """Those that are to be put right, but for keys of which others have enqueued a text since this began."""
        return [(text, one) for text, one in looked if self._is_due(one) and not self._by_others(one.newest)]

    def _is_due(self, found: Found) -> bool:
        return self._kinds is None or found.kind in self._kinds

    def _by_others(self, stamp: int) -> bool:
        own = bisect_right(self._own_stamps, stamp) % 2 == 1
        return stamp > self._began_stamp and not own

    def _empty(self, blank: Sequence[tuple[Text, Found]]) -> tuple[set[Text], set[Text]]:
        """Take vectors out where the text is blank, but no newer ones than we have seen.

        Returns which have none now, and which have one that is not by others, as where an older text waits.
        """
        emptied = {text for text, one in blank if self._erase(text[0], one.stamp + 1)}
        stay = [text for text, _ in blank if text not in emptied]
        return emptied, {text for text, _ in self._mine(self._look(stay))} if stay else set()

    def _enqueue(self, due: list[tuple[Text, Found]]) -> set[Text]:
        """Enqueue when there is room; after a wait, only what is still wrong. Returns which."""
        done: set[Text] = set()
        if due and self._before is not None:
            self._before([text for text, _ in due])  # it may ask somebody, and the answer may take long
            due = self._mine(self._look([text for text, _ in due]))
        while due:
            if self._max_waiting is None or self._queue.pending_count() <= self._max_waiting - len(due):
                try:
                    self._enqueue_now(due, done)
                    break
                except QueueFull:
                    if self._full is None:
                        raise
            self._rest()
            due = self._mine(self._look([text for text, _ in due if text not in done]))
        return done

    def _enqueue_now(self, due: Sequence[tuple[Text, Found]], done: set[Text]) -> None:
        newest = None if due[0][1] is UNSEEN else [one.newest for _, one in due]
        for filled in self._put([text for text, _ in due], newest, self._within):
            first, behind = (max([stamp, *self._own_stamps[-1:]]) for stamp in filled.stamps)
            self._own_stamps += [first, behind]  # one text of a key may come behind another, from the same source
            taken = set(filled.taken)
            done.update(text for text, _ in due if text[0] in taken)
        self._full_seconds = 0.0

    def _rest(self) -> None:
        self._check()
        self._queue.flush_now()
        time.sleep(FULL_POLL_SECONDS)
        self._full_seconds += FULL_POLL_SECONDS
        if self._full_seconds == FULL_TELL_SECONDS and self._full is not None:
            self._full(self._queue.pending_count())
