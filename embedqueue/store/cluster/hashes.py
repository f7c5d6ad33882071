"""The users' hashes of a cluster: each is read and changed in its own slot, after the queue's slot was asked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import redis
from redis.exceptions import ResponseError

from embedqueue.store.clients import close_connections
from embedqueue.store.hashes import AT_ONCE, Hashes, Looked
from embedqueue.store.keys import Keys
from embedqueue.store.records import Terms, as_json, named_member, named_stamp
from embedqueue.values.vectors import size_bytes

from .completion import fence_field
from .line import command, script
from .lines import LATE, Lines
from .nodes import Nodes
from .scripts import ClusterScripts


class ClusterHashes(Hashes):
    """Reads and changes the users' hashes. Thread-safe; see :class:`Hashes`.

    Args:
        scripts: of the queue.
        keys: of the queue.
        lines: to all hashes.
        nodes: of the cluster.
        own: what the names of the queue's keys begin with, and those of its cache.
    """

    def __init__(self, scripts: ClusterScripts, keys: Keys, lines: Lines, nodes: Nodes, own: tuple[bytes, ...]) -> None:
        super().__init__(scripts, keys)
        self._lines = lines
        self._nodes = nodes
        self._own = own

    def fields(self, redis_keys: Sequence[str | bytes], field: str) -> list[bytes | None]:
        """See :meth:`Hashes.fields`."""
        return self._lines.all_of(redis_keys, b"HGET", field)

    def size(self, redis_key: str, field: str) -> int:
        """See :meth:`Hashes.size`."""
        (answer,), _ = self._lines.run([command(b"HSTRLEN", redis_key, field)])
        if isinstance(answer, ResponseError):
            raise answer
        return int(answer)

    def look(self, redis_keys: Sequence[str | bytes], terms: Terms) -> list[Looked]:
        """See :meth:`Hashes.look`: what is live is asked for first, so a vector that is read after that is no older."""
        keys = list(redis_keys)
        live = self._background.hmget(self._keys.latest, keys) if keys else []
        asked = [(b"HSTRLEN", terms.field)]
        if terms.provenance_field is not None:
            asked.append((b"HGET", terms.provenance_field))
        sizes, of = (*self._lines.each_of(keys, asked), [None] * len(keys))[:2]
        found = []
        for size, line, entry in zip(sizes, of, live, strict=True):
            named = (named_member(entry), named_stamp(entry)) if isinstance(entry, bytes) else (None, 0)
            found.append(Looked(size or 0, line or b"", *named))
        return found

    def live(self, redis_keys: Sequence[str], terms: Mapping[str, str]) -> tuple[bool, list[str]]:
        """What the queue knows of keys.

        Args:
            redis_keys: which.
            terms: in what whoever asks has to agree with the workers, by name.

        Returns:
            Whether the books are in order and they agree; and for each key "live", "dead" or "".
        """
        in_order, *found = self._call("known", (), as_json(dict(terms)), *redis_keys)
        return in_order == b"1", [word.decode() for word in found[::2]]

    def matching(self, pattern: str) -> Iterator[bytes]:
        """See :meth:`Hashes.matching`; all masters are looked through, one after the other."""
        for address in self._nodes.masters():
            client = self._nodes.client_of(address, socket_timeout=self._patience_seconds)
            try:
                for key in client.scan_iter(match=pattern, count=AT_ONCE, _type="HASH"):
                    if not key.startswith(self._own):
                        yield key
            finally:
                close_connections(client)

    def erase(self, redis_key: str, terms: Terms, stamp: int) -> bool:
        """See :meth:`Hashes.erase`."""
        if self.live([redis_key], {})[1] == ["live"]:
            return False
        deadline_mono = time.monotonic() + self._patience_seconds
        where = terms.field, fence_field(terms), str(stamp)
        (answer,), _ = self._lines.run([script("erase_one", redis_key, *where, deadline_mono=deadline_mono)])
        if isinstance(answer, ResponseError):
            raise answer
        if answer == LATE:
            raise redis.TimeoutError("the node of the hash has not answered in time")
        return bool(answer == b"1")

    def label(self, lines: Mapping[str, str], terms: Terms) -> int:
        """See :meth:`Hashes.label`."""
        _, words = self.live(list(lines), {})
        size = str(size_bytes(terms.dimensions or 0, terms.vector_type))
        where = terms.field, terms.provenance_field or "", size
        free = [(key, line) for (key, line), word in zip(lines.items(), words, strict=True) if word != "live"]
        answers, _ = self._lines.run([script("label_one", key, *where, line) for key, line in free])
        return sum(answer == 1 for answer in answers)

    def of_texts(self, digests: Mapping[str, str], terms: Terms, vector_bytes: int, few: int) -> dict[str, bytes]:
        """Which hashes have vectors of these very texts.

        Args:
            digests: of the texts, by redis_key.
            terms: in which space, and where they stand.
            vector_bytes: of a vector.
            few: if there are no more, the vectors are read as well.

        Returns:
            The vectors by redis_key; b"" for each where they are many.
        """
        keys, line_field = list(digests), terms.provenance_field or ""
        if len(digests) <= few:  # both by one command, so the vector is of what stands beside it
            answers = self._lines.all_of(keys, b"HMGET", line_field, terms.field)
            read = [(line, vector, len(vector or b"")) for line, vector in (pair or (None, None) for pair in answers)]
        else:
            lines, sizes = self._lines.each_of(keys, [(b"HGET", line_field), (b"HSTRLEN", terms.field)])
            read = [(line, b"", size) for line, size in zip(lines, sizes, strict=True)]
        found = {}
        for key, (line, vector, size) in zip(keys, read, strict=True):
            start = b" ".join((terms.space.encode(), digests[key].encode(), b""))
            its = isinstance(line, bytes) and line.startswith(start) and line[len(start) :].isdigit()
            if its and size == vector_bytes:
                found[key] = vector or b""
        return found
