"""A change of the field: while texts are embedded anew into a second one, and until nobody reads the first any more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from embedqueue.values.errors import EmbedQueueError

from .keys import Keys, Second
from .scripts import Scripts

#: Fields of ``settings``: the second queue that texts go to as well; and, as JSON, what somebody has cut over to.
SECOND, READING = "second", "reading"
#: Why the second queue claims nothing for a moment; its queries go on.
FINISHING = "the change to this field is being finished"


def index_of(reading: Mapping[str, Any], name: str, *, second: bool) -> str:
    """The index that a search by this name is of, by what :meth:`Change.reading` says.

    While its alias is led over, and in a process that goes on with the first field, the alias may name the other.

    Args:
        reading: as it was when it was decided which field is searched.
        name: that was searched by.
        second: whether the search is of the second field.
    """
    for alias, old, new in reading.get("aliases", ()):
        if name in (alias, old):
            return str(new if second else old)
    return name


class Change:
    """What Redis keeps of a change. Thread-safe; every method raises ``redis.RedisError`` where Redis does not answer.

    Args:
        scripts: of the queue.
        keys: of the queue.
    """

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._scripts = scripts
        self._client: Any = scripts.background
        self._keys = keys

    def second(self) -> Second | None:
        """The second queue that texts go to now, or None."""
        word = self._client.hget(self._keys.settings, SECOND)
        return self._keys.second(word.decode()) if word else None

    def begin(self, field: str, provenance_field: str) -> None:
        """From now on texts go to a second queue as well, whichever process enqueues them.

        Raises:
            EmbedQueueError: there is a second field already, another one.
        """
        word = f"{field} {provenance_field}"
        if not self._client.hsetnx(self._keys.settings, SECOND, word):
            found = self.second()
            if found is None or found.word != word:
                raise EmbedQueueError(
                    f"texts go to a second field already, {found.field if found else 'another one'!r}: finish that "
                    "change first (--finish), or take it back (--roll-back)"
                )

    def reading(self) -> dict[str, Any]:
        """What was cut over to: ``field``, and ``aliases``, of each its name, old index and new index; empty before."""
        found = dict(json.loads(self._client.hget(self._keys.settings, READING) or "{}"))
        if "alias" in found:  # the only one, as it was kept before there could be several
            found["aliases"] = [[found.pop("alias"), found.pop("old"), found.pop("new")]]
        return found

    def read_from(self, what: Mapping[str, Any]) -> None:
        """From now on searches and queries are of another field; empty: of the first one again."""
        if what:
            self._client.hset(self._keys.settings, READING, json.dumps(dict(what)))
        else:
            self._client.hdel(self._keys.settings, READING)

    def finish(self, second: Second) -> bool:
        """Put the second queue in the place of the first, whose items go. Returns False while anything is in flight."""
        return self._end(second, "finish") == b"done"

    def give_up(self, second: Second) -> None:
        """From now on texts go to the first queue alone; the second one's items go."""
        self._end(second, "give up")

    def _end(self, second: Second, how: str) -> bytes:
        keys = [key.decode() for key in second.keys]
        answer: bytes = self._scripts.call("end_change", keys, second.word, how)
        return answer
