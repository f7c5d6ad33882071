"""The events stream: notices by which the processes of a queue tell each other what is done or wanted."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from .keys import Keys
from .records import Notice
from .scripts import Scripts

#: Notices that the stream keeps, approximately; names.lua has the same number.
_KEPT = 10_000


class Events:
    """Adds notices and reads them; most are added by the scripts. Thread-safe.

    Every method raises ``redis.RedisError`` where Redis does not answer or refuses.

    Args:
        scripts: of the queue.
        keys: of the queue.
    """

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._background, self._listening = scripts.background, scripts.listening
        self._listen = scripts.listen
        self._key = keys.events

    def tell(self, kind: str, by: str, body: str = "") -> None:
        """Add a notice to the stream.

        Args:
            kind: one of those that docs/design.md, section 3, lists.
            by: the worker that tells, or "".
            body: a JSON list of redis_keys, or a word.
        """
        self._background.xadd(self._key, {"kind": kind, "by": by, "body": body}, maxlen=_KEPT, approximate=True)

    def since(self, mono: float) -> tuple[bytes, list[Notice]]:
        """Tell the id of the last notice of all, and the notices since ``mono`` (``time.monotonic``), 1000 at most."""
        end: Any = self._listening.xrevrange(self._key, count=1)
        if not end:
            return b"0-0", []
        now: Any = self._listening.time()
        seconds = time.monotonic() - mono  # by now, not by when we asked: however late the answer, none is left out
        since_ms = int((now[0] - seconds) * 1000 + now[1] / 1000)
        entries: Any = self._listening.xrevrange(self._key, max=end[0][0], min=since_ms, count=1000)
        return bytes(end[0][0]), _notices(reversed(entries))

    def listen(self, after: bytes, block_seconds: float) -> tuple[bytes, list[Notice]]:
        """Wait for notices.

        Args:
            after: the id of the last notice that is known.
            block_seconds: how long to wait for the first; at most ``clients.LISTEN_SECONDS``.

        Returns:
            The id of the last notice that came, or ``after``, and at most 500 notices.
        """
        block_ms = max(1, int(block_seconds * 1000))
        reply = self._listen("XREAD", "COUNT", 500, "BLOCK", block_ms, "STREAMS", self._key, after)
        entries = reply[0][1] if reply else []
        return (entries[-1][0] if entries else after), _notices(entries)


def _notices(entries: Iterable[tuple[bytes, dict[bytes, bytes] | None]]) -> list[Notice]:
    notices = []
    for place, fields in entries:
        found = (fields or {}).get
        kind, by, body = (found(name, b"").decode("utf-8", "replace") for name in (b"kind", b"by", b"body"))
        notices.append(Notice(kind, by, body, int(place.partition(b"-")[0])))
    return notices
