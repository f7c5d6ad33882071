"""Decides what becomes of a call's texts when the provider refuses some.

A refused call is halved until the bad text stands alone. That text is given up only if the provider has shown since
then that it can serve another one: a neighbour, or else the canary. If it cannot, the provider is at fault.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import tenacity

from embedqueue.values.errors import CallTooLarge, ConfigurationError, InputRejected, TransientError
from embedqueue.values.words import printable, words_of

from .batching import cut, split
from .caller import Caller, is_down, took_down
from .failures import Faulty, OverLimits, Partial, Unserved
from .retry import LONGEST_WAIT_SECONDS

#: How often a text alone has to fail in all its tries while others are served, if it fails as by a server that is busy
#: or away: that may be chance.
ROUNDS = 3
BUSY_STATUSES = frozenset({502, 503, 504, 529})
#: Somebody before the provider did not wait for it any longer: it may be too slow for so many texts.
TOO_SLOW_STATUSES = frozenset({408, 499})
#: Bytes of a call that are not many. A limit of bytes that is learned stays; one of texts is tried again.
SMALL_BYTES = 100_000
#: How often the canary has to be served before a text may be blamed for a server that goes away then.
CANARIES_IN_A_ROW = 3
#: Refusals after which the provider has to show that it is healthy: of the whole call, and of both of its halves.
REFUSALS_BEFORE_CANARY = 3


class Halving:
    """Serves the texts of one call: in one request if all goes well, else in parts. For one thread, and one call.

    Parts of a refused call are sent level by level: both halves are sent before either is cut again.

    Args:
        caller: makes the requests.
        probe: whether this call tests a provider that failed; it has one try then.
        deliver: called with texts and their vectors, each as the bytes that are stored, as soon as they come.
        refuse: called with a text that will never work, and the reason, which may quote it.
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
        self._began = self._limits = caller.limits
        self._proven = self._began.texts  # of the limits under which a part was served
        self._well = False  # whether the provider was seen to serve since this call began
        self._was_well = False  # whether it was seen to right before, more than once
        # Texts of the largest call that failed for no known reason, and of the largest part that was served since.
        self._failed = self._served = 0
        self._parts: deque[tuple[Sequence[str], tenacity.BaseRetrying]] = deque()  # still to be sent, and how
        self._refusals = 0
        self._refused_mono = 0.0  # when the first one came
        self._blamed: str | None = None  # the text that the provider named last
        self._misled = False  # whether the provider has served that text alone: it is not believed again
        self._suspects: list[tuple[str, BaseException]] = []  # texts to give up, and why
        self._suspected_mono = 0.0  # when the last one was found
        self._rounds: Counter[str] = Counter()  # how often a text alone has failed in all its tries

    def serve(self, texts: Sequence[str]) -> None:
        """Embed texts: each is delivered or refused, unless an error comes.

        Args:
            texts: distinct and not blank.

        Raises:
            Unserved: the provider is at fault; release the texts that were neither delivered nor refused.
            Stopping: the queue stops.
        """
        self._parts.append((texts, self._caller.patient(self._probe)))
        try:
            if self._probe and self._caller.crashes.any:
                self._meet_server(texts)
            while self._parts:
                part, policy = self._parts.popleft()
                now, *later = cut(part, self._limits)
                self._parts.extendleft((call, policy) for call in reversed(later))
                self._send(now, policy)
            # Suspects are judged at the end: by then a neighbour has mostly been served, and no canary is needed.
            if self._suspects:
                self._show_health(self._suspected_mono, self._suspects[0][1], texts)
                for text, error in self._suspects:
                    self._refuse(text, _reason(error))
            elif 0 < self._served < self._failed:
                self._caller.be_careful(self._failed, self._served)
        except Unserved:  # a limit of tokens may have been about one text, that of texts is not
            self._caller.learn(self._began, replace(self._began, texts=self._proven))
            raise
        self._caller.learn(self._began, self._limits)  # not before: a refusal may have been about one text

    def _meet_server(self, texts: Sequence[str]) -> None:
        """Where a call may have taken the server down: see whether it is well just before it is sent these texts.

        And so after it went away the last time. That the canary is served once may be chance, where a gateway fails now
        and then.
        """
        crashes = self._caller.crashes
        searching = crashes.searching
        for _ in range(CANARIES_IN_A_ROW if searching else 1):
            fault = self._caller.health_since(time.monotonic()).fault
            if fault is not None:
                if not is_down(fault):  # what slows us down, or hangs, is there
                    crashes.forget()
                return
        if len(texts) == 1 and crashes.is_to_blame(texts[0]):
            self._parts.clear()
            self._refuse(texts[0], "its server went away each time it was sent this text alone")
            crashes.given_up(texts[0])
        self._was_well = searching

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
            self._proven, self._well = self._limits.texts, True
            self._misled |= texts == [self._blamed]
            self._served = max(self._served, len(texts)) if self._failed else 0
            self._caller.crashes.served(texts)
            self._deliver(texts, [row.tobytes() for row in rows])

    def _part(self, texts: Sequence[str], error: Partial) -> None:
        """Deliver the good rows; send the texts of the others again."""
        faulty = set(error.faulty)
        good = [i for i in range(len(texts)) if i not in faulty]
        served = [texts[i] for i in good]
        self._caller.crashes.served(served)
        self._deliver(served, [error.rows[i].tobytes() for i in good])
        self._parts.append(([texts[i] for i in error.faulty], self._caller.patient(False)))

    def _show_health(self, then_mono: float, error: BaseException, texts: Sequence[str]) -> bool:
        """Go on only if the provider has served another text since then, or serves one now.

        Returns:
            Whether it is known to have been well when these texts failed: it served just before; or right after, if
            they have not failed as where a server is being started again.
        """
        before, (fault, at_once) = self._well, self._caller.health_since(then_mono, error)
        if fault is not None:  # what somebody has to set right says more than how a text of ours failed
            if took_down(error, fault):
                self._caller.crashed(texts, error, well=self._was_well)
            raise Unserved(fault if isinstance(fault, ConfigurationError) else error, texts) from None
        self._well = True
        return before or (at_once and not is_down(error))

    def _refused(self, texts: Sequence[str], error: InputRejected, policy: tenacity.BaseRetrying) -> None:
        self._refusals += 1
        if self._refusals == 1:
            self._refused_mono = time.monotonic()
        if self._refusals == REFUSALS_BEFORE_CANARY:
            self._show_health(self._refused_mono, error, texts)  # where it refuses everything, no text is bad
        if len(texts) == 1:
            self._suspect(texts[0], error)
            if isinstance(error, CallTooLarge):  # too large in itself: this says nothing of its neighbours
                before = self._caller.limits
                self._limits = before if error.measure == "texts" else replace(self._limits, tokens=before.tokens)
        elif isinstance(error, CallTooLarge) and not _says_nothing(error, texts):
            self._limits = self._limits.learn(error, texts)
            self._parts.appendleft((texts, policy))  # to be cut
        else:
            culprit = None if self._misled else error.index
            self._blamed = texts[culprit] if culprit is not None and 0 <= culprit < len(texts) else None
            # If none is bad, they were too many, which the provider has said in its way: unless it has served as many.
            if self._blamed is None and (len(texts) > self._caller.largest or isinstance(error, CallTooLarge)):
                self._failed = max(self._failed, len(texts))
            self._parts.extend((part, policy) for part in split(texts, culprit))

    def _transient(
        self, texts: Sequence[str], error: TransientError, policy: tenacity.BaseRetrying, began_mono: float
    ) -> None:
        once = self._caller.once()
        if isinstance(error, Faulty):  # the provider says itself which texts are bad, so there is nothing to halve
            if policy is once:
                self._parts.append((texts, self._caller.patient(False)))
            else:
                for text in texts:
                    self._suspect(text, error)
            return
        # In a probe, a failure without a status may be a text's fault, too: else that text would block the queue.
        nameless = self._probe and error.status is None and not isinstance(error, OverLimits)
        suspicious = error.suspect_input or nameless
        if error.status in TOO_SLOW_STATUSES and len(texts) > 1:
            self._caller.be_careful(len(texts), len(texts) // 2)
        told_long = (error.retry_after or 0.0) > LONGEST_WAIT_SECONDS  # so it was tried once: no text is to blame yet
        if not suspicious or (told_long and not self._probe):
            raise Unserved(error, texts) from None
        try:
            was_well = self._show_health(began_mono, error, texts)
        except Unserved:
            if error.cause == "timeout" and len(texts) > 1:
                self._caller.be_careful(len(texts), len(texts) // 2)
            raise
        if not was_well:  # it may have been away before these texts came
            self._parts.append((texts, policy))
        elif len(texts) > 1:
            self._failed = max(self._failed, len(texts))
            self._parts.extend((part, once) for part in split(texts, None))
        elif policy is once or self._may_be_chance(texts[0], error):
            self._parts.append((texts, self._caller.patient(False)))  # a text is blamed only after all its tries
        else:
            self._suspect(texts[0], error)

    def _may_be_chance(self, text: str, error: TransientError) -> bool:
        self._rounds[text] += 1
        # A probe keeps all others waiting: it has one round, but where a server may have been started again.
        chance = is_down(error) or (error.status in BUSY_STATUSES and not self._probe)
        return chance and self._rounds[text] < ROUNDS

    def _suspect(self, text: str, error: BaseException) -> None:
        self._suspects.append((text, error))
        self._suspected_mono = time.monotonic()


def _says_nothing(error: CallTooLarge, texts: Sequence[str]) -> bool:
    """Whether it is a bare 413 to what no server would call large: it may as well be about the number of texts."""
    return error.measure == "bytes" and error.limit is None and sum(len(text.encode()) for text in texts) < SMALL_BYTES


def _reason(error: BaseException) -> str:
    """Why a text is given up. It is stored beside the text, so it may quote it."""
    return printable(words_of(error)) or type(error).__name__
