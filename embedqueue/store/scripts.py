"""The Lua scripts, and how they are run: each in one round trip, on connections of our own."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from embedqueue.values.errors import EmbedQueueError

from .clients import (
    BACKGROUND_TIMEOUT_SECONDS,
    LISTEN_SECONDS,
    LONG_COMMAND_BYTES,
    ask,
    close_connections,
    private_client,
    release_connection,
    retry_policy,
    socket_timeout,
    take_connection,
)
from .keys import Keys, Second
from .replicas import Replicas

SCRIPTS: Final = (
    "enqueue", "enqueue_more", "claim", "complete", "release", "release_all", "release_probe", "extend", "reject",
    "fail", "status", "look", "adopt", "forget_ghosts", "dead_letters", "retry_dead", "discard_dead", "erase",
    "label", "take_cached", "hold_cached", "announce", "rehearse", "settle", "reserve_budget", "settle_budget",
    "raise_budget", "stamps", "stall",
    "enqueue_both", "end_change", "note_run",
    "list_items", "find_items",
    "lead", "keep_job", "outsource", "give_back", "pull",
)  # fmt: skip
#: Those of them that share what stands in ``prelude_claims.lua``.
OF_CLAIMS: Final = tuple(
    name
    for name in SCRIPTS
    if name not in ("enqueue", "release_probe", "discard_dead", "hold_cached", "rehearse", "end_change")
)

#: Those of them that know of money.
OF_BUDGET: Final = ("claim", "reserve_budget", "settle_budget", "raise_budget")
#: Those of them that ``buckets.lua`` stands in front of, where a queue has limits.
OF_LIMITS: Final = ("claim", "release", "release_all", "status", "settle")

#: The layout of the queue's keys that the scripts know; names.lua has the same.
LAYOUT: Final = 2

#: What a node of a cluster says to a client that knows nothing of clusters.
OF_CLUSTERS: Final = (AskError, ClusterCrossSlotError, ClusterDownError)
GIVE_A_CLUSTER: Final = (
    "this Redis is a node of a Redis Cluster, and the client knows nothing of clusters: give the queue a "
    "redis.RedisCluster(...) instead of a redis.Redis, or in REDIS_URL write redis+cluster://HOST:PORT"
)

#: Seconds that an enqueue may take to reach Redis where the user's client has no time limit of its own.
ANSWER_SECONDS = 5.0
#: How often an enqueue is sent because somebody has begun, or ended, to have texts go to a second field.
SECOND_TRIES = 4
#: How often an enqueue is sent again because it came late; the first time on a connection tells the server's clock.
LATE_TRIES = 4


def script_parts(name: str, limited: bool = False) -> tuple[str, ...]:
    """The files that make up the script of one move: what it shares with others, and its own last."""
    first = ("names", "enqueue_one") if name == "enqueue" else ("names",)
    shared = (
        *(("prelude_claims",) if name in OF_CLAIMS else ()),
        *(("buckets",) if limited and name in OF_LIMITS else ()),
        *(("budget",) if name in OF_BUDGET else ()),
    )
    if name == "enqueue_both":
        return ("prelude", *shared, "if_changed", "since", "within", "enqueue")
    if name in ("outsource", "pull"):
        shared += ("slice",)
    last = ("more", "if_changed", "fill", "since", "within", "enqueue") if name == "enqueue_more" else (name,)
    return (*first, "prelude", *shared, *last)


@cache
def script_text(name: str, limited: bool = False) -> str:
    """The Lua of one move, with what it shares with others; ``limited``: of a queue with limits."""
    text = "".join(map(read_part, script_parts(name, limited)))
    if name == "enqueue_both":
        begin, end = read_part("names") + read_part("enqueue_both"), read_part("both_queues")
        return f"{begin}local function take_in()\n{text}end\n{end}"
    return text


@cache
def read_part(name: str) -> str:
    """One file of Lua."""
    return (resources.files(__package__) / "lua" / f"{name}.lua").read_text("utf-8")


class _Sender:
    """Sends one enqueue after another, on a connection of its own, and numbers them.

    So a copy of one that the network held back is known as such when it comes, whatever was sent since.

    Args:
        client: whose pool gives the connection, which is never put back.

    Attributes:
        name: under which Redis keeps the number.
        number: of the last enqueue.
        connection: as ``take_connection`` gives it.
        stands: whether it is connected, as far as we know.
        server_ahead: seconds that have to be added to our monotonic clock for the server's.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.name = uuid.uuid4().hex[:12].encode()
        self.number = 0
        self.server_ahead = 0.0
        self.connection = take_connection(client)
        self.stands = True
        self.connection.register_connect_callback(self._has_connected)

    def _has_connected(self, connection: Any) -> None:
        """redis-py has connected; ``drop`` knows when it was disconnected."""
        self.stands = True

    def connect(self) -> None:
        """Connect, if need be, and where the master is now: what connects by itself asks no Sentinel (redis-py 8)."""
        if not self.stands:
            self.connection.connect()

    def drop(self) -> None:
        """Disconnect: an answer may still be on its way, or the server is no longer the master."""
        self.connection.disconnect()
        self.stands = False
        self.server_ahead = 0.0  # whoever answers next, their clock may be another: they will say that it is late


