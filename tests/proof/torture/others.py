"""Another program at the same queue, as the asyncio design: it takes members, puts some back, and leaves its own."""

from __future__ import annotations

import json
import random
import time
import zlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import redis

from embedqueue.values.item import encode_member
from tests.proof.torture.texts import DIMENSIONS, digest, text_of, version_of
from tests.provider import vector_of

Fate = Literal["embedded", "dropped", "put back"]
#: What becomes of what it takes, by key: so it never writes a vector after a text of the same key that it has put back
#: itself. Without an order of its own it could break the promises that the rig looks after.
FATES: tuple[Fate, ...] = ("embedded", "dropped", "put back")
#: Its own keys, and those of what nobody can embed.
KEYS = [f"doc:other:{number}" for number in range(12)]
JUNK_KEY = "doc:other:junk"

#: Seconds for which it tries to put back what it has, in the end.
END_SECONDS = 20.0
#: Seconds for which it waits for something to take: workers are quick.
TAKE_SECONDS = 0.5
#: The score of what it may have taken, or not.
UNKNOWN = b"unknown"

#: Take members, as ZPOPMIN would, and write their vectors where it has any: in one step, so that no newer text comes
#: between. It leaves alone what our books do not name: that may be older than a vector which stands in the hash.
#: KEYS pending, latest, the hashes; ARGV three for each: redis_key, member, vector or "". Answer: scores, or "".
TAKE = """
local answer = {}
for i = 3, #KEYS do
  local key, member, vector = ARGV[3 * i - 8], ARGV[3 * i - 7], ARGV[3 * i - 6]
  local named = redis.call("HGET", KEYS[2], key)
  local score = redis.call("ZSCORE", KEYS[1], member)
  answer[#answer + 1] = ""
  if score and named and string.sub(named, -#member) == member then
    redis.call("ZREM", KEYS[1], member)
    answer[#answer] = score
    if vector ~= "" then
      redis.call("HSET", KEYS[i], "embedding", vector)
    end
  end
end
return answer
"""
#: Leave members with the time as their score, as time.time() would give it. KEYS pending; ARGV members.
LEAVE = """
local time = redis.call("TIME")
for i, member in ipairs(ARGV) do
  redis.call("ZADD", KEYS[1], string.format("%.6f", time[1] + time[2] / 1000000 + i / 1000000), member)
end
"""


def fate_of(redis_key: str) -> Fate:
    """What becomes of a member of this key when it is taken."""
    return FATES[zlib.crc32(redis_key.encode()) % len(FATES)]


class OtherProgram:
    """Takes and leaves. What it does stands in a journal, as the processes' own does.

    Args:
        client: makes a client of the Redis of the run.
        rng: chooses.
        write: writes a line of its journal: event, facts.
    """

    def __init__(self, client: Callable[[], redis.Redis], rng: random.Random, write: Callable[..., None]) -> None:
        self._client = client
        self._rng = rng
        self.write = self._write = write
        self._held: list[tuple[float, str, int, bytes]] = []  # to be put back: score, key, version, member
        self._versions = dict.fromkeys(KEYS, 0)
        self._junk = 0

    def take(self) -> str | None:
        """Take the oldest members away, and do with each what its key decides. It tries until it finds some."""
        client: Any = self._client()
        deadline_mono = time.monotonic() + TAKE_SECONDS
        while time.monotonic() < deadline_mono:
            if self._take(client):
                return "members taken away"
            time.sleep(0.002)
        return None

    def _take(self, client: Any) -> bool:
        found = []
        for member in client.zrange("embed_queue:pending", 0, self._rng.choice([0, 4, 19])):
            try:
                text = json.loads(member)["text"]
            except (ValueError, LookupError, TypeError):
                continue
            named = version_of(text)
            if named is not None:
                found.append((*named, member, vector_of(text, DIMENSIONS)))
        if not found:
            return False
        lines: list[Any] = []
        for key, _, member, vector in found:
            lines += [key, member, np.asarray(vector, "<f4").tobytes() if fate_of(key) == "embedded" else b""]
        keys = ["embed_queue:pending", "embed_queue:latest", *(key for key, *_ in found)]
        try:
            scores = client.eval(TAKE, len(keys), *keys, *lines)
        except redis.RedisError:  # whether it was done nobody can say
            scores = [UNKNOWN] * len(found)
        for (key, version, member, vector), score in zip(found, scores, strict=True):
            if score:
                facts = {"vector": digest(vector)} if fate_of(key) == "embedded" else {}
                self._write("taken", key=key, version=version, **facts)
                if fate_of(key) == "put back" and score is not UNKNOWN:
                    self._held.append((float(score), key, version, member))
        return any(scores)

    def put_back(self) -> str | None:
        """Put back what it could not embed, under the old scores."""
        held, self._held = self._held, []
        if not held:
            return None
        try:
            self._client().zadd("embed_queue:pending", {member: score for score, _, _, member in held})
        except redis.RedisError:
            self._held = held
            return None
        for _, key, version, _ in held:
            self._write("returned", key=key, version=version)
        return "members put back"

    def leave(self) -> str | None:
        """Leave texts of its own, in one style of JSON or another."""
        keys = self._rng.sample(KEYS, self._rng.choice([1, 3]))
        for key in keys:
            self._versions[key] += self._rng.random() < 0.8 or self._versions[key] == 0
        named = {key: self._versions[key] for key in keys}
        members = [self._encode(key, text_of(key, version)) for key, version in named.items()]
        return self._leave("members left", members, lambda event: self._write(event, versions=named))

    def _encode(self, key: str, text: str) -> bytes:
        style = self._rng.randrange(3)
        if style == 0:
            return encode_member(key, text)
        pair = {"redis_key": key, "text": text}
        return json.dumps(pair if style == 1 else dict(reversed(pair.items()))).encode()

    def junk(self) -> str | None:
        """Leave what nobody can embed: each has to become a dead letter."""
        self._junk += 1
        kind = self._rng.randrange(4)
        key = f"{JUNK_KEY}:{self._junk}"
        name, member = {
            0: (f"no JSON {self._junk}", f"no JSON {self._junk}"),
            1: (key, json.dumps({"redis_key": key, "text": " \t "})),
            2: (f'{{"redis_key":"{key}"}}', f'{{"redis_key":"{key}"}}'),
            3: (f"embed_queue:{self._junk}", json.dumps({"redis_key": f"embed_queue:{self._junk}", "text": "text"})),
        }[kind]

        def tell(event: str) -> None:
            if event == "accepted":
                self._write("junk", name=name)

        return self._leave("members that are not ours left", [member.encode()], tell)

    def _leave(self, name: str, members: list[bytes], tell: Callable[[str], None]) -> str | None:
        tell("try")
        try:
            self._client().eval(LEAVE, 1, "embed_queue:pending", *members)
        except redis.RedisError:
            return None
        tell("accepted")
        return name

    def end(self) -> None:
        """Put back what it still has, and end."""
        deadline_mono = time.monotonic() + END_SECONDS
        while self._held and self.put_back() is None and time.monotonic() < deadline_mono:
            time.sleep(0.1)
        self._write("stopped")
