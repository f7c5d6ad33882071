"""A TCP proxy between the queue and what it speaks to, which spoils one message at a time."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

Spoil = Literal["delay", "stall", "cut", "half", "reset", "swallow"]
#: Hold a message for a while; hold it beyond any time-out; send a part and hang up; send half and stall; reset the
#: connection; take this message and all that follow, and say nothing.
SPOILS: tuple[Spoil, ...] = ("delay", "stall", "cut", "half", "reset", "swallow")
#: Seconds that a message is held: within any timeout of the rig, and beyond every one.
DELAY_SECONDS = 0.3
STALL_SECONDS = 3.5
#: Seconds after which a command is whole, if nothing more of it comes.
REST_SECONDS = 0.05
#: Seconds after which a message that a test holds is let go: a forgotten one must not hang anything.
HOLD_SECONDS = 60.0


class Proxy:
    """Forwards connections to loopback ports.

    Args:
        connect: opens a connection to the real server.
        rng: decides where a message is cut.
    """

    def __init__(self, connect: Callable[[], socket.socket], rng: random.Random) -> None:
        self._connect = connect
        self._rng = rng
        self._lock = threading.Lock()
        self._next: dict[bool, Spoil] = {}  # by direction, True towards the server; guarded by the lock
        self._held: tuple[bytes, threading.Event, threading.Event] | None = None  # guarded by the lock
        self._late: dict[bytes, tuple[float, Callable[[], None]]] = {}  # guarded by the lock
        self._copies: set[threading.Thread] = set()  # those that hold one; guarded by the lock
        self._healed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def spoil(self, how: Spoil, *, upwards: bool) -> None:
        """Do this to the next message in one direction, whoever sends it."""
        with self._lock:
            self._next[upwards] = how

    def hold(self, holding: bytes, arrived: threading.Event, go_on: threading.Event) -> None:
        """Hold back the next message towards the server that has these bytes in it, until told."""
        with self._lock:
            self._held = holding, arrived, go_on

    def hold_and_reset(self, holding: bytes, seconds: float, delivered: Callable[[], None]) -> None:
        """Hold back the next command towards the server that has these bytes in it, and reset its client's connection.

        So the client sends it again, or something else, on another connection; and the copy comes later.

        Args:
            holding: it may be told of several.
            seconds: until the copy is delivered.
            delivered: called when it is on its way.
        """
        with self._lock:
            self._late[holding] = seconds, delivered

    def heal(self) -> None:
        """Spoil nothing more, and let go what is held: a late message must not come to a queue that is at rest."""
        with self._lock:
            self._next.clear()
            self._late.clear()
        self._healed.set()
        with self._lock:
            copies = list(self._copies)
        for thread in copies:
            thread.join(HOLD_SECONDS)

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = self._connect()
                except OSError:  # the real one is down: so it looks from outside
                    client.close()
                    continue
                for near, far, upwards in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=(near, far, upwards), daemon=True).start()

    def _pump(self, near: socket.socket, far: socket.socket, upwards: bool) -> None:
        with suppress(OSError):
            while message := near.recv(1 << 16):
                with self._lock:
                    how = self._next.pop(upwards, None)
                    held = self._held if upwards and self._held and self._held[0] in message else None
                    self._held = None if held else self._held
                    mark = next((mark for mark in self._late if upwards and mark in message), None)
                    late = self._late.pop(mark) if mark is not None else None
                    if late is not None:
                        self._copies.add(threading.current_thread())
                if late is not None:
                    self._deliver_late(message, near, far, *late)
                    return
                if held:
                    _, arrived, go_on = held
                    arrived.set()
                    go_on.wait(HOLD_SECONDS)
                if how is not None and not self._spoil(how, message, near, far):
                    break
                if how != "half":
                    far.sendall(message)
        for end in (near, far):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _deliver_late(
        self, message: bytes, near: socket.socket, far: socket.socket, seconds: float, delivered: Callable[[], None]
    ) -> None:
        """Reset the client, and send what it has sent later. The other direction ends with its answer."""
        try:
            near.settimeout(REST_SECONDS)
            with suppress(OSError):
                while rest := near.recv(1 << 16):  # of a command in several parts; its sender awaits the answer now
                    message += rest
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            near.close()
            self._healed.wait(seconds)
            far.sendall(message)
            delivered()
        finally:
            with self._lock:
                self._copies.discard(threading.current_thread())

    def _spoil(self, how: Spoil, message: bytes, near: socket.socket, far: socket.socket) -> bool:
        """Do it; returns whether the connection goes on."""
        if how == "delay":
            self._healed.wait(DELAY_SECONDS)
        elif how == "stall":
            self._healed.wait(STALL_SECONDS)
        elif how == "half":
            far.sendall(message[: len(message) // 2])
            self._healed.wait(STALL_SECONDS)
            far.sendall(message[len(message) // 2 :])
        elif how == "cut":
            far.sendall(message[: self._rng.randrange(len(message))])
        elif how == "reset":
            for end in (near, far):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            while near.recv(1 << 16):  # and all that follows: TCP leaves no gaps
                pass
        return how in ("delay", "stall", "half")
