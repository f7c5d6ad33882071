"""The only module that speaks to Redis: one method a move, each one script, each atomic.

The user's client is never used, changed or closed. What it connects to is taken from it once, and private
clients are made with the same settings: with bytes for replies, and without surprises of protocol or time-outs.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

SCRIPTS: Final = (
    "enqueue", "claim", "complete", "release", "extend", "reject",
    "pause", "status", "look", "retry_dead", "discard_dead", "take_cached",
)  # fmt: skip

#: Seconds for one command of the worker where the user's client names no time limit: it must not hang for ever.
BACKGROUND_TIMEOUT_SECONDS = 10.0
#: Seconds that an enqueue may take to reach Redis where the user's client has no time limit of its own.
ANSWER_SECONDS = 5.0
#: How often an enqueue is sent again because it came late; the first time on a connection tells the server's clock.
LATE_TRIES = 4
#: Seconds that one blocking read of the events may last: few commands a minute, and a dead peer is noticed.
LISTEN_SECONDS = 30.0


class Keys:
    """The names of a queue's keys, in the order in which every script declares them."""

    def __init__(self, namespace: str) -> None:
        self.pending = f"{namespace}:pending"
        self.inflight = f"{namespace}:inflight"
        self.latest = f"{namespace}:latest"
        self.claims = f"{namespace}:claims"
        self.dead = f"{namespace}:dead"
        self.dead_info = f"{namespace}:dead:info"
        self.events = f"{namespace}:events"
        self.pause = f"{namespace}:pause"
        self.pause_level = f"{namespace}:pause:level"
        self.cache_prefix = f"{namespace}:cache:"
        self.all = (
            self.pending, self.inflight, self.latest, self.claims, self.dead,
            self.dead_info, self.events, self.pause, self.pause_level,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim brought.

    Attributes:
        status: "ok", "probe" (these items test a provider that failed) or "paused".
        owner: the name under which the members are held.
        members: what was claimed, in order.
        waiting: items that stay in pending.
        oldest_age_seconds: how long the oldest of those waits, or None.
        lease_end_seconds: seconds until the next lease of anybody ends, or None.
        pause_seconds: what is left of a pause, or None.
        company: "any"; "wait": items on their last delivery wait until nothing is in flight; "none": this is one.
    """

    status: str
    owner: str
    members: list[bytes]
    waiting: int
    oldest_age_seconds: float | None
    lease_end_seconds: float | None
    pause_seconds: float | None
    company: str


@dataclass(frozen=True, slots=True)
class Status:
    """How things stand in Redis; times as in :class:`Claim`, ``now`` by the server's clock."""

    now: float
    waiting: int
    in_flight: int
    dead: int
    oldest_age_seconds: float | None
    lease_end_seconds: float | None
    pause_seconds: float | None
    pause_reason: str
    failing: bool
    unfinished: int

    @property
    def probing(self) -> bool:
        """Whether a call is testing the provider just now."""
        return self.pause_reason.startswith("probe ")


@dataclass(frozen=True, slots=True)
class Notice:
    """One entry of the events stream."""

    kind: str
    by: str
    body: str


@cache
def script_text(name: str) -> str:
    """The Lua of one move, with what all of them begin with."""
    folder = resources.files(__package__) / "scripts"
    return (folder / "prelude.lua").read_text("utf-8") + (folder / f"{name}.lua").read_text("utf-8")


def private_client(client: redis.Redis, **overrides: Any) -> redis.Redis:
    """A client of our own that reaches the same server in the same way as the user's.

    Args:
        client: the user's client, of any shape; it is only read.
        overrides: settings of the connections to set otherwise.
    """
    pool = client.connection_pool
    ours = ("maint_", "orig_", "oss_cluster_", "himport_")  # state of the user's own pool in redis-py 6 to 8
    kwargs = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(ours)}
    kwargs.update(decode_responses=False, encoding="utf-8", encoding_errors="strict", protocol=2)
    kwargs.update(overrides)
    if isinstance(pool, SentinelConnectionPool):
        kwargs.pop("connection_pool", None)
        return redis.Redis(
            connection_pool=SentinelConnectionPool(  # type: ignore[no-untyped-call]
                pool.service_name, pool.sentinel_manager, is_master=pool.is_master, check_connection=True, **kwargs
            )
        )
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=pool.connection_class, **kwargs))


