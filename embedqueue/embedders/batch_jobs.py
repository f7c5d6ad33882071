"""What the queue asks of a provider's batch jobs, at half price: seven moves, and how their answers are told.

No provider's way to create a job can be repeated without making a second one. So the queue gives each a label, by which
it is found again. No provider keeps the order of texts, so each line has a key (docs/half-price.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from embedqueue.values.errors import ConfigurationError, EmbedQueueError, OptionValueError, TransientError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: How a job stands, whatever its provider calls that. "waiting": it has not ended, or nobody knows what its word means.
#: "done", "expired", "cancelled": it has ended, and what it has may be read. "failed": it has nothing. "gone": the
#: provider knows nothing of it.
JobStanding = Literal["waiting", "done", "expired", "cancelled", "failed", "gone"]


@dataclass(frozen=True, slots=True)
class JobSeen:
    """How a provider says that a job stands.

    Attributes:
        standing: in one of our words.
        status: in the provider's.
        done: texts that it has done; None where it does not say.
        parts: what its results are read from, as :meth:`BatchJobs.results` takes them: names of files, or the like.
        reason: why it failed, in the provider's words; "" where it did not.
        quota: whether it failed because too much is waiting at the provider.
        quota_tokens: how many tokens may wait there, where it says so.
        used_tokens: that were charged for all of it, where it says so.
        document: the whole answer, where results stand in that.
    """

    standing: JobStanding
    status: str = ""
    done: int | None = None
    parts: tuple[str, ...] = ()
    reason: str = ""
    quota: bool = False
    quota_tokens: int | None = None
    used_tokens: int | None = None
    document: Any = None


@dataclass(frozen=True, slots=True)
class JobLine:
    """What a job has made of one text.

    Attributes:
        key: of the text, as it was sent; "" where the line cannot be read.
        vector: float32, of shape ``(dimensions,)``; None where there is none.
        error: why there is none.
        tokens: that were charged for it; None where that is not said.
        place: up to where results are read behind it: how many parts, and bytes of the next one.
    """

    key: str
    vector: NDArray[np.float32] | None = None
    error: str = ""
    tokens: int | None = None
    place: tuple[int, int] = (0, 0)


class BatchJobs(Protocol):
    """The batch jobs of one provider, for one model. Thread-safe.

    Every method raises what :meth:`Embedder.embed_batch` raises.
    """

    #: Texts of one job at most.
    max_texts: int

    def upload(self, texts: Mapping[str, str], label: str) -> str:
        """Bring texts to the provider, by key. Nothing is charged yet.

        Returns:
            The provider's name of the file; "" where texts go with :meth:`create`.
        """

    def create(self, file: str, texts: Mapping[str, str], label: str) -> str:
        """Create a job. From here on it is charged. Where this raises, it may have been created: see ``was_refused``.

        Args:
            file: what :meth:`upload` gave.
            texts: the same as there.
            label: by which :meth:`find` finds it.

        Returns:
            The provider's name of the job.
        """

    def find(self, label: str, since: float) -> str | None:
        """The provider's name of a job with this label that was created since that Unix time, or a little before it."""

    def look(self, job_id: str) -> JobSeen:
        """How a job stands."""

    def results(self, seen: JobSeen, place: tuple[int, int] = (0, 0)) -> Iterator[JobLine]:
        """What a job has made, line by line, in no order; from a place on that a line has told."""

    def cancel(self, job_id: str) -> None:
        """Cancel a job; one that has ended is left alone."""

    def delete(self, job_id: str, file: str, label: str) -> None:
        """Delete a job's files, and the job where that can be: what it was given and what it made.

        Args:
            job_id: the provider's name; "" where there never was one.
            file: what :meth:`upload` gave; "" looks for one by the label.
            label: of the job.
        """


@runtime_checkable
class TakesJobs(Protocol):
    """An embedder whose provider may have batch jobs."""

    def batch_jobs(self, model: str) -> BatchJobs | None:
        """Those for a model; None where there are none."""


def batch_jobs_of(embedder: object, model: str) -> BatchJobs | None:
    """The batch jobs of an embedder for a model; None where there are none."""
    return embedder.batch_jobs(model) if isinstance(embedder, TakesJobs) else None


def require_batch_jobs(embedder: object, model: str) -> None:
    """Refuse the option ``economy`` where there are no batch jobs.

    Raises:
        OptionValueError: there are none.
    """
    if batch_jobs_of(embedder, model) is None:
        raise OptionValueError(
            "economy", f"needs an embedder whose provider has batch jobs, which {embedder!r} has not"
        )


def was_refused(error: EmbedQueueError) -> bool:
    """Whether an error says for certain that what was asked for was not done: the provider has said no."""
    if isinstance(error, TransientError):
        return error.status in (404, 409, 425, 429)
    return True


def plain_status(word: object) -> str:
    """A provider's word for a status, in the form in which we compare it: whatever case, and without a prefix."""
    said = word.strip().lower() if isinstance(word, str) else ""
    for prefix in ("batch_state_", "job_state_", "state_"):
        said = said.removeprefix(prefix)
    return {"canceled": "cancelled", "cancelling": "waiting", "canceling": "waiting"}.get(said, said)


def is_gone(error: EmbedQueueError) -> bool:
    """Whether an error says that there is no such thing."""
    return _answered(error, 404)


def lacks_file(error: EmbedQueueError, file: str) -> bool:
    """Whether a create was refused for its file: Voyage was seen to know none that had come a minute before."""
    words = str(error).partition(" answered 404")[2].lower()
    return bool(file) and is_gone(error) and ("file" in words or file.lower() in words)


def _answered(error: EmbedQueueError, status: int) -> bool:
    return isinstance(error, ConfigurationError) and f" answered {status}" in str(error)


@contextlib.contextmanager
def ignoring_gone() -> Iterator[None]:
    """What is to be deleted may be gone. Of a file that is, Gemini says with 403 that it "may not exist"."""
    try:
        yield
    except EmbedQueueError as error:
        if not (is_gone(error) or (_answered(error, 403) and "may not exist" in str(error))):
            raise


@contextlib.contextmanager
def ended_already() -> Iterator[None]:
    """A job that has ended cannot be cancelled: 400 or 409 say so, FAILED_PRECONDITION too, and that is no fault."""
    try:
        yield
    except EmbedQueueError as error:
        if getattr(error, "status", None) not in (400, 409) and not is_gone(error) and not _answered(error, 400):
            raise
