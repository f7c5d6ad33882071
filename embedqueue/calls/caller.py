"""One call to the embedder, and what becomes of its texts when the call fails: the failure table, without Redis.

Transient failures are tried again in place; a refused call is halved until the bad text stands alone; and no text
is given up while the provider has not shown, since then, that it can serve another one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import tenacity

from embedqueue.embedders.protocol import Embedder
from embedqueue.values.errors import BatchFailed, CallTooLarge, ConfigurationError, InputRejected, TransientError
from embedqueue.values.log import Log, logger
from embedqueue.values.observer import CallReport, Observers, Outcome
from embedqueue.values.vectors import Malformed, as_rows, faulty_rows
from embedqueue.values.words import printable, said_by, words_of

from .batching import Limits, cut, estimated_tokens, split
from .concurrency import Concurrency
from .retry import default_retry

#: What a healthy provider can embed: sent when nothing else has proved its health.
CANARY = "ok"
TOO_MANY_REQUESTS = 429
#: Refusals of one errand after which the provider has to prove its health: a call, and both of its halves.
REFUSALS_BEFORE_CANARY = 3


class Unserved(Exception):
    """The provider, not a text, is at fault: the rest of the call goes back to pending.

    What it says goes to the log, Redis, the dashboard and the waiters of others: no text of the call is in it.

    Args:
        cause: what the embedder raised.
        texts: of the call.

    Attributes:
        retry_after: seconds that the provider asks for, or 0.
        account: somebody has to act (key, credit, model) before anything works.
    """

    def __init__(self, cause: BaseException, texts: Sequence[str]) -> None:
        super().__init__(said_by(cause, texts))
        self.retry_after = getattr(cause, "retry_after", None) or 0.0
        self.account = isinstance(cause, ConfigurationError)

    def for_waiter(self) -> BatchFailed:
        """What the futures of the call get."""
        return BatchFailed(f"the call failed and its items are still queued: {self}")


class Stopping(Exception):
    """The queue stops: leave everything as it is."""


class Caller:
    """Calls the embedder. Thread-safe: its calls run side by side.

    Args:
        embedder: whom to call.
        model: handed to the embedder.
        retry: tenacity policy for tries in place, or None for ours.
        limits: what a call may hold; learned from refusals.
        concurrency: how many calls may be in flight; learns from each call.
        stopping: set when the queue stops; waits end then.
        log: takes the records.
        observers: told of each call.
    """

    def __init__(
        self,
        embedder: Embedder,
        model: str,
        retry: tenacity.BaseRetrying | None,
        limits: Limits,
        concurrency: Concurrency,
        stopping: threading.Event,
        log: Log = logger,
        observers: Observers | None = None,
    ) -> None:
        self._log = log
        self._observers = observers or Observers()
        self.limits = limits
        self.concurrency = concurrency
        self._embedder = embedder
        self._model = model
        self._stopping = stopping
        policy = retry or default_retry()
        # Whatever the user's policy says: only what may work later is tried again, and its last error is what counts.
        retry_if = tenacity.retry_all(tenacity.retry_if_exception_type(TransientError), policy.retry)
        policy = policy.copy(retry=retry_if, reraise=True, retry_error_callback=None)
        interruptible = policy.sleep in (tenacity.nap.sleep, time.sleep)
        self._patient = policy.copy(sleep=self._rest) if interruptible else policy
        self._once = policy.copy(stop=tenacity.stop_after_attempt(1))
        self._lock = threading.Lock()
        self._last_success_mono = 0.0
        self.calls = 0  # guarded by the lock, as are the other counters
        self.texts_sent = 0
        self.failed_calls = 0

    @property
    def dimensions(self) -> int:
        """Length of the embedder's vectors."""
        return self._embedder.dimensions

    def _rest(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Stopping

    def serve(
        self,
        texts: Sequence[str],
        *,
        probe: bool,
        deliver: Callable[[Sequence[str], Sequence[bytes]], None],
        refuse: Callable[[str, str], None],
    ) -> None:
        """Embed texts, in one call if all goes well.

        Args:
            texts: distinct and not blank.
            probe: this call tests a provider that failed: one try decides.
            deliver: gets texts and their vectors (float32 bytes) as soon as they are there.
            refuse: gets a text that will never work, and why.

        Raises:
            Unserved: the provider is at fault; texts neither delivered nor refused go back.
            Stopping: the queue stops.
        """
        _Errand(self, probe, deliver, refuse).run(texts)

    def call(self, texts: Sequence[str], policy: tenacity.BaseRetrying) -> Any:
        """Rows of shape (len(texts), dimensions), each fit to be written.

        Raises:
            TransientError, InputRejected, ConfigurationError: what came in the end.
            Partial: some rows are fit, others are not.
            Stopping: the queue stops.
        """
        try:
            return self._try(texts)  # tenacity costs a quarter of a millisecond: only those pay it who need it
        except TransientError as error:
            failed: list[TransientError] = [error]

        def attempt() -> Any:
            if failed:
                raise failed.pop()
            return self._try(texts)

        try:  # a copy: a policy counts the attempts of one call, and calls run side by side
            return policy.copy()(attempt)
        except (TransientError, InputRejected, ConfigurationError, Partial, Stopping):
            raise
        except Exception as error:  # of a hook of the user's
            raise ConfigurationError(f"the retry policy raised {type(error).__name__}: {words_of(error)}") from error

    def _try(self, texts: Sequence[str]) -> Any:
        if self._stopping.is_set():
            raise Stopping
        with self._lock:
            self.calls += 1
            self.texts_sent += len(texts)
        began_mono = time.monotonic()
        try:
            rows = self._ask(texts, began_mono)
        except BaseException as error:
            self._report(texts, began_mono, error)
            raise
        self._report(texts, began_mono, None)
        return rows

    def _ask(self, texts: Sequence[str], began_mono: float) -> Any:
        try:
            rows = as_rows(self._embedder.embed_batch(texts, self._model), len(texts), self._embedder.dimensions)
            faulty = faulty_rows(rows)
        except (TransientError, InputRejected, ConfigurationError) as error:
            self._count_failure()
            if getattr(error, "status", None) == TOO_MANY_REQUESTS:
                self.concurrency.refused(began_mono, time.monotonic())
            raise
        except Malformed as error:
            self._count_failure()
            raise TransientError(str(error), suspect_input=True) from None
        except BaseException as error:  # an embedder of the user's with a fault of its own; SystemExit is one, too
            self._count_failure()
            self._log.debug("embedqueue: the embedder raised %s", type(error).__name__, exc_info=True)
            raise TransientError(f"{type(error).__name__}: {words_of(error)}", suspect_input=True) from error
        if len(faulty) == len(texts):
            self._count_failure()
            raise Faulty
        now_mono = self._last_success_mono = time.monotonic()
        self.concurrency.answered(began_mono, now_mono)
        self._log.info(
            "embedqueue: a call of %d texts took %.3f s",
            len(texts),
            now_mono - began_mono,
            extra={"batch_size": len(texts), "duration": now_mono - began_mono},
        )
        if len(faulty):
            self._count_failure()
            raise Partial(rows, faulty.tolist())
        return rows

    def _report(self, texts: Sequence[str], began_mono: float, error: BaseException | None) -> None:
        if self._observers:
            report = CallReport(
                texts=len(texts),
                tokens=sum(map(estimated_tokens, texts)),
                seconds=time.monotonic() - began_mono,
                outcome=_outcome(error),
                status=getattr(error, "status", None),
                error=_words(error, texts),
            )
            self._observers.tell("call_ended", report)

    def _count_failure(self) -> None:
        with self._lock:
            self.failed_calls += 1

    def healthy_since(self, then_mono: float) -> bool:
        """Whether the provider has served another text since then, or serves the canary now."""
        if self._last_success_mono > then_mono:
            return True
        try:
            self.call([CANARY], self._once)
        except (TransientError, InputRejected, ConfigurationError) as error:
            self._log.debug("embedqueue: the canary failed too: %s", error)
            return False
        return True

    def patient(self, probe: bool) -> tenacity.BaseRetrying:
        """The policy for a whole call: a probe is tried once."""
        return self._once if probe else self._patient

    def once(self) -> tenacity.BaseRetrying:
        """The policy while a bad text is being isolated."""
        return self._once

    def learn(self, limits: Limits) -> None:
        """Remember limits under which a call was served."""
        with self._lock:
            narrower = self.limits.narrowed_to(limits)
            if narrower == self.limits:
                return
            self.limits = narrower
        self._log.info("embedqueue: calls hold %d texts and %d tokens from now on", narrower.texts, narrower.tokens)


class Faulty(TransientError):
    """No row of an answer is fit to be written."""

    def __init__(self) -> None:
        super().__init__("the vector holds NaN or infinity, or is all zeros", suspect_input=True)


class Partial(Exception):
    """Some rows of an answer are not fit to be written; the others are.

    Attributes:
        rows: all of them.
        faulty: indices of those that are not, in order.
    """

    def __init__(self, rows: Any, faulty: list[int]) -> None:
        super().__init__(f"{len(faulty)} of {len(rows)} vectors hold NaN or infinity, or are all zeros")
        self.rows = rows
        self.faulty = faulty


def _outcome(error: BaseException | None) -> Outcome:
    """How a call ended that raised this, if anything."""
    if isinstance(error, Partial):
        return "partial"
    if isinstance(error, CallTooLarge):
        return "too_large"
    if isinstance(error, InputRejected):
        return "rejected"
    return "ok" if error is None else "configuration" if isinstance(error, ConfigurationError) else "transient"


def _words(error: BaseException | None, texts: Sequence[str]) -> str | None:
    """What an observer may read of it: no text, not even what a refusal says of one."""
    if isinstance(error, InputRejected):
        return "the provider refused the call" if isinstance(error, CallTooLarge) else "the provider refused an input"
    return None if error is None else said_by(error, texts)


def _reason(error: BaseException) -> str:
    """Why a text is given up: stored beside the text, which it may quote."""
    return printable(words_of(error)) or type(error).__name__


class _Errand:
    """One call's texts on their way, with everything that its failure may entail.

    Parts of a refused call are sent level by level: so both halves have spoken before either is cut again.
    """

    def __init__(
        self,
        caller: Caller,
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

    def run(self, texts: Sequence[str]) -> None:
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