class Scripts:
    """Runs the scripts, each in one round trip. Thread-safe, but for ``enqueue``.

    ``enqueue`` keeps to the user's retry policy. Everything else fails at the first error, because the worker has its
    own way of trying again.

    Args:
        client: the user's client; it is only read.
        keys: the names of the queue's keys.
        replicas: that have to have what is enqueued; None: none.
        limited: whether the queue has limits: only then do the scripts know of them.
        names: of the scripts.
        last_keys: that every script declares behind all others.

    Attributes:
        on_cluster: whether the client knows of clusters.
        background: the client for the worker's commands that need no script.
        second: the second queue that texts go to as well, as far as an enqueue of this process has heard of it.
        patience_seconds: for which such a command, and a script but an enqueue, is waited for.
        listening: the client that reads the events; its reads may block for ``LISTEN_SECONDS``.
    """

    on_cluster = False

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        replicas: Replicas | None = None,
        *,
        limited: bool = False,
        names: Sequence[str] = SCRIPTS,
        last_keys: Sequence[str] = (),
    ) -> None:
        limit = min(socket_timeout(client) or BACKGROUND_TIMEOUT_SECONDS, BACKGROUND_TIMEOUT_SECONDS)
        self.patience_seconds = limit
        impatient: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "retry_on_timeout": False,
            "socket_connect_timeout": limit,
        }
        # The user's retry policy, which enqueue keeps to, around each exchange; if the connection tried again within
        # that as well, as redis-py's do, a server that swallows packets would be tried the square of the times.
        self._retry = retry_policy(client)
        self._enqueuing = private_client(client, retry=Retry(NoBackoff(), 0), retry_on_error=[], retry_on_timeout=False)
        self.background = private_client(client, socket_timeout=limit, **impatient)
        self.listening = private_client(client, socket_timeout=LISTEN_SECONDS + BACKGROUND_TIMEOUT_SECONDS, **impatient)
        self._limited = limited
        scripts = {name: self.background.register_script(self._text(name)) for name in names}
        self._evalsha = {name: _packed(b"EVALSHA", script.sha.encode()) for name, script in scripts.items()}
        self._keys = [key.encode() for key in keys.all]
        self._second_of = keys.second
        self.second: Second | None = None  # as far as this process knows; Redis says at an enqueue if that is wrong
        self._last_keys = tuple(key.encode() for key in last_keys)
        enqueue_keys = (*self._keys[:10], *self._last_keys)  # of pauses it need not know
        self._enqueue_keys = (b"%d" % len(enqueue_keys), *enqueue_keys)
        self._patience = socket_timeout(self._enqueuing) or ANSWER_SECONDS
        self._replicas = replicas
        self._senders: list[_Sender] = []  # that are free; one serves all, for there is one enqueue at a time
        self._closed = False

    def call(
        self, name: str, further_keys: Sequence[str], *args: str | bytes | float, second: Second | None = None
    ) -> Any:
        """Run a script on a connection of the background client.

        Args:
            name: one of ``SCRIPTS``.
            further_keys: users' hashes, cache entries, limits, budget, workers; the script finds them behind the
                queue's own keys.
            args: what its head lists as ``ARGV``.
            second: run it on this second queue instead.

        Returns:
            What its head lists as its answer: integers, bytes, and lists of these.

        Raises:
            redis.ResponseError: Redis refused the script or a command in it (memory, ACL); nothing need be repeated.
            redis.RedisError: Redis does not answer; whether the script has run is not known.
        """
        with self._taken(self.background) as connection:
            own_keys = self._keys if second is None else second.keys
            keys = [*own_keys, *(key.encode() for key in further_keys), *self._last_keys]
            parts = [_as_bytes(arg) for arg in args]
            return self._run(connection, name, len(keys) + 1, _packed(b"%d" % len(keys), *keys), parts)

    def _text(self, name: str) -> str:
        return script_text(name, self._limited)

    def _fit(self, parts: list[bytes]) -> list[bytes]:
        """The arguments of a script as they are sent."""
        return parts

    def listen(self, *command: str | bytes | int) -> Any:
        """Run a command that blocks, on a connection of the client ``listening``; ``close()`` ends it.

        Returns:
            Its answer, as redis-py gives it.

        Raises:
            redis.RedisError: Redis does not answer, or these scripts are closed.
        """
        with self._taken(self.listening) as connection:
            if self._closed:  # asked once it is connected: from now on, close() wakes us
                raise redis.ConnectionError("closed")
            connection.send_command(*command)
            return self.listening.parse_response(connection, str(command[0]))  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def _taken(self, client: redis.Redis) -> Iterator[Any]:
        """A connection of a client's pool for one exchange."""
        connection = take_connection(client)
        try:
            yield connection
        finally:
            release_connection(client, connection)

    def enqueue(
        self,
        settings: tuple[int, ...],
        parts: list[bytes],
        more: Mapping[str, Any] | None = None,
        hashes: Sequence[str] = (),
    ) -> tuple[Any, int | None]:
        """Run the enqueue script on a connection that is kept: a third less time than through the client's pool.

        Args:
            settings: arguments that are the same every time.
            parts: those that stand between the sender with its number, and the time from which nobody will wait for the
                answer.
            more: what the head of ``more.lua`` lists; None: nothing of it.
            hashes: those that ``if_changed.lua``, ``fill.lua`` or ``since.lua`` has to see.

        Returns:
            What the head of ``enqueue.lua`` lists as its answer, with the stamp of a second queue behind it, b"0"
            where there is none, and what that file adds. And how many replicas have it; None where none have to.

        Raises:
            redis.RedisError: nothing is known to have been accepted.
            EmbedQueueError: the keys are of another release's layout, and nothing was accepted; or replicas have to
                have it, and Redis refuses to tell.
        """
        try:
            sender = self._senders.pop()
        except IndexError:  # at first; or a signal's handler enqueues, and has interrupted an enqueue
            sender = _Sender(self._enqueuing)
        try:
            sender.number += 1
            stood = sender.stands
            try:
                return self._to_its_queues(sender, settings, parts, more, hashes, self._retry)
            except redis.ConnectionError:
                if not stood or self.on_cluster:  # there, the policy has asked for as long as anybody has patience
                    raise
                # As a pool would, but without asking each time whether the server has closed what was kept. The number
                # tells that it is the same enqueue, so it matters not how far the first went.
                return self._to_its_queues(sender, settings, parts, more, hashes, None)
        finally:
            self._senders.append(sender)
            if self._closed:
                self._drop_senders()

    def _to_its_queues(
        self,
        sender: _Sender,
        settings: tuple[int, ...],
        parts: list[bytes],
        more: Mapping[str, Any] | None,
        hashes: Sequence[str],
        retry: Retry | None,
    ) -> tuple[Any, int | None]:
        """Run the script for the queues that texts go to, as this process knows them; Redis says if that is wrong."""
        for _ in range(SECOND_TRIES):
            second = self.second
            try:
                if second is not None:
                    told = json.dumps({**(more or {}), "second": second.word}).encode()
                    keys = [*self._keys, *second.keys]
                    return self._in_time(sender, "enqueue_both", settings, [*parts, told], hashes, retry, keys)
                name, told_of = "enqueue", parts
                if more:
                    name, told_of = "enqueue_more", [*parts, json.dumps(more).encode()]
                answer, replicas = self._in_time(sender, name, settings, told_of, hashes, retry, self._keys)
                return [*answer[:3], b"0", *answer[3:]], replicas
            except ResponseError as error:
                word, _, value = str(error).partition(" ")
                if word != "SECOND":
                    raise
                self.second = self._second_of(value) if value else None
        raise EmbedQueueError("whether texts go to a second field changes all the time: enqueue again")

    def _in_time(
        self,
        sender: _Sender,
        name: str,
        settings: tuple[int, ...],
        parts: list[bytes],
        hashes: Sequence[str],
        retry: Retry | None,
        own_keys: Sequence[bytes],
    ) -> tuple[Any, int | None]:
        if name == "enqueue":
            count, declared = _declared_before(self._enqueue_keys, settings)
        else:
            keys = [*own_keys, *(key.encode() for key in hashes), *self._last_keys]
            count, declared = _declared((b"%d" % len(keys), *keys), settings)
        parts = [sender.name, b"%d" % sender.number, *parts]
        for _ in range(LATE_TRIES):
            try:
                answer = self._run(
                    sender.connection,
                    name,
                    count,
                    declared,
                    parts,
                    retry,
                    last=lambda: b"%.6f" % (time.monotonic() + sender.server_ahead + self._patience),
                    sender=sender,
                    replicas=self._replicas,
                )
                return answer if self._replicas is not None else (answer, None)
            except ResponseError as error:
                word, _, now = str(error).partition(" ")
                if word != "LATE":
                    raise
                sender.server_ahead = float(now) - time.monotonic()  # a clock was set, or Redis was busy for long
        raise redis.TimeoutError("Redis takes longer for a command than it may take for the answer")

    def _run(
        self,
        connection: Any,
        name: str,
        declared_count: int,
        declared: bytes,
        parts: list[bytes],
        retry: Retry | None = None,
        *,
        last: Callable[[], bytes] | None = None,
        sender: _Sender | None = None,
        replicas: Replicas | None = None,
    ) -> Any:
        """One exchange.

        ``declared`` begins with the number of keys and the keys, packed: what never changes is packed once. ``last``
        gives an argument that stands behind ``parts``, made anew for each try, when all before it is sent. The
        connection is that of ``sender``, if there is one. Where ``replicas`` have to have what the script writes, the
        answer is a pair: the script's, and how many have it.

        redis-py packs a command three times as slowly (redis.io, "RESP protocol", says how).
        """
        parts = self._fit(parts)
        count = b"*%d" % (2 + declared_count + (last is not None) + len(parts))
        pieces = _pieces(parts)
        drop = connection.disconnect if sender is None else sender.drop

        def end() -> bytes:
            return b"\r\n" if last is None else _packed(last()) + b"\r\n"

        def send(script: bytes) -> Any:
            if sender is not None:
                sender.connect()
            command = b"".join((count, script, declared, *pieces))
            if replicas is not None:
                return replicas.ask(connection, command, end, self._patience, drop)
            return ask(connection, command, end)

        def exchange() -> Any:
            try:
                return send(self._evalsha[name])
            except NoScriptError:  # Redis was restarted, or its scripts were flushed
                text = self._text(name).encode()
                # With a large command, the text might be what makes it too large.
                if sum(map(len, parts)) > LONG_COMMAND_BYTES and _loaded(connection, text):
                    return send(self._evalsha[name])
                return send(_packed(b"EVAL", text))

        try:
            return (retry or connection.retry).call_with_retry(exchange, lambda error: drop())
        except BaseException as error:
            if not isinstance(error, ResponseError) or isinstance(error, ReadOnlyError):
                drop()
            elif str(error).startswith("LAYOUT"):
                raise EmbedQueueError(
                    f"the queue's keys in Redis have layout {str(error)[7:]}, and this release of embedqueue knows "
                    f"layout {LAYOUT} only: use the release that wrote them, or another namespace"
                ) from None
            elif not self.on_cluster and (isinstance(error, OF_CLUSTERS) or str(error).startswith("CROSSSLOT")):
                raise EmbedQueueError(GIVE_A_CLUSTER) from error
            raise

    def close(self) -> None:
        """Close our own connections, for good: what is called from now on disconnects when it ends."""
        self._closed = True
        for client in (self._enqueuing, self.background, self.listening):
            with contextlib.suppress(RedisError, OSError, ValueError):  # ValueError: fakeredis, under a reader
                close_connections(client)
        self._drop_senders()

    def _drop_senders(self) -> None:
        with contextlib.suppress(IndexError):  # a thread that enqueues takes its sender away, and drops it when it ends
            while True:
                self._senders.pop().drop()


def _loaded(connection: Any, text: bytes) -> bool:
    """Load a script into Redis; returns whether that is allowed."""
    try:
        ask(connection, b"*3" + _packed(b"SCRIPT", b"LOAD", text), lambda: b"\r\n")
    except NoPermissionError:
        return False
    return True


def _pieces(parts: Iterable[bytes]) -> list[bytes]:
    """Arguments as they follow on others in a command, to be joined once: copies of vectors would cost the most.

    What ends one argument in the protocol stands here before the next.
    """
    pieces: list[bytes] = []
    for part in parts:
        pieces += (b"\r\n$%d\r\n" % len(part), part)
    return pieces


def _packed(*parts: bytes) -> bytes:
    """The same, joined already."""
    return b"".join(_pieces(parts))


def _declared(keys: tuple[bytes, ...], settings: tuple[int, ...]) -> tuple[int, bytes]:
    """How many arguments they are, and how these stand in a command."""
    parts = [*keys, *(b"%d" % number for number in settings)]
    return len(parts), _packed(*parts)


#: The same, of what nearly every enqueue declares.
_declared_before = cache(_declared)


def _as_bytes(value: str | bytes | float) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else repr(value)).encode()
