"""One call to the embedder: with tries in place, checks of the vectors, and a report to the observers.

What becomes of the texts of a call that fails in the end, ``halving`` decides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import tenacity

from embedqueue.embedders.protocol import CANARY, Embedder, TokenMeter
from embedqueue.embedders.usage import Usage, whole
from embedqueue.observers.observers import Observers
from embedqueue.values.errors import (
    CallTooLarge,
    Cause,
    ConfigurationError,
    EmbedQueueError,
    InputRejected,
    TransientError,
    finite_seconds,
)
from embedqueue.values.locks import Event
from embedqueue.values.log import Log, logger
from embedqueue.values.observer import CallReport, Lane, Outcome
from embedqueue.values.tokens import estimated_tokens
from embedqueue.values.vectors import Malformed, VectorType, WrongWidth, as_rows, faulty_rows
from embedqueue.values.words import said_by, words_of

from .batching import Care, Limits
from .concurrency import Concurrency
from .crashes import Crashes
from .failures import Faulty, Partial, Stopping
from .retry import LONGEST_WAIT_SECONDS, default_retry
from .tolls import TOO_MANY_REQUESTS, Tolls

#: Seconds that one try may take. An embedder without a time limit of its own may hang for ever, and others wait for it.
LONGEST_TRY_SECONDS = 600.0
#: Seconds between tries of the canary while a server may be started again, which a text has taken down.
RESTART_SECONDS = (1.5, 4.0)
BAD_GATEWAY, UNAVAILABLE = 502, 503
#: What is left of the longest duration of a call after each further one.
FADES = 0.9


class Health(NamedTuple):
    """How the provider does.

    Attributes:
        fault: why it does not serve even the canary; None where it serves.
        at_once: whether it did so the first time it was asked. Else it may have been away before, whatever was sent.
    """

    fault: Exception | None
    at_once: bool


class Caller:
    """Calls the embedder. Thread-safe: its calls run side by side.

    Args:
        embedder: turns texts into vectors.
        model: handed to the embedder.
        retry: tenacity policy for tries in place; None for ours.
        limits: what a call may hold at first.
        concurrency: how many calls may be in flight; told how each call went.
        closing: set when the queue stops; no try is begun then, and the waits between tries end.
        log: takes the records.
        observers: told of each try.
        vector_type: of the vectors that it returns.
        tolls: where there are limits, pays for each try.
        lane: on which way its calls send texts.

    Attributes:
        limits: what a call may hold, by what was learned; see :meth:`learn` and :meth:`be_careful`.
        concurrency: as given.
        crashes: of the server.
        calls: tries so far, canaries included.
        texts_sent: texts in these.
        failed_calls: tries that brought no vectors, or not all.
        usual_seconds: how long answered calls took of late, at most: the longest fades. None if none was answered.
    """

    def __init__(
        self,
        embedder: Embedder,
        model: str,
        retry: tenacity.BaseRetrying | None,
        limits: Limits,
        concurrency: Concurrency,
        closing: Event,
        log: Log = logger,
        observers: Observers | None = None,
        vector_type: VectorType = "float32",
        tolls: Tolls | None = None,
        lane: Lane = "live",
    ) -> None:
        self._log = log
        self._observers = observers or Observers()
        self._tolls = tolls
        self._lane = lane
        self._limits = limits  # guarded by the lock, as is the next
        self._care = Care()
        self.concurrency = concurrency
        self.crashes = Crashes()
        self._embedder = embedder
        self._model = model
        self._vector_type = vector_type
        self._provider, self._server = _whose(embedder)
        self._meter = embedder if isinstance(embedder, TokenMeter) else None
        self._paid = Usage()
        self._closing = closing
        policy = retry or default_retry()
        # Whatever the user's policy says, only what may work later is tried again, and the last error is raised.
        retry_if = tenacity.retry_all(tenacity.retry_if_exception_type(TransientError), policy.retry)
        policy = policy.copy(retry=retry_if, reraise=True, retry_error_callback=None)
        interruptible = policy.sleep in (tenacity.nap.sleep, time.sleep)
        self._patient = policy.copy(sleep=self.rest) if interruptible else policy
        self._once = policy.copy(stop=tenacity.stop_after_attempt(1))
        self._lock = threading.Lock()
        self._last_success_mono = 0.0
        self._wrong_width: tuple[int, str] | None = None  # of the last answer that had one, and its first text
        self._tries: dict[int, float] = {}  # by thread: when the try that is under way began; guarded by the lock
        self._given_up: set[int] = set()  # threads whose try took too long; guarded by the lock
        self.calls = 0  # guarded by the lock, as are the other counters
        self.texts_sent = 0
        self.failed_calls = 0
        self.largest = 0  # texts of the largest call that was served; two that are may count as one
        self.usual_seconds: float | None = None  # two calls that end at once may count as one

    @property
    def limits(self) -> Limits:
        """What one call may hold now."""
        most = self._care.texts
        return self._limits if most is None else replace(self._limits, texts=min(self._limits.texts, most))

    @property
    def probe_texts(self) -> int:
        """Texts of a call that tests the provider.

        One, where its last answer had vectors of another length, or something seems to take it down.
        """
        return self.limits.texts if self._wrong_width is None and not self.crashes.searching else 1

    def rest(self, seconds: float) -> None:
        """Wait; ``Stopping`` is raised if the queue stops meanwhile."""
        if self._closing.wait(seconds):
            raise Stopping

    def call(self, texts: Sequence[str], policy: tenacity.BaseRetrying) -> Any:
        """Embed texts in one call, with tries in place.

        Args:
            texts: distinct and not blank, within the limits.
            policy: for the tries; see :meth:`patient` and :meth:`once`.

        Returns:
            Array of shape (len(texts), dimensions), of the queue's vector_type, without NaN, infinity or rows of zeros.

        Raises:
            TransientError, InputRejected, ConfigurationError: the error of the last try. But a text is suspected only
                if two tries failed so that one may be to blame; or one did, and then nobody was there any more.
            Partial: some rows cannot be written.
            Stopping: the queue stops.
        """
        try:
            return self._try(texts)  # without tenacity, which costs a quarter of a millisecond
        except TransientError as error:
            first: list[TransientError] = [error]
            failed = _Failed(error)

        def attempt() -> Any:
            if first:  # the policy has yet to hear of it
                raise first.pop()
            try:
                return self._try(texts)
            except TransientError as error:
                failed.add(error)
                raise

        try:  # with a copy: a policy counts the tries of one call, and calls run side by side
            return policy.copy()(attempt)
        except TransientError as error:
            if (found := failed.verdict(error)) is error:
                raise
            raise found from None
        except (InputRejected, ConfigurationError, Partial, Stopping):
            raise
        except Exception as error:  # raised by the user's policy itself, or a hook of it
            raise ConfigurationError(f"the retry policy raised {type(error).__name__}: {words_of(error)}") from error

    def _try(self, texts: Sequence[str]) -> Any:
        thread = threading.get_ident()
        if self._closing.is_set() or thread in self._given_up:
            raise Stopping
        if self._tolls is not None and (seconds := self._tolls.pay(texts)):
            self.rest(seconds)
        began_mono = time.monotonic()
        with self._lock:
            self.calls += 1
            self.texts_sent += len(texts)
            self._tries[thread] = began_mono
        self._used_tokens()
        try:
            rows = self._ask(texts, began_mono)
        except BaseException as error:
            self._log.info("embedqueue: a try of a call of %d texts failed: %s", len(texts), _words(error, texts))
            self._count(texts, began_mono, error)
            raise
        finally:
            with self._lock:
                self._tries.pop(thread, None)
        self._count(texts, began_mono, None)
        return rows

    def _used_tokens(self) -> int | None:
        """What the embedder says that calls of this thread were charged since it was asked; None where it does not."""
        try:
            return None if self._meter is None else whole(self._meter.take_tokens())
        except Exception:
            self._log.debug("embedqueue: the embedder does not tell what a call was charged", exc_info=True)
            return None

    def take_paid(self) -> int:
        """The tokens that calls of this thread have cost, or may have, since it asked last.

        Where the provider does not say how many, they are estimated: also of a try that broke off after it was sent.
        """
        return self._paid.take() or 0

    def _ask(self, texts: Sequence[str], began_mono: float) -> Any:
        try:
            answer = self._embedder.embed_batch(texts, self._model)
            rows = as_rows(answer, len(texts), self._embedder.dimensions, self._vector_type)
            self._wrong_width = None
            faulty = faulty_rows(rows)
        except (TransientError, InputRejected, ConfigurationError) as error:
            self._count_failure()
            if getattr(error, "status", None) == TOO_MANY_REQUESTS:
                self.concurrency.refused(began_mono, time.monotonic())
                self.crashes.forget()  # the canary would spend what is left for texts
            raise
        except WrongWidth as error:
            self._count_failure()
            raise self._of_the_width(error, texts) from None
        except Malformed as error:
            self._count_failure()
            raise TransientError(str(error), suspect_input=True) from None
        except BaseException as error:  # a fault of the user's own embedder, SystemExit included
            self._count_failure()
            self._log.debug("embedqueue: the embedder raised %s", type(error).__name__, exc_info=True)
            raise TransientError(f"{type(error).__name__}: {words_of(error)}", suspect_input=True) from error
        if len(faulty) == len(texts):
            self._count_failure()
            raise Faulty(self._vector_type)
        now_mono = self._last_success_mono = time.monotonic()
        self.concurrency.answered(began_mono, now_mono)
        self.largest = max(self.largest, len(texts))
        if self._care.texts is not None:
            with self._lock:
                self._care.served(len(texts), self._limits.texts)
        self.usual_seconds = max(now_mono - began_mono, FADES * (self.usual_seconds or 0.0))
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

    def _of_the_width(self, error: WrongWidth, texts: Sequence[str]) -> EmbedQueueError:
        """Once may be a fault of the moment. Twice in a row, and of more than one text, it is the model's width."""
        before, self._wrong_width = self._wrong_width, (error.width, texts[0])
        if before is not None and before[0] == error.width and (len(texts) > 1 or before[1] != texts[0]):
            return ConfigurationError(f"{error}: give it dimensions={error.width}, or another model")
        return TransientError(str(error), suspect_input=True)

    def _count(self, texts: Sequence[str], began_mono: float, error: BaseException | None) -> None:
        """Count what a try has cost, and tell the observers of it."""
        seconds, now = time.monotonic() - began_mono, time.time()
        used, estimate = self._used_tokens(), sum(map(estimated_tokens, texts))
        if self._tolls is not None:
            self._tolls.answered(texts, error, used)
        self._paid.add(used if used is not None else estimate if _may_be_paid(error) else 0)
        if self._observers:
            report = CallReport(
                texts=len(texts),
                tokens=estimate,
                seconds=seconds,
                outcome=_outcome(error),
                status=getattr(error, "status", None),
                error=_words(error, texts),
                cause=getattr(error, "cause", None),
                model=self._model,
                provider=self._provider,
                server=self._server,
                time=now,
                used_tokens=used,
                lane=self._lane,
                maybe_paid=isinstance(error, TransientError) and _may_be_paid(error),
            )
            self._observers.tell("call_ended", report)

    def _count_failure(self) -> None:
        with self._lock:
            self.failed_calls += 1

    def give_up_hanging(self) -> dict[int, float]:
        """Give up the tries that take too long. Their threads make no other one before ``returned``.

        Returns:
            By thread, when its try began, by the monotonic clock.
        """
        now = time.monotonic()
        with self._lock:
            hanging = {
                thread: began_mono
                for thread, began_mono in self._tries.items()
                if now - began_mono > LONGEST_TRY_SECONDS
            }
            for thread in hanging:
                del self._tries[thread]
            self._given_up |= hanging.keys()
        return hanging

    def returned(self) -> None:
        """This thread is back from what it was at, given up or not."""
        with self._lock:
            self._given_up.discard(threading.get_ident())

    def health_since(self, then_mono: float, failed: BaseException | None = None) -> Health:
        """Whether the provider has served another text since then, or serves the canary now.

        Args:
            then_mono: by the monotonic clock.
            failed: how a call ended then, if it did. If it says so, the canary waits as long. It may have taken the
                server down: until that is up again, the canary is tried for some seconds.
        """
        seconds_between = RESTART_SECONDS if getattr(failed, "suspect_input", False) and is_down(failed) else ()
        told = finite_seconds(getattr(failed, "retry_after", None)) or 0.0
        fault: Exception | None = None
        at_once = True
        if 0.0 < told <= LONGEST_WAIT_SECONDS and self._last_success_mono <= then_mono:
            self._patient.sleep(told)  # if for longer, it is a probe, which keeps all others waiting
            at_once = False
        for seconds in (0.0, *seconds_between):
            self.rest(seconds)
            if self._last_success_mono > then_mono:
                return Health(None, at_once=at_once)
            try:
                self.call([CANARY], self._once)
            except (TransientError, InputRejected, ConfigurationError) as error:
                self._log.debug("embedqueue: the canary failed too: %s", error)
                fault = error
                if not is_down(error) and getattr(error, "status", None) != UNAVAILABLE:
                    break
            else:
                return Health(None, at_once=at_once)
            at_once = False
        return Health(fault, at_once=False)

    def crashed(self, texts: Sequence[str], error: BaseException, *, well: bool) -> None:
        """The server went away during a call of these texts, and was not back soon; see :meth:`Crashes.note`."""
        again = self.crashes.note(texts, served_mono=self._last_success_mono, well=well)
        # A gateway without a server behind it may say so at random: then smaller calls would help nobody.
        if again and len(texts) > 1 and (well or getattr(error, "cause", None) == "connection"):
            self.be_careful(len(texts), max(1, len(texts) // 4))  # each step takes a restart of the server

    def patient(self, probe: bool) -> tenacity.BaseRetrying:
        """The policy for a whole call: the user's or ours; a probe is tried once."""
        return self._once if probe else self._patient

    def once(self) -> tenacity.BaseRetrying:
        """The policy of a single try, for parts of a call in which a bad text is being looked for."""
        return self._once

    def learn(self, began: Limits, limits: Limits) -> None:
        """Keep to these limits from now on, where they are narrower than those with which a call began.

        Args:
            began: the limits that there were.
            limits: under which it was served.
        """
        with self._lock:
            narrower = Limits(
                min(self._limits.texts, limits.texts) if limits.texts < began.texts else self._limits.texts,
                min(self._limits.tokens, limits.tokens) if limits.tokens < began.tokens else self._limits.tokens,
            )
            if narrower == self._limits:
                return
            self._limits = narrower
        self._log.info("embedqueue: calls hold %d texts and %d tokens from now on", narrower.texts, narrower.tokens)

    def be_careful(self, texts: int, most: int) -> None:
        """Make smaller calls for now: one of ``texts`` texts failed, which ``most`` may not.

        Args:
            texts: of the call.
            most: that calls hold from now on.
        """
        with self._lock:
            first = self._care.texts is None
            self._care.begin(most)
        level = logging.WARNING if first else logging.INFO
        self._log.log(
            level, "embedqueue: after a call of %d texts that failed, calls hold %d texts for now", texts, most
        )


def _whose(embedder: Embedder) -> tuple[str, tuple[str, int] | None]:
    """Whose API an embedder calls, and where; what a user's own means otherwise by these names is left alone."""
    try:
        provider, server = getattr(embedder, "provider", None), getattr(embedder, "server", None)
    except Exception:  # a property of the user's
        provider = server = None
    if not isinstance(provider, str) or not provider:
        provider = type(embedder).__name__
    match server:
        case (str(host), int(port)):
            return provider, (host, port)
    return provider, None


class _Failed:
    """How the tries of one call have failed. Of many tries, it keeps one error.

    Args:
        error: of the first.
    """

    def __init__(self, error: TransientError) -> None:
        self._tries = self._faulty = self._suspicious = 0
        self._suspect: TransientError | None = None  # the last of those that are suspicious
        self.add(error)

    def add(self, error: TransientError) -> None:
        """A try has failed so."""
        self._tries += 1
        if isinstance(error, Faulty):
            self._faulty += 1
        elif error.suspect_input:
            self._suspicious, self._suspect = self._suspicious + 1, error

    def verdict(self, last: TransientError) -> TransientError:
        """What the call has failed with."""
        alike = self._faulty if isinstance(last, Faulty) else self._suspicious
        if last.suspect_input and alike < min(2, self._tries):
            return _alike(last, suspect_input=False, cause=last.cause)
        nobody_there = last.cause == "connection" and not last.suspect_input  # the server may be down by a text
        if not nobody_there or self._suspect is None:
            return last
        return _alike(self._suspect, suspect_input=True, cause="connection")  # as where a text takes its server down


def _alike(error: TransientError, *, suspect_input: bool, cause: Cause | None) -> TransientError:
    status, wait = error.status, error.retry_after
    return TransientError(str(error), retry_after=wait, status=status, suspect_input=suspect_input, cause=cause)


def is_down(error: BaseException | None) -> bool:
    """Whether this is how a server fails that is started again just now, or a gateway before it."""
    return isinstance(error, TransientError) and (error.cause == "connection" or error.status == BAD_GATEWAY)


def took_down(error: BaseException, fault: BaseException) -> bool:
    """Whether a call that failed so may have taken its server down, where the canary failed so after it."""
    gone = is_down(fault) or (is_down(error) and getattr(fault, "status", None) == UNAVAILABLE)
    return gone and isinstance(error, TransientError) and error.suspect_input


def _may_be_paid(error: BaseException | None) -> bool:
    """Whether the provider may charge a try that ended so: it has answered, or we do not know what it has done."""
    if isinstance(error, TransientError):
        return error.suspect_input and (error.status is None or error.status < 300)
    return error is None or isinstance(error, Partial)


def _outcome(error: BaseException | None) -> Outcome:
    """How a try ended that raised ``error``, or nothing."""
    if isinstance(error, Partial):
        return "partial"
    if isinstance(error, CallTooLarge):
        return "too_large"
    if isinstance(error, InputRejected):
        return "rejected"
    return "ok" if error is None else "configuration" if isinstance(error, ConfigurationError) else "transient"


def _words(error: BaseException | None, texts: Sequence[str]) -> str | None:
    """The words of an error for observers. They quote no text, so those of a refusal are left out."""
    if isinstance(error, InputRejected):
        return "the provider refused the call" if isinstance(error, CallTooLarge) else "the provider refused an input"
    return None if error is None else said_by(error, texts)