def _seconds_since(then: bytes, now: float) -> float | None:
    return now - float(then) if then else None


def _seconds_until(then: bytes, now: float) -> float | None:
    return float(then) - now if then else None


def _pause_seconds(ms: int) -> float | None:
    if ms == -2:
        return None
    return ms / 1000 if ms >= 0 else 5.0  # a pause that somebody set by hand without an end: look again


class Store:
    """A queue's state in Redis.

    Thread-safe. ``enqueue`` keeps to the user's retry policy; everything else fails at the first error, for
    the worker has its own way of trying again.
    """

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        limit = client.connection_pool.connection_kwargs.get("socket_timeout")
        limit = min(limit or BACKGROUND_TIMEOUT_SECONDS, BACKGROUND_TIMEOUT_SECONDS)
        impatient: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "retry_on_timeout": False,
            "socket_connect_timeout": limit,
        }
        self.keys = Keys(namespace)
        # The user's retry policy, which enqueue keeps to, around each exchange; if the connection tried again within
        # that as well, as redis-py's do, a server that swallows packets would be tried the square of the times.
        connection: Any = private_client(client).connection_pool.make_connection()
        self._retry = connection.retry
        self._front = private_client(client, retry=Retry(NoBackoff(), 0), retry_on_error=[], retry_on_timeout=False)
        self._back = private_client(client, socket_timeout=limit, **impatient)
        self._ears = private_client(client, socket_timeout=LISTEN_SECONDS + BACKGROUND_TIMEOUT_SECONDS, **impatient)
        scripts = {name: self._back.register_script(script_text(name)) for name in SCRIPTS}
        self._evalsha = {name: _bulk([b"EVALSHA", script.sha.encode()]) for name, script in scripts.items()}
        self._keys = [key.encode() for key in self.keys.all]
        self._enqueue_keys = 8, _bulk([b"7", *self._keys[:7]])  # of pauses it need not know
        self._line: Any = None  # the connection of enqueue; only its one leader at a time touches it, and the next two
        self._server_ahead = 0.0  # what has to be added to our monotonic clock for the server's
        self._patience = self._front.connection_pool.connection_kwargs.get("socket_timeout") or ANSWER_SECONDS

    # -- enqueuing ---------------------------------------------------------------------------------------------

    def enqueue(
        self, groups: Sequence[Sequence[bytes]], *, max_pending: int | None, tell_at: int, tell_first: bool
    ) -> tuple[int, list[bool]]:
        """Make groups of pairs durable in one round trip.

        Args:
            groups: of each, redis_key and member alternating; an empty member withdraws the key.
            max_pending: most items that may wait.
            tell_at: tell the workers when so many wait.
            tell_first: tell them when the first one waits, too.

        Returns:
            Items that wait now, and for each group whether it was taken.

        Raises:
            redis.RedisError: nothing is known to have been accepted.
        """
        numbers = [max_pending or 0, tell_at, int(tell_first), len(groups), *(len(group) // 2 for group in groups)]
        parts = [b"%d" % number for number in numbers]
        for group in groups:
            parts += group
        reply = self._enqueue_on_line(parts)
        if max_pending is None:
            return reply, [True] * len(groups)
        return reply[0], [word == b"ok" for word in reply[1:]]

    # -- working -----------------------------------------------------------------------------------------------

    def claim(
        self,
        owner: str,
        limit: int,
        *,
        probe_limit: int,
        lease_seconds: float,
        max_deliveries: int,
        alone: bool,
        urgent: Iterable[str] = (),
    ) -> Claim:
        """Take up to ``limit`` items under a lease. See ``scripts/claim.lua``."""
        reply = self._call("claim", (), limit, probe_limit, owner, lease_seconds, max_deliveries, int(alone), *urgent)
        status, now_text, waiting, oldest, lease_end, pause_ms, company = reply[:7]
        now = float(now_text)
        return Claim(
            status=status.decode(),
            owner=owner,
            members=reply[7:],
            waiting=waiting,
            oldest_age_seconds=_seconds_since(oldest, now),
            lease_end_seconds=_seconds_until(lease_end, now),
            pause_seconds=_pause_seconds(pause_ms),
            company=company.decode(),
        )

    def complete(
        self,
        owner: str,
        field: str,
        if_missing: str,
        items: Sequence[tuple[str, bytes, int]],
        vectors: Sequence[bytes],
    ) -> list[str]:
        """Write vectors and acknowledge.

        Args:
            owner: of the claim.
            field: of the user's hashes.
            if_missing: "skip" or "create".
            items: redis_key, member, and the index of its vector.
            vectors: float32 bytes.

        Returns:
            A word an item: see ``scripts/complete.lua``.
        """
        args: list[Any] = [owner, field, if_missing, len(vectors), *vectors]
        for redis_key, member, index in items:
            args += (redis_key, member, index + 1)
        try:
            reply = self._call("complete", [redis_key for redis_key, _, _ in items], *args)
        except NoPermissionError as error:  # of one key: the others shall not suffer for it
            if len(items) == 1:
                return [f"refused {error}"]
            half = len(items) // 2
            parts = (items[:half], items[half:])
            return [word for part in parts for word in self.complete(owner, field, if_missing, part, vectors)]
        return [word.decode("utf-8", "replace") for word in reply]

    def release(self, owner: str, members: Iterable[bytes] = ()) -> int:
        """Give items back: ``members``, or everything that owners beginning with ``owner`` hold."""
        return int(self._call("release", (), owner, *members))

    def release_probe(self, owner: str) -> None:
        """Let the next one probe: this claim could not put the provider to the test."""
        self._call("release", (), owner, b"")  # no member at all is called that

    def extend(self, owner: str, lease_seconds: float, members: Iterable[bytes]) -> int:
        """Renew leases; returns how many were still held."""
        return int(self._call("extend", (), owner, lease_seconds, *members))

    def reject(self, owner: str, items: Sequence[tuple[bytes, str]]) -> list[str]:
        """Make dead letters of (member, reason) pairs; a word each: "dead" or "stale"."""
        args = [part for item in items for part in item]
        return [word.decode() for word in self._call("reject", (), owner, *args)]

    def pause(
        self,
        owner: str,
        *,
        first_seconds: float,
        most_seconds: float,
        least_seconds: float,
        reason: str,
        redis_keys: list[str],
    ) -> tuple[float, bool]:
        """Stop all claiming for a while; returns the seconds, and whether this was the probe that failed."""
        times = (int(seconds * 1000) for seconds in (first_seconds, most_seconds, least_seconds))
        ms, probe = self._call("pause", (), owner, *times, reason, json.dumps(redis_keys))
        return ms / 1000, probe == b"1"

    # -- looking -----------------------------------------------------------------------------------------------

    def status(self, unfinished_until: float | None = None) -> Status:
        """How things stand; ``unfinished`` counts what was enqueued until then (server time) and is not finished."""
        reply = self._call("status", (), "" if unfinished_until is None else f"{unfinished_until:.6f}")
        now = float(reply[0])
        return Status(
            now=now,
            waiting=reply[1],
            in_flight=reply[2],
            dead=reply[3],
            oldest_age_seconds=_seconds_since(reply[4], now),
            lease_end_seconds=_seconds_until(reply[5], now),
            pause_seconds=_pause_seconds(reply[6]),
            pause_reason=reply[7].decode("utf-8", "replace"),
            failing=reply[8] == b"1",
            unfinished=reply[9],
        )

    def look(self, redis_keys: Sequence[str], field: str) -> list[tuple[str, bytes]]:
        """What became of items: a word and a value each, see ``scripts/look.lua``."""
        try:
            reply = self._call("look", redis_keys, field, *redis_keys)
        except NoPermissionError:  # to read one of the users' hashes
            if len(redis_keys) > 1:
                half = len(redis_keys) // 2
                return self.look(redis_keys[:half], field) + self.look(redis_keys[half:], field)
            reply = self._call("look", [self.keys.events], field, *redis_keys)  # a key of our own, and no hash
        return [(reply[i].decode(), reply[i + 1]) for i in range(0, len(reply), 2)]

    def pending_count(self) -> int:
        """Items that wait."""
        return int(self._back.zcard(self.keys.pending))

    def info(self) -> dict[str, Any]:
        """Redis' own INFO; empty where it is not allowed or not known."""
        try:
            return dict(self._back.info())
        except (RedisError, NotImplementedError):
            return {}

    # -- dead letters ------------------------------------------------------------------------------------------

    def dead_letters(self, limit: int, offset: int) -> list[tuple[bytes, float]]:
        """Members and times of death (Unix time), latest first."""
        reply: Any = self._back.zrevrange(self.keys.dead, offset, offset + limit - 1, withscores=True)
        return [(bytes(member), float(score)) for member, score in reply]

    def dead_info(self, names: Sequence[str | bytes]) -> list[dict[str, Any] | None]:
        """What is known of dead letters, by redis_key (by member where it has none)."""
        if not names:
            return []
        reply: Any = self._back.hmget(self.keys.dead_info, list(names))
        return [None if info is None else json.loads(info.decode("utf-8", "surrogateescape")) for info in reply]

    def dead_names(self) -> list[bytes]:
        """The names of all dead letters."""
        reply: Any = self._back.hkeys(self.keys.dead_info)
        return list(reply)

    def retry_dead(self, names: Sequence[str | bytes]) -> int:
        """Put dead letters back; returns how many."""
        return sum(int(self._call("retry_dead", (), *names[at : at + 1000])) for at in range(0, len(names), 1000))

    def discard_dead(self, names: Sequence[str | bytes]) -> int:
        """Drop dead letters; returns how many."""
        return sum(int(self._call("discard_dead", (), *names[at : at + 1000])) for at in range(0, len(names), 1000))

    # -- notices -----------------------------------------------------------------------------------------------

    def tell(self, kind: str, by: str, body: str = "") -> None:
        """Add a notice to the stream."""
        self._back.xadd(self.keys.events, {"kind": kind, "by": by, "body": body}, maxlen=10000, approximate=True)

    def last_notice_id(self) -> bytes:
        """Where the stream ends now."""
        reply: Any = self._ears.xrevrange(self.keys.events, count=1)
        return bytes(reply[0][0]) if reply else b"0-0"

    def listen(self, after: bytes, block_seconds: float) -> tuple[bytes, list[Notice]]:
        """Wait for notices after the given id; returns the id of the last one and what came."""
        reply: Any = self._ears.xread({self.keys.events: after}, count=500, block=max(1, int(block_seconds * 1000)))
        entries = reply[0][1] if reply else []
        notices = []
        for _, fields in entries:
            texts = [(fields or {}).get(name, b"").decode("utf-8", "replace") for name in (b"kind", b"by", b"body")]
            notices.append(Notice(*texts))
        return (entries[-1][0] if entries else after), notices

    # -- cache -------------------------------------------------------------------------------------------------

    def take_cached(self, digests: Sequence[str], owner: str, hold_seconds: float) -> list[bytes]:
        """What the cache holds: a vector; b"" where it is now the caller's to fill; b"busy" where another fills it."""
        keys = [self.keys.cache_prefix + digest for digest in digests]
        return list(self._call("take_cached", keys, owner, int(hold_seconds * 1000)))

    def put_cached(self, vectors: Iterable[tuple[str, bytes]], ttl_seconds: float) -> None:
        """Keep vectors by digest."""
        pipeline = self._back.pipeline(transaction=False)
        for digest, vector in vectors:
            pipeline.set(self.keys.cache_prefix + digest, vector, px=int(ttl_seconds * 1000))
        pipeline.execute()

    def hold_cached(self, digests: Iterable[str], hold_seconds: float) -> None:
        """Keep reservations for as long again."""
        pipeline = self._back.pipeline(transaction=False)
        for digest in digests:
            pipeline.pexpire(self.keys.cache_prefix + digest, int(hold_seconds * 1000))
        pipeline.execute()

    def release_cached(self, digests: Iterable[str]) -> None:
        """Let go of reservations that will not be filled."""
        self._back.delete(*(self.keys.cache_prefix + digest for digest in digests))

    # -- wire --------------------------------------------------------------------------------------------------

    def _call(self, name: str, further_keys: Sequence[str], *args: str | bytes | float) -> Any:
        """Run a script on a connection of the background pool."""
        pool = self._back.connection_pool
        connection = pool.get_connection()
        try:
            declared = [b"%d" % (len(self.keys.all) + len(further_keys)), *self._keys]
            declared += [key.encode() for key in further_keys]
            parts = [_as_bytes(arg) for arg in args]
            return self._run(connection, name, len(declared), _bulk(declared), parts)
        finally:
            pool.release(connection)

    def _enqueue_on_line(self, parts: list[bytes]) -> Any:
        """Run the enqueue script on a connection that is kept: a third less time than through the client's pool."""
        if self._line is None:
            self._line = self._front.connection_pool.get_connection()
        kept = self._line._sock is not None
        try:
            return self._enqueue_in_time(parts, self._retry)
        except redis.ConnectionError:
            if not kept:
                raise
            # As a pool would, but without asking each time whether the server has closed what was kept. Enqueuing twice
            # does no harm, so it matters not how far the first went.
            return self._enqueue_in_time(parts, None)

    def _enqueue_in_time(self, parts: list[bytes], retry: Retry | None) -> Any:
        for _ in range(LATE_TRIES):
            try:
                return self._run(self._line, "enqueue", *self._enqueue_keys, parts, retry, first=self._too_late)
            except ResponseError as error:
                word, _, now = str(error).partition(" ")
                if word != "LATE":
                    raise
                self._server_ahead = float(now) - time.monotonic()  # a clock was set, or Redis was busy for long
        raise redis.TimeoutError("Redis takes longer for a command than it may take for the answer")

    def _too_late(self) -> bytes:
        """The server's time from which we will not wait for the answer to what is sent now."""
        if self._line._sock is None:
            self._server_ahead = 0.0  # whoever answers now, their clock may be another: they will say that it is late
        return b"%.6f" % (time.monotonic() + self._server_ahead + self._patience)

    def _run(
        self,
        connection: Any,
        name: str,
        declared_count: int,
        declared: bytes,
        parts: list[bytes],
        retry: Retry | None = None,
        *,
        first: Callable[[], bytes] | None = None,
    ) -> Any:
        """One exchange. ``declared`` is the number of keys and the keys, packed: what never changes is packed once.

        ``first`` gives an argument that stands before ``parts`` and is made anew for each try.

        redis-py packs a command three times as slowly (redis.io, "RESP protocol", says how).
        """
        count = b"*%d\r\n" % (2 + declared_count + (first is not None) + len(parts))
        packed = _bulk(parts)

        def exchange() -> Any:
            tail = declared + (_bulk([first()]) if first else b"") + packed
            try:
                connection.send_packed_command([count + self._evalsha[name] + tail])
                return connection.read_response(disable_decoding=True)
            except NoScriptError:  # Redis was restarted, or its scripts were flushed
                connection.send_packed_command([count + _bulk([b"EVAL", script_text(name).encode()]) + tail])
                return connection.read_response(disable_decoding=True)

        try:
            return (retry or connection.retry).call_with_retry(exchange, lambda error: connection.disconnect())
        except BaseException as error:
            if not isinstance(error, ResponseError) or isinstance(error, ReadOnlyError):
                connection.disconnect()  # an answer may still be on its way, or the server is no longer the master
            raise

    def close(self) -> None:
        """Close our own connections, those on which other threads still read included."""
        for client in (self._front, self._back, self._ears):
            with contextlib.suppress(RedisError, OSError, ValueError):  # ValueError: fakeredis, under a reader
                client.connection_pool.disconnect()
        self._line = None


def _bulk(parts: list[bytes]) -> bytes:
    """Strings as the protocol has them inside of a command."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def _as_bytes(value: str | bytes | float) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else repr(value)).encode()
