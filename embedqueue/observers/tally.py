"""What this process has sent and saved, for ``stats()``: a few additions a call."""

from __future__ import annotations

import threading

from embedqueue.values.observer import CallReport, Observer, SavingReport

from .history import ANSWERED


class Tally(Observer):
    """Counts tokens and savings of one process. Thread-safe.

    Attributes:
        used_tokens: that providers say they have charged.
        estimated_tokens: of answered calls of which they have not said.
        unanswered_texts: in calls that failed after they were sent.
        saved_texts: that need not be sent.
        saved_tokens: of these, estimated.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # an enqueue in a signal's handler may be told of in the midst of another
        self.used_tokens = self.estimated_tokens = 0
        self.unanswered_texts = self.saved_texts = self.saved_tokens = 0

    def call_ended(self, report: CallReport) -> None:
        """An API call came back."""
        with self._lock:
            self.unanswered_texts += report.texts if report.maybe_paid else 0
            if report.used_tokens is not None:
                self.used_tokens += report.used_tokens
            elif report.outcome in ANSWERED:
                self.estimated_tokens += report.tokens

    def job_ended(self, report: CallReport) -> None:
        """A batch job has ended."""
        with self._lock:
            if report.used_tokens is not None:
                self.used_tokens += report.used_tokens
            else:
                self.estimated_tokens += report.tokens

    def saved(self, report: SavingReport) -> None:
        """Texts need not be sent."""
        with self._lock:
            self.saved_texts += report.texts
            self.saved_tokens += report.tokens
