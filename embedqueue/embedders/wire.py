"""Connections that keep a deadline and a limit.

A read timeout alone bounds one packet: a server that sends a byte a second keeps
a caller for days, be it in the body or in the headers. Here every wait of a socket is cut to what remains of the call,
and every byte that comes counts, those of heads and of chunk sizes included: not all who read them have a limit.
"""

from __future__ import annotations

import http.client
import io
import math
import socket
import threading
import time
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

#: Interim answers that are read past, of one call; its deadline and its bytes bound them as well.
_MOST_INTERIM_ANSWERS = 10_000
#: Bytes that one read may take from the socket: few reads for an answer of a megabyte, little memory for a short one.
_BUFFER_BYTES = 1 << 16


class _CallClock(threading.local):
    """How long the current thread's call may still wait, and what it may take. A connection serves one thread: ours."""

    read_seconds = 60.0
    deadline_mono = math.inf
    bytes_left: float = math.inf

    def wait_seconds(self) -> float:
        """What the next wait may take.

        Raises:
            TimeoutError: the deadline has passed.
        """
        remaining = self.deadline_mono - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the deadline of the call has passed")
        return min(self.read_seconds, remaining)

    def count(self, received_bytes: int) -> None:
        """Take note of bytes that came.

        Raises:
            OSError: they are too many.
        """
        self.bytes_left -= received_bytes
        if self.bytes_left < 0:
            raise OSError("the answer has no end")


_clock = _CallClock()


def start_clock(read_seconds: float, deadline_seconds: float, most_bytes: int) -> None:
    """Start a call of the current thread.

    Args:
        read_seconds: how long the server may keep silent.
        deadline_seconds: how long the whole call may take from now.
        most_bytes: how much the server may send, head and body as they come over the wire.
    """
    _clock.bytes_left = most_bytes
    _clock.read_seconds = read_seconds
    _clock.deadline_mono = time.monotonic() + deadline_seconds


class _TimedReader(io.RawIOBase):
    """What a socket receives, within the time of the call."""

    def __init__(self, received: io.RawIOBase, sock: socket.socket) -> None:
        super().__init__()
        self._received = received
        self._sock = sock
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if self.ended:
            return 0
        self._sock.settimeout(_clock.wait_seconds())
        received_bytes: int = self._received.readinto(buffer)  # type: ignore[attr-defined,unused-ignore]
        _clock.count(received_bytes)
        return received_bytes

    def close(self) -> None:
        self._received.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._reader = _TimedReader(self.fp.detach(), sock)
        self.fp: Any = io.BufferedReader(self._reader, _BUFFER_BYTES)
        self.overrun = False  # whether more came than the answer

    def _read_status(self) -> tuple[str, int, str]:
        """The first line of the final answer: any number of interim ones may come before it (RFC 9110, 15.2).

        One that was taken for the answer would leave the true one on the connection, for the next call.
        """
        for _ in range(_MOST_INTERIM_ANSWERS):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status >= 200 or status == 101:  # the latter is final, though we never ask for another protocol
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise OSError("the answer has no end")

    def _close_conn(self) -> None:
        self._reader.ended = True  # so that only what has come already is looked at
        self.overrun = bool(self.fp.peek())
        super()._close_conn()  # type: ignore[misc]


class _Timed:
    """What both kinds of connection do alike."""

    sock: Any
    _answer: _TimedResponse | None = None

    def response_class(self, *args: Any, **kwargs: Any) -> _TimedResponse:
        """What ``http.client`` makes for each answer."""
        self._answer = _TimedResponse(*args, **kwargs)
        return self._answer

    @property
    def is_connected(self) -> bool:
        """Whether another call may use it. Who sent more than an answer may send the next one unasked, too."""
        connected: bool = super().is_connected  # type: ignore[misc]
        return connected and not (self._answer and self._answer.overrun)

    def send(self, data: Any) -> None:
        # urllib3 sends under the connect timeout, which is too short for megabytes of text on a slow line
        if self.sock is not None:
            self.sock.settimeout(_clock.wait_seconds())
        super().send(data)  # type: ignore[misc]


class _PlainConnection(_Timed, HTTPConnection):  # type: ignore[misc]  # a method makes its answers, no class
    pass


class _TlsConnection(_Timed, HTTPSConnection):  # type: ignore[misc]
    pass


def _unless_replaced(pool: type[HTTPConnectionPool], ours: type[HTTPConnection]) -> Any:
    """Our kind of connection, or what somebody has put in place of urllib3's own, as vcrpy does in users' tests."""
    theirs = pool.ConnectionCls
    return property(lambda _: ours if pool.ConnectionCls is theirs else pool.ConnectionCls)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _unless_replaced(HTTPConnectionPool, _PlainConnection)


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _unless_replaced(HTTPSConnectionPool, _TlsConnection)


class TimedAdapter(HTTPAdapter):
    """The adapter of ``requests`` over connections that keep the deadline set by :func:`start_clock`."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools, of our kind."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        """Make the pools behind a proxy. SOCKS has connections of its own, which keep the read timeout only."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not str(proxy).lower().startswith("socks"):
            manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
        return manager
