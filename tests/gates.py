"""Gates in front of servers on loopback: all that clients send and are answered goes through one, until it is shut."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Literal

#: Where gates listen, on the ports of what is behind them: all of 127.0.0.0/8 is loopback on Linux.
HOST = "127.0.0.2"

How = Literal["stall", "drop", "refuse"]
#: How one is shut: what is on its way stands still, and comes when the gate is opened; it is lost, and whoever has sent
#: it is never answered on that connection; connections are reset, and new ones refused.
HOWS: tuple[How, ...] = ("stall", "drop", "refuse")


class Gate:
    """Forwards connections to the same port of 127.0.0.1.

    Args:
        port: of the server behind it.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._changed = threading.Condition()
        self._how: How | None = None  # guarded by the condition
        self._ends: set[socket.socket] = set()  # guarded by the condition
        self.held = threading.Event()
        self._listen()

    def _listen(self) -> None:
        self._listener = socket.create_server((HOST, self._port), backlog=256)
        self._accepting = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._accepting.start()

    def shut(self, how: How) -> None:
        """Let nothing through from now on; ``held`` is set when there was something."""
        with self._changed:
            self._how = how
            self.held.clear()
        if how == "refuse":
            self._hang_up()

    def open(self) -> None:
        """Let everything through again, what has stood still as well."""
        with self._changed:
            refused, self._how = self._how == "refuse", None
            self._changed.notify_all()
        if refused:
            self._listen()

    def close(self) -> None:
        """Take no more connections, and end those that there are."""
        with self._changed:
            self._how = "refuse"
            self._changed.notify_all()
        self._hang_up()

    def _hang_up(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(45)
        with self._changed:
            ends = list(self._ends)
        for end in ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except OSError:  # it is down: so it looks from outside
                    client.close()
                    continue
                with self._changed:
                    self._ends |= {client, server}
                for near, far in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(near, far), daemon=True).start()

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while message := near.recv(1 << 16):
                if self._lets_through():
                    far.sendall(message)
                else:
                    while near.recv(1 << 16):  # nor anything that follows: TCP leaves no gaps
                        pass
                    break
        for end in (near, far):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        with self._changed:
            self._ends -= {near, far}

    def _lets_through(self) -> bool:
        """Wait while all stands still; returns whether what came may go on."""
        with self._changed:
            if self._how is not None:
                self.held.set()
            while self._how == "stall":
                self._changed.wait()
            return self._how is None
