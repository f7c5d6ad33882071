"""Creates an index in Redis, and searches through it. Needs Redis 8, or an older one with the search module."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import ResponseError

from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.vectors import FLOAT16, FLOAT32

from .definition import Definition, escaped, told
from .hits import SearchHit, fields_of, score_of

#: Seconds for which is remembered what an index is: it may be dropped, and created otherwise.
REMEMBERED_SECONDS = 60.0
#: Under which name a search returns the distance; no field of a hash has it.
_DISTANCE = "__embedqueue_distance"
#: The numbers of an index's vectors, by its own word.
_NUMBERS: Mapping[str, str] = {"FLOAT32": FLOAT32, "FLOAT64": "<f8", "FLOAT16": FLOAT16}
_NO_INDEX = re.compile(r"no such index|unknown index|index not found", re.I)


class Search:
    """Searches in Redis. Thread-safe.

    Args:
        client: of ours, which speaks RESP2 and decodes nothing.
        vector_field: of the users' hashes.
    """

    def __init__(self, client: redis.Redis, vector_field: str) -> None:
        self._client: Any = client
        self._vector_field = vector_field
        self._remembered: dict[str, tuple[float, Definition]] = {}  # by name, and since when; changed in one step

    def create(self, name: str, definition: Definition) -> None:
        """Create an index, unless an equal one is there.

        Args:
            name: of the index.
            definition: what it is to be.

        Raises:
            EmbedQueueError: another one of this name is there; or there can be no index here.
            redis.RedisError: Redis does not answer, or refuses.
        """
        self._remembered.pop(name, None)
        try:
            self._run(*definition.command(name))
        except ResponseError as error:
            if "already exists" not in str(error):
                raise
            if differences := definition.differences(self._look(name)):
                raise EmbedQueueError(
                    f"there is another index {name!r}, and it differs in {differences}; drop it first "
                    f"(FT.DROPINDEX {name}), or take another name"
                ) from None

    def find(
        self, name: str, vector: Sequence[float], k: int, where: str | None, return_fields: Sequence[str] | None
    ) -> list[SearchHit]:
        """The nearest hashes, the nearest first.

        Args:
            name: of the index.
            vector: of the query.
            k: how many at most.
            where: a filter in the language of Redis' search, or None.
            return_fields: which fields come along; None for all but the vector.

        Raises:
            EmbedQueueError: there is no such index, or it does not hold such vectors.
            redis.RedisError: Redis does not answer, or refuses; so it does a filter that it cannot read.
        """
        import numpy as np  # whoever only enqueues does without: see values/vectors.py

        index = self._known(name)
        if index.dimensions != len(vector):
            raise EmbedQueueError(
                f"the index {name!r} holds vectors of {index.dimensions} numbers, and the query's has {len(vector)}"
            )
        if index.data_type not in _NUMBERS:
            raise EmbedQueueError(f"the index {name!r} holds vectors of {index.data_type}, which are not known here")
        query = f"{f'({where})' if where else '*'}=>[KNN {k} @{escaped(index.alias)} $vector AS {_DISTANCE}]"
        words: list[Any] = ["FT.SEARCH", name, query, "PARAMS", 2, "vector"]
        words += [np.asarray(vector, _NUMBERS[index.data_type]).tobytes(), "SORTBY", _DISTANCE, "LIMIT", 0, k]
        if return_fields is not None:
            wanted = dict.fromkeys([_DISTANCE, *return_fields])
            words += ["RETURN", len(wanted), *wanted]
        reply = self._run(*words, "DIALECT", 2)
        leave_out = {_DISTANCE} if return_fields is not None else {_DISTANCE, self._vector_field}
        hits = []
        for key, values in zip(reply[1::2], reply[2::2], strict=True):
            if values is not None:  # it has expired meanwhile
                fields = fields_of(zip(values[::2], values[1::2], strict=True), raw=self._vector_field)
                score = score_of(index.metric, float(fields[_DISTANCE]))
                shown = {field: value for field, value in fields.items() if field not in leave_out}
                hits.append(SearchHit(key.decode("utf-8", "replace"), score, shown))
        return hits

    def _known(self, name: str) -> Definition:
        since_mono, definition = self._remembered.get(name, (0.0, None))
        if definition is None or time.monotonic() - since_mono > REMEMBERED_SECONDS:
            definition = self._look(name)
            self._remembered[name] = time.monotonic(), definition
        return definition

    def _look(self, name: str) -> Definition:
        return self.definition(name, self.info(name))

    def info(self, name: str) -> Any:
        """What ``FT.INFO`` answers of an index, or of the one that an alias names; raises as :meth:`find`."""
        return self._run("FT.INFO", name)

    def definition(self, name: str, info: Any) -> Definition:
        """What an index is, by its :meth:`info`; raises ``EmbedQueueError`` where it is not over the field."""
        return told(name, info, self._vector_field)

    def names(self) -> list[str]:
        """The names of all indexes."""
        return [name.decode("utf-8", "replace") for name in self._run("FT._LIST")]

    def _run(self, *command: Any) -> Any:
        database = self._client.connection_pool.connection_kwargs.get("db") or 0
        if int(database) != 0:
            raise EmbedQueueError(f"Redis searches its database 0 only, and this client uses database {database}")
        try:
            return self._client.execute_command(*command)
        except ResponseError as error:
            if "unknown command" in str(error).lower():
                raise EmbedQueueError(
                    "this Redis has no search module, so it cannot search by vector: take Redis 8, or Redis Stack"
                ) from None
            if _NO_INDEX.search(str(error)):
                raise EmbedQueueError(
                    f"there is no index {command[1]!r} in Redis: queue.create_index(...) makes one"
                ) from None
            raise
