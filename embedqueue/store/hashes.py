"""The users' hashes: what they hold of vectors, read without a claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from embedqueue.values.vectors import size_bytes

from .keys import Keys, Second
from .records import Terms, named_member, named_stamp
from .scripts import Scripts

#: Vectors, or hashes, that one round trip reads.
AT_ONCE = 500


class Looked(NamedTuple):
    """What a hash has, and what is live of its key.

    Attributes:
        vector_bytes: of its vector; 0 where there is none, or no hash.
        provenance: what its vector is of, as it stands there; b"" where nothing does.
        live: the member that is named for the key, or None.
        live_stamp: of that member; of when it was enqueued again, if it was; 0 where that is not known.
    """

    vector_bytes: int
    provenance: bytes
    live: bytes | None
    live_stamp: int


class Hashes:
    """Reads the users' hashes. Thread-safe.

    Every method raises ``redis.RedisError`` where Redis does not answer. What may not be read counts as not there.

    Args:
        scripts: of the queue.
        keys: of the queue.
    """

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._call = scripts.call
        self._background: Any = scripts.background
        self._patience_seconds = scripts.patience_seconds
        self._keys = keys

    def vectors(self, redis_keys: Sequence[str], terms: Terms) -> list[bytes | None]:
        """Read the vectors of hashes, in slices; None where there is none."""
        found: list[bytes | None] = []
        for at in range(0, len(redis_keys), AT_ONCE):
            found += self.fields(redis_keys[at : at + AT_ONCE], terms.field)
        return found

    def fields(self, redis_keys: Sequence[str | bytes], field: str) -> list[bytes | None]:
        """Read one field of hashes, in one round trip; None where there is none."""
        pipeline: Any = self._background.pipeline(transaction=False)
        for redis_key in redis_keys:
            pipeline.hget(redis_key, field)
        return [value if isinstance(value, bytes) else None for value in pipeline.execute(raise_on_error=False)]

    def size(self, redis_key: str, field: str) -> int:
        """Bytes of one field of a hash; 0 where there is none. Raises ``redis.ResponseError`` where it is no hash."""
        return int(self._background.hstrlen(redis_key, field))

    def drop_fields(self, redis_keys: Sequence[bytes], fields: Sequence[str]) -> int:
        """Take fields out of hashes, in one round trip. Returns of how many hashes the first of them."""
        pipeline: Any = self._background.pipeline(transaction=False)
        for redis_key in redis_keys:
            pipeline.hdel(redis_key, fields[0])
            pipeline.hdel(redis_key, *fields)
        return sum(reply for reply in pipeline.execute(raise_on_error=False)[::2] if isinstance(reply, int))

    def look(self, redis_keys: Sequence[str | bytes], terms: Terms) -> list[Looked]:
        """Tell what hashes have, in one round trip.

        Args:
            redis_keys: of the hashes.
            terms: which fields are meant.
        """
        if not redis_keys:
            return []
        pipeline: Any = self._background.pipeline(transaction=False)
        pipeline.hmget(self._keys.latest, redis_keys)  # first: what is finished meanwhile, its hash tells of
        for redis_key in redis_keys:
            pipeline.hstrlen(redis_key, terms.field)
            pipeline.hget(redis_key, terms.provenance_field or "")
        latest, *replies = pipeline.execute(raise_on_error=False)
        entries = latest if isinstance(latest, list) else [None] * len(redis_keys)
        found = []
        for entry, size, line in zip(entries, replies[::2], replies[1::2], strict=True):
            live = (named_member(entry), named_stamp(entry)) if isinstance(entry, bytes) else (None, 0)
            known = isinstance(line, bytes) and terms.provenance_field is not None
            found.append(Looked(size if isinstance(size, int) else 0, line if known else b"", *live))
        return found

    def last_stamp(self) -> int:
        """A stamp that no item has passed so far, and that those which come from now on pass."""
        pipeline: Any = self._background.pipeline(transaction=False)
        pipeline.time()
        pipeline.hget(self._keys.settings, "stamp")
        (seconds, micros), last = pipeline.execute()
        return int(max(seconds * 1_000_000 + micros, int(last or 0)))

    def matching(self, pattern: str) -> Iterator[bytes]:
        """The keys of hashes that match a pattern, as SCAN takes it and finds them; the queue's own are left out."""
        own = f"{self._keys.namespace}:".encode()
        for key in self._background.scan_iter(match=pattern, count=AT_ONCE, _type="HASH"):
            if not key.startswith(own):
                yield key

    def erase(self, redis_key: str, terms: Terms, stamp: int) -> bool:
        """Take the vector out of a hash, with what it is of, unless something of the key is live.

        Args:
            redis_key: name of the hash.
            terms: where the vector and what it is of stand.
            stamp: of an item; its vector stays, and those of later ones.

        Returns:
            Whether there was one.

        Raises:
            redis.ResponseError: it is no hash; or the clock was set meanwhile, and nothing was done.
        """
        deadline = self._deadline()
        return bool(self._call("erase", [redis_key], terms.field, terms.provenance_field or "", stamp, deadline))

    def erase_second(self, redis_key: str, second: Second, stamp: int) -> None:
        """The same with the field of a second queue, by the stamp that this had given."""
        fields = second.field, second.provenance_field
        self._call("erase", [redis_key], *fields, stamp, self._deadline(), second=second)

    def _deadline(self) -> str:
        seconds, micros = self._background.time()
        return f"{seconds + micros / 1e6 + self._patience_seconds:.6f}"

    def label(self, lines: Mapping[str, str], terms: Terms) -> int:
        """Write beside vectors what they are of, where nothing says so and nothing of the key is live.

        Args:
            lines: what to write, by redis_key.
            terms: where it stands, and the length of the vectors that are meant.

        Returns:
            Of how many it was written.
        """
        size = size_bytes(terms.dimensions or 0, terms.vector_type)
        return int(self._call("label", list(lines), terms.field, terms.provenance_field or "", size, *lines.values()))
