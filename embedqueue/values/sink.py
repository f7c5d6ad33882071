"""Where vectors go beside the users' hashes: to a sink, such as a table of Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class SinkRow:
    """A vector on its way into a sink, and what it is of.

    Attributes:
        redis_key: of the item.
        vector: ``(dimensions,)`` float32; with ``vector_type="float16"``, of that precision.
        stamp: number of the item, rising with each text of the key: microseconds of its enqueue by the clock of Redis.
        space: of the vector: ``MODEL/DIMENSIONS/ROLE``.
        digest: of its text as it was enqueued: BLAKE2b of its UTF-8, 8 bytes, as 16 hexadecimal digits.
    """

    redis_key: str
    vector: NDArray[np.float32]
    stamp: int
    space: str
    digest: str

    @property
    def provenance(self) -> str:
        """The line that stands beside the vector in its hash: ``SPACE DIGEST STAMP``."""
        return f"{self.space} {self.digest} {self.stamp}"


@runtime_checkable
class Sink(Protocol):
    """Takes vectors in before their items are acknowledged. Thread-safe: the threads of calls use it side by side.

    A row may come twice, and rows of a key may come out of order. So a sink keeps the stamp of what it has of a key,
    and leaves a row alone whose stamp is lower, in the same step in which it would write.
    """

    def write(self, rows: Sequence[SinkRow]) -> object:
        """Write rows, of as many different keys. When this returns, they are durable.

        Args:
            rows: at least one, up to 500.

        Raises:
            TransientError: the sink cannot be used now; as are ``OSError`` and ``TimeoutError``. All rows are kept and
                come again, and the queue pauses.
            ConfigurationError: the same, until somebody acts: it is not tried again at once, and logged as an error.
            InputRejected: it will never take a row, the one at ``index`` or, without that, some of them; that item
                becomes a dead letter.
            Exception: anything else is a row's fault if the sink takes others, and its own if not.
        """


@runtime_checkable
class RemovingSink(Protocol):
    """A sink that can take vectors away as well."""

    def remove(self, redis_keys: Sequence[str], stamp: int) -> object:
        """Take away the vectors of keys that have no text any more; called by ``forget(vector=True)``, in its thread.

        Args:
            redis_keys: of the rows.
            stamp: rows with this stamp or a later one stay. What may still be on its way has a lower one, and must not
                be written afterwards: so keep it, where the row stays.
        """


@runtime_checkable
class ReadingSink(Protocol):
    """A sink that tells what it has: futures of other processes, ``verify`` and ``backfill`` ask it."""

    def read(self, redis_keys: Sequence[str]) -> Mapping[str, SinkRow | None]:
        """Tell what stands under these keys.

        Args:
            redis_keys: some of which may be none of its own.

        Returns:
            By those of them that it writes, what it has; None where it has no vector. Where it does not keep what a
            vector is of, ``space`` and ``digest`` are "".
        """


class Sinks:
    """Several sinks as one: each gets all rows, in order.

    Args:
        sinks: at least one.
    """

    def __init__(self, *sinks: Sink) -> None:
        if not sinks or not all(isinstance(sink, Sink) for sink in sinks):
            raise TypeError("Sinks takes objects with write(rows)")
        self.sinks = sinks

    def write(self, rows: Sequence[SinkRow]) -> None:
        """See :class:`Sink`. What one raises ends it: those before it get the rows again."""
        for sink in self.sinks:
            sink.write(rows)

    def remove(self, redis_keys: Sequence[str], stamp: int) -> None:
        """See :class:`RemovingSink`; those that cannot are left out."""
        for sink in self.sinks:
            if isinstance(sink, RemovingSink):
                sink.remove(redis_keys, stamp)

    def read(self, redis_keys: Sequence[str]) -> Mapping[str, SinkRow | None]:
        """See :class:`ReadingSink`; of several that write a key, the first tells."""
        found: dict[str, SinkRow | None] = {}
        for sink in reversed(self.sinks):
            if isinstance(sink, ReadingSink):
                found |= sink.read(redis_keys)
        return found
