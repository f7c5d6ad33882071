"""A quick embedding server for benchmarks: OpenAI's wire format on loopback, in a process of its own.

It is made to be no bottleneck: one thread, raw HTTP/1.1 with keep-alive, answers put together from ready parts.
It is not strict: what it accepts, a provider might refuse. ``POST /control`` sets how it behaves, ``GET /stats``
tells what it has seen.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import socket
import struct
import time
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

import orjson

from benchmarks import corpus

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_READ_BYTES = 1 << 18


class Server:
    """The server's state. One thread touches it."""

    def __init__(self) -> None:
        self.latency = 0.0  # seconds from a request's last byte to its answer's first
        self.limit: int | None = None  # calls at a time; 429 above
        self.rate: float | None = None  # calls a second, and a second's worth at once; 429 above
        self.in_flight = 0
        self._reset()

    def _reset(self) -> None:
        self.calls = self.texts = self.refused = self.most_in_flight = 0
        self.first_call: float | None = None  # monotonic: all processes of a machine share that clock
        self.repeats_in_call = 0  # texts that stood twice in one call
        self.heads: dict[bytes, int] = {}  # how often each text was sent, by digest
        self.room = (0.0, math.inf)  # when it was looked at last, and how many calls the rate had room for
        self.busy: list[tuple[float, int]] = []  # calls in flight over time

    async def connection(self, sock: socket.socket) -> None:
        """Serve one client until it goes."""
        loop = asyncio.get_running_loop()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = bytearray()
        try:
            while True:
                while (end := buffer.find(b"\r\n\r\n")) < 0:
                    buffer += (chunk := await loop.sock_recv(sock, _READ_BYTES))
                    if not chunk:
                        return
                found = _LENGTH.search(buffer, 0, end + 2)
                size = end + 4 + (int(found[1]) if found else 0)
                while len(buffer) < size:
                    buffer += (chunk := await loop.sock_recv(sock, _READ_BYTES))
                    if not chunk:
                        return
                path = bytes(buffer[: buffer.index(b"\r")]).split(b" ")[1]
                content = bytes(buffer[end + 4 : size])
                del buffer[:size]
                await loop.sock_sendall(sock, await self._answer(path, content))
        except OSError:
            pass  # a client that was killed
        finally:
            sock.close()

    async def _answer(self, path: bytes, content: bytes) -> bytes:
        if path.endswith(b"/embeddings"):
            return await self._embeddings(content)
        if path == b"/control":
            wanted = json.loads(content)
            if wanted.pop("reset", False):
                self._reset()
            for name, value in wanted.items():
                setattr(self, name, value)
        return _http(200, json.dumps(self._stats()).encode())

    async def _embeddings(self, content: bytes) -> bytes:
        arrived = time.monotonic()
        if (self.limit is not None and self.in_flight >= self.limit) or not self._has_room(arrived):
            self.refused += 1
            return _http(429, b'{"error":{"message":"too many requests at a time","type":"rate_limit_error"}}')
        self.first_call = self.first_call or arrived
        self._count(arrived, 1)
        try:
            request = orjson.loads(content)
            answer = self._embed(request)
            rest = arrived + self.latency - time.monotonic()
            if rest > 0:
                await asyncio.sleep(rest)
            return answer
        finally:
            self._count(time.monotonic(), -1)

    def _has_room(self, now: float) -> bool:
        if self.rate is None:
            return True
        then, room = self.room
        room = min(self.rate, room + (now - then) * self.rate)
        self.room = now, room - (room >= 1)
        return room >= 1

    def _count(self, now: float, change: int) -> None:
        self.in_flight += change
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.calls += change > 0
        if self.limit is not None:  # only the question that asks for it
            self.busy.append((now, self.in_flight))

    def _embed(self, request: dict[str, Any]) -> bytes:
        texts = [text.encode() for text in request["input"]]
        dimensions = request.get("dimensions", 3072)
        packed = request.get("encoding_format") == "base64"
        start, stop = _frame(dimensions, packed)
        parts = [b'{"object":"list","data":[']
        seen = set()
        for index, text in enumerate(texts):
            a, b, c = corpus.head(text)
            head = struct.pack("<3f", a, b, c)
            seen.add(head)
            self.heads[head] = self.heads.get(head, 0) + 1
            digits = base64.b64encode(head) if packed else f"{a!r},{b!r},{c!r},".encode()
            parts += (b'%b{"object":"embedding","index":%d,' % (b"," if index else b"", index), start, digits, stop)
        self.texts += len(texts)
        self.repeats_in_call += len(texts) - len(seen)
        parts.append(b'],"model":"bench","usage":{"prompt_tokens":%d,"total_tokens":0}}' % len(texts))
        return _http(200, b"".join(parts))

    def _stats(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "texts": self.texts,
            "first_call": self.first_call,
            "refused": self.refused,
            "most_in_flight": self.most_in_flight,
            "distinct": len(self.heads),
            "repeats_in_call": self.repeats_in_call,
            "busy": self.busy,
        }


def _http(status: int, content: bytes) -> bytes:
    reason = {200: b"OK", 429: b"Too Many Requests"}[status]
    return (
        b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % (status, reason, len(content))
        + content
    )


@cache
def _frame(dimensions: int, packed: bool) -> tuple[bytes, bytes]:
    """What stands before and after the head of every vector."""
    rest = corpus.body(dimensions)
    if packed:  # the head's 12 bytes are 16 characters of base64: the rest is encoded apart from it
        return b'"embedding":"', base64.b64encode(rest.tobytes()) + b'"}'
    return b'"embedding":[', ",".join(str(number) for number in rest.tolist()).encode() + b"]}"


async def _serve(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    server = Server()
    connections = set()
    while True:
        sock, _ = await loop.sock_accept(listener)
        sock.setblocking(False)
        task = loop.create_task(server.connection(sock))
        connections.add(task)
        task.add_done_callback(connections.discard)


def run(pipe: Connection) -> None:
    """Serve until killed; the port goes through the pipe."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    listener.setblocking(False)
    pipe.send(listener.getsockname()[1])
    asyncio.run(_serve(listener))
