"""The alias of an index, which is led to another index at once; and an index like another one, over a new field."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import redis

from embedqueue.values.errors import EmbedQueueError

from .definition import Definition, like, named
from .search import Search

#: Seconds between two looks at an index that Redis is building.
POLL_SECONDS = 0.2


class Aliases:
    """Leads aliases of indexes. Every method raises ``redis.RedisError`` where Redis does not answer or refuses.

    Args:
        client: of ours, which speaks RESP2 and decodes nothing.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def behind(self, alias: str, field: str) -> tuple[str, Definition]:
        """The name and the definition of the index that an alias names.

        Raises:
            EmbedQueueError: there is no such alias, or its index is not over this field; or Redis cannot search.
        """
        reply = Search(self._client, field).info(alias)
        name = named(reply)
        if name == alias:
            raise EmbedQueueError(
                f"{alias!r} is the name of the index itself, which no other can take: search by an alias of it "
                f"(FT.ALIASADD ALIAS {alias}), and give that one"
            )
        return name, Search(self._client, field).definition(alias, reply)

    def named_by(self, alias: str) -> str:
        """The name of the index that an alias names now; "" where there is none."""
        try:
            return named(Search(self._client, "").info(alias))
        except EmbedQueueError:
            return ""

    def over(self, field: str) -> Iterator[tuple[str, Definition]]:
        """All indexes over the vectors of a field."""
        search = Search(self._client, field)
        for name in search.names():
            try:
                yield name, search.definition(name, search.info(name))
            except EmbedQueueError:
                continue  # over another field, or dropped meanwhile

    def make_like(self, definition: Definition, name: str, field: str, dimensions: int, data_type: str) -> None:
        """Create an index like another one, over another field of vectors."""
        Search(self._client, field).create(name, like(definition, field, dimensions, data_type))

    def await_built(self, name: str, field: str, deadline_mono: float) -> None:
        """Wait until Redis has looked through all hashes for an index.

        Raises:
            TimeoutError: it takes longer.
        """
        while True:
            reply: Any = Search(self._client, field).info(name)
            facts = dict(zip(reply[::2], reply[1::2], strict=False))
            if float(facts.get(b"percent_indexed", 1)) >= 1 and not int(float(facts.get(b"indexing", 0))):
                return
            if time.monotonic() > deadline_mono:
                raise TimeoutError(f"Redis is still building the index {name!r}: try again later")
            time.sleep(POLL_SECONDS)

    def lead(self, alias: str, name: str) -> None:
        """Have an alias name this index from now on, in one step."""
        client: Any = self._client
        client.execute_command("FT.ALIASUPDATE", alias, name)

    def drop(self, name: str) -> None:
        """Drop an index; the hashes stay."""
        client: Any = self._client
        client.execute_command("FT.DROPINDEX", name)
