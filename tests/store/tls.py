"""TLS in front of a Redis that speaks none: a proxy on loopback that ends it, with certificates made on the spot."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import trustme

#: Bytes that one read takes.
STEP_BYTES = 1 << 16


class TlsProxy:
    """Ends TLS on a port of its own and passes on what comes to a unix socket or a TCP port. A context manager.

    Args:
        target: the path of a unix socket, or a port on loopback.
        authority: who signs the certificate.
        client_certificates: whether clients must show one of the same authority.
        names: that the certificate is for.
    """

    def __init__(
        self,
        target: str | int,
        authority: trustme.CA,
        *,
        client_certificates: bool = False,
        names: tuple[str, ...] = ("localhost",),
    ) -> None:
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(self._context)
        if client_certificates:
            authority.configure_trust(self._context)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._ended = False
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        _end(self._listener, *self._sockets)
        for thread in self._threads:
            thread.join(45)
        self._listener.close()

    def _start(self, run: Callable[..., None], *args: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _keep(self, *sockets: socket.socket) -> None:
        """They are ended with us; at once, if we have ended while they were made."""
        self._sockets += sockets
        if self._ended:
            _end(*sockets)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was ended
            while True:
                sock, _ = self._listener.accept()
                self._keep(sock)
                self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        """Sockets are closed here alone, when both directions have ended: OpenSSL reads by number, whose ever it is."""
        with suppress(OSError), sock, self._context.wrap_socket(sock, server_side=True) as secure:
            self.connections += 1
            family = socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET
            with socket.socket(family) as plain:
                plain.connect(self._target if isinstance(self._target, str) else ("127.0.0.1", self._target))
                self._keep(secure, plain)
                back = self._start(_copy, plain, secure)
                _copy(secure, plain)
                back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError, ValueError):
        while data := source.recv(STEP_BYTES):
            target.sendall(data)
    _end(source, target)


def _end(*sockets: socket.socket) -> None:
    """Wake whoever reads or writes there. Nothing is closed."""
    for sock in sockets:
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
