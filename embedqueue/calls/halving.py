"""What becomes of a call's texts when the provider refuses some: halve, isolate, ask the canary, give up one text."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import tenacity

from embedqueue.values.errors import CallTooLarge, ConfigurationError, InputRejected, TransientError
from embedqueue.values.words import printable, words_of

from .batching import cut, split
from .caller import Caller
from .failures import Faulty, Partial, Unserved

#: Refusals of one errand after which the provider has to prove its health: a call, and both of its halves.
REFUSALS_BEFORE_CANARY = 3


class Halving:
    """Serves the texts of one call: in one request if all goes well, in parts where some are refused.

    Parts of a refused call are sent level by level: so both halves have spoken before either is cut again.

    Args:
        caller: makes the requests.
        probe: this call tests a provider that failed: one try decides.
        deliver: gets texts and their vectors (float32 bytes) as soon as they are there.
        refuse: gets a text that will never work, and why.
    """

    def __init__(
        self,
        caller: Caller,
        *,
        probe: bool,
        deliver: Callable[[Sequence[str], Sequence[bytes]], None],
        refuse: Callable[[str, str], None],
    ) -> None:
        self._caller = caller
        self._probe = probe
        self._deliver = deliver
        self._refuse = refuse
        self._limits = caller.limits
        self._parts: deque[tuple[Sequence[str], tenacity.BaseRetrying]] = deque()
        self._refusals = 0
        self._refused_mono = 0.0  # when the first refusal came
        self._blamed: str | None = None  # the text that the provider named last
        self._misled = False  # it was none of that text's fault
        self._suspects: list[tuple[str, BaseException]] = []
        self._suspected_mono = 0.0

    def serve(self, texts: Sequence[str]) -> None:
        """Embed texts.

        Args:
            texts: distinct and not blank.

        Raises:
            Unserved: the provider is at fault; texts neither delivered nor refused go back.
            Stopping: the queue stops.
        """
        self._parts.append((texts, self._caller.patient(self._probe)))
        while self._parts:
            part, policy = self._parts.popleft()
            now, *later = cut(part, self._limits)
            self._parts.extendleft((call, policy) for call in reversed(later))
            self._send(now, policy)
        # Judged at the end: mostly a neighbour has succeeded by then, and no canary is needed.
        if self._suspects:
            if not self._caller.healthy_since(self._suspected_mono):
                raise Unserved(self._suspects[0][1], texts)
            for text, error in self._suspects:
                self._refuse(text, _reason(error))
        self._caller.learn(self._limits)  # now that it is known whether it was the call's size, or one text's

    def _send(self, texts: Sequence[str], policy: tenacity.BaseRetrying) -> None:
        began_mono = time.monotonic()
        try:
            rows = self._caller.call(texts, policy)
        except Partial as error:
            self._part(texts, error)
        except InputRejected as error:
            self._refused(texts, error, policy)
        except TransientError as error:
            self._transient(texts, error, policy, began_mono)
        except ConfigurationError as error:
            raise Unserved(error, texts) from None
        else:
            self._misled |= texts == [self._blamed]
            self._deliver(texts, [row.tobytes() for row in rows])

    def _part(self, texts: Sequence[str], error: Partial) -> None:
        """Good rows are delivered; the texts of the others are sent again."""
        faulty = set(error.faulty)
        good = [i for i in range(len(texts)) if i not in faulty]
        self._deliver([texts[i] for i in good], [error.rows[i].tobytes() for i in good])
        self._parts.append(([texts[i] for i in error.faulty], self._caller.patient(False)))

    def _refused(self, texts: Sequence[str], error: InputRejected, policy: tenacity.BaseRetrying) -> None:
        self._refusals += 1
        if self._refusals == 1:
            self._refused_mono = time.monotonic()
        if self._refusals == REFUSALS_BEFORE_CANARY and not self._caller.healthy_since(self._refused_mono):
            raise Unserved(error, texts) from None  # it refuses everything: no use to cut on
        if len(texts) == 1:
            self._suspect(texts[0], error)
            if isinstance(error, CallTooLarge):  # its neighbours were not too many, and need not travel in small parts
                self._limits = self._caller.limits
        elif isinstance(error, CallTooLarge):
            self._limits = self._limits.learn(error, texts)
            self._parts.appendleft((texts, policy))  # to be cut
        else:
            culprit = None if self._misled else error.index
            self._blamed = texts[culprit] if culprit is not None and 0 <= culprit < len(texts) else None
            self._parts.extend((part, policy) for part in split(texts, culprit))

    def _transient(
        self, texts: Sequence[str], error: TransientError, policy: tenacity.BaseRetrying, began_mono: float
    ) -> None:
        once = self._caller.once()
        if isinstance(error, Faulty):  # the provider has told the texts apart: nothing to cut
            if policy is once:
                self._parts.append((texts, self._caller.patient(False)))
            else:
                for text in texts:
                    self._suspect(text, error)
            return
        # While a pause is being probed, a failure without a status may be a text's too: else it would block for ever.
        suspicious = error.suspect_input or (self._probe and error.status is None)
        if not suspicious or not self._caller.healthy_since(began_mono):
            raise Unserved(error, texts) from None
        if len(texts) > 1:
            self._parts.extend((part, once) for part in split(texts, None))
        elif policy is once:
            self._parts.append((texts, self._caller.patient(False)))  # before a text is blamed, every try it may have
        else:
            self._suspect(texts[0], error)

    def _suspect(self, text: str, error: BaseException) -> None:
        self._suspects.append((text, error))
        self._suspected_mono = time.monotonic()


def _reason(error: BaseException) -> str:
    """Why a text is given up: stored beside the text, which it may quote."""
    return printable(words_of(error)) or type(error).__name__
