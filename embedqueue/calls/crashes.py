"""Which text takes its server down, where that is away for longer than a call can wait."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence

#: How often a server has to go away when it is sent a text alone, each time right after it has served another one.
TIMES_ALONE = 3
#: The same, at most, where text after text is given up and none is served.
MOST_TIMES_ALONE = 24
#: Seconds after which what happened says nothing any more.
FORGET_SECONDS = 3600.0


class Crashes:
    """What calls of this process have met a server that went away, and was not back soon. Thread-safe.

    Once may be a restart. Where it has served since, and goes away again, something may take it down, and one searches:
    probes hold one text, and calls become smaller. A text is to blame only for what happened in probes, for no other
    call of the queue begins then.
    """

    def __init__(self) -> None:
        self._last_mono: float | None = None
        self._searching = False
        self._alone: Counter[str] = Counter()  # by text, how often it was alone; guarded by the lock, as is all here
        self._given_up: set[str] = set()
        self._needed = TIMES_ALONE
        self._lock = threading.Lock()

    @property
    def any(self) -> bool:
        """Whether there were some of late."""
        with self._lock:
            self._forget_what_is_old()
            return self._last_mono is not None

    @property
    def searching(self) -> bool:
        """Whether the server had served in between."""
        with self._lock:
            self._forget_what_is_old()
            return self._searching

    def forget(self) -> None:
        """Nothing seems to take the server down: it is there."""
        with self._lock:
            self._forget()

    def _forget_what_is_old(self) -> None:
        if self._last_mono is not None and time.monotonic() - self._last_mono > FORGET_SECONDS:
            self._forget()

    def _forget(self) -> None:
        self._last_mono, self._searching, self._needed = None, False, TIMES_ALONE
        self._alone.clear()
        self._given_up.clear()

    def note(self, texts: Sequence[str], *, served_mono: float, well: bool) -> bool:
        """A call of these texts met it.

        Args:
            texts: of the call.
            served_mono: when the server served anything the last time, the canary included.
            well: whether it is known to have been well just before, and no other call was sent since.

        Returns:
            Whether it had served since the time before.
        """
        with self._lock:
            self._forget_what_is_old()
            again = self._last_mono is not None and served_mono > self._last_mono
            if again and well and len(texts) == 1:
                self._alone[texts[0]] += 1
            self._searching |= again
            self._last_mono = time.monotonic()
            return again

    def is_to_blame(self, text: str) -> bool:
        """Whether it was alone often enough. Health must have been shown after the last time."""
        with self._lock:
            return self._alone[text] >= (TIMES_ALONE if text in self._given_up else self._needed)

    def given_up(self, text: str) -> None:
        """This text was. Where it comes again, one time is enough.

        Another one has to be alone twice as often, until some text is served: what serves nothing but the canary must
        not empty the queue.
        """
        with self._lock:
            self._alone[text] = TIMES_ALONE - 1
            if text not in self._given_up:
                self._given_up.add(text)
                self._needed = min(2 * self._needed, MOST_TIMES_ALONE)

    def served(self, texts: Sequence[str]) -> None:
        """None of these texts is to blame."""
        if self._last_mono is None:
            return
        with self._lock:
            self._needed = TIMES_ALONE
            for text in texts:
                self._alone.pop(text, None)
                self._given_up.discard(text)
