"""A Redis that takes no command above a size, as hosted ones do: a proxy on loopback that reads what it passes on."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO, Self

WORDS = b"ERR max request size exceeded. Limit: %d bytes, Actual: %d bytes"


class LimitedRedis:
    """Passes commands on to the Redis at a unix socket, and refuses larger ones itself. A context manager.

    Args:
        path: of the unix socket.
        limit: bytes of the largest command that is passed on; it can be changed.

    Attributes:
        refused: bytes of each command that was refused.
        told: called with these before the refusal is answered.
    """

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self.limit = limit
        self.refused: list[int] = []
        self.told: Callable[[int], object] = lambda size: None
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError), socket.socket(socket.AF_UNIX) as behind:
                    behind.connect(outer._path)
                    outer._serve(self.rfile, self.wfile, behind)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, asked: Any, answered: Any, behind: socket.socket) -> None:
        answers = behind.makefile("rb")
        while head := asked.readline():
            parts = [head]
            for _ in range(int(head[1:])):
                length = asked.readline()
                parts += [length, asked.read(int(length[1:]) + 2)]
            command = b"".join(parts)
            if len(command) <= self.limit:
                behind.sendall(command)
                answered.write(_answer(answers))
            else:
                limit = self.limit
                self.refused.append(len(command))
                self.told(len(command))
                answered.write(b"-" + WORDS % (limit, len(command)) + b"\r\n")


def _answer(stream: BinaryIO) -> bytes:
    """One whole answer in RESP2."""
    head = stream.readline()
    if head[:1] == b"$" and head != b"$-1\r\n":
        return head + stream.read(int(head[1:]) + 2)
    if head[:1] == b"*":
        return head + b"".join(_answer(stream) for _ in range(int(head[1:])))
    return head
