"""Whether a worker gets on: health is progress, not an answer to a ping. An endpoint tells it to whoever watches."""

from __future__ import annotations

import importlib.util
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Self

from redis.exceptions import RedisError

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.observer import Observer
from embedqueue.values.stats import QueueStats

#: Seconds without progress, while something is due, after which a worker is not healthy.
STALL_SECONDS = 120.0
#: Seconds that a client may take to send its request.
REQUEST_SECONDS = 5.0

Answer = tuple[int, str, bytes]


def verdict(stats: QueueStats, *, quiet_seconds: float, max_batch_size: int, stall_seconds: float) -> tuple[bool, str]:
    """Whether there is progress, or nothing to do; and a sentence.

    Args:
        stats: of the worker's own queue object.
        quiet_seconds: since the worker finished something or began to work.
        max_batch_size: items that make a drain start.
        stall_seconds: after which quiet is a fault.
    """
    if stats.paused_until is not None:
        return False, f"paused: {stats.pause_reason}"
    due = stats.waiting >= max_batch_size or (stats.due_in is not None and stats.due_in < 0.0)
    if not due and not stats.calls_under_way:
        return True, "nothing is due"
    if quiet_seconds <= stall_seconds:
        return True, f"the last progress was {quiet_seconds:.0f} s ago"
    held = max((limit.seconds for limit in stats.limits), default=0.0)
    if held and not stats.calls_under_way:
        return True, f"the limits let the next call go in {held:.0f} s"
    what = f"{stats.calls_under_way} calls are under way" if stats.calls_under_way else f"{stats.waiting} items are due"
    return False, f"{what}, and nothing was finished for {quiet_seconds:.0f} s"


class Health:
    """Asks a queue how its worker gets on.

    Args:
        queue: with a worker of this process.
        stall_seconds: see :func:`verdict`.
    """

    def __init__(self, queue: EmbeddingBatchQueue, stall_seconds: float = STALL_SECONDS) -> None:
        self._queue = queue
        self._stall_seconds = stall_seconds
        self._began = time.time()

    def __call__(self) -> tuple[bool, str]:
        """Whether there is progress, and a sentence."""
        try:
            stats = self._queue.stats()
        except RedisError as error:
            return False, f"Redis does not answer: {error}"
        return verdict(
            stats,
            quiet_seconds=time.time() - max(self._began, stats.last_progress or 0.0),
            max_batch_size=self._queue.options.max_batch_size,
            stall_seconds=self._stall_seconds,
        )


def all_of(healths: Mapping[str, Callable[[], tuple[bool, str]]]) -> Callable[[], tuple[bool, str]]:
    """The health of several queues as one: whether all are well; and a line for each that is not, or for each.

    Args:
        healths: by the names of the queues; where there is one, its name goes without saying.
    """
    if len(healths) == 1:
        return next(iter(healths.values()))

    def look() -> tuple[bool, str]:
        found = {name: health() for name, health in healths.items()}
        bad = {name: one for name, one in found.items() if not one[0]}
        return not bad, "\n".join(f"{name}: {sentence}" for name, (_, sentence) in (bad or found).items())

    return look


class _Server(ThreadingHTTPServer):
    """One that asks no name server for its own name, which may take long."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        host, port = address
        self._both = not host and socket.has_dualstack_ipv6()
        if self._both or ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        if self._both:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class HealthServer:
    """An HTTP endpoint: ``/health`` (200 or 503, with a sentence), ``/live`` and, with prometheus_client, ``/metrics``.

    The address is taken at once, so that a mistake is told before anything is claimed. For trusted networks: it has
    neither TLS nor passwords, and tells nothing of users' texts.

    Args:
        address: host and port; port 0 takes any that is free.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.observers: Sequence[Observer] = ()
        self._metrics: Callable[[], tuple[str, bytes]] | None = None
        if importlib.util.find_spec("prometheus_client"):
            from embedqueue.metrics import Metrics

            metrics = Metrics()
            self.observers, self._metrics = [metrics], metrics.exposition
        self._health: Callable[[], tuple[bool, str]] | None = None
        self._server = _Server(address, self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="embedqueue-health", daemon=True)

    @property
    def address(self) -> str:
        """Host and port where it listens."""
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def serve(self, health: Callable[[], tuple[bool, str]]) -> None:
        """Answer from now on."""
        self._health = health
        self._thread.start()

    def __enter__(self) -> Self:
        """The address is taken already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop answering."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> Answer:
        """Status, content type and body for a path."""
        path = path.partition("?")[0]
        if path in ("/health", "/healthz", "/"):
            well, sentence = self._health() if self._health is not None else (False, "not started")
            return (200 if well else 503), "text/plain; charset=utf-8", f"{sentence}\n".encode()
        if path in ("/live", "/livez"):
            return 200, "text/plain; charset=utf-8", b"alive\n"
        if path == "/metrics" and self._metrics is not None:
            return 200, *self._metrics()
        more = "and /metrics" if self._metrics is not None else 'and, with "embedqueue[prometheus]", /metrics'
        return 404, "text/plain; charset=utf-8", f"there are /health, /live {more}\n".encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_SECONDS

            def do_GET(self) -> None:
                status, kind, body = answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """A line for every probe would drown the log."""

        return Handler
