"""Several sinks as one."""

from __future__ import annotations

import numpy as np

from embedqueue.values.sink import SinkRow, Sinks


class Writes:
    def __init__(self):
        self.rows = {}

    def write(self, rows):
        self.rows |= {row.redis_key: row for row in rows}


class Reads(Writes):
    def remove(self, redis_keys, stamp):
        for key in redis_keys:
            self.rows.pop(key, None)

    def read(self, redis_keys):
        return {key: self.rows.get(key) for key in redis_keys}


def row(redis_key, stamp):
    return SinkRow(redis_key, np.zeros(2, np.float32), stamp, "m/2/-", "")


def test_those_that_can_are_asked():
    """Of several that write a key the first tells; one that only writes is left out."""
    plain, first, second = Writes(), Reads(), Reads()
    sinks = Sinks(plain, first, second)
    sinks.write([row("doc:1", 1)])
    first.write([row("doc:1", 2)])
    assert sinks.read(["doc:1"])["doc:1"].stamp == 2
    sinks.remove(["doc:1"], 3)
    assert sinks.read(["doc:1"]) == {"doc:1": None}
    assert list(plain.rows) == ["doc:1"]
