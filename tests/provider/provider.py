"""The server, and what a test commands of it. See the package."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any, Self

from tests.provider.answers import Answer, Call, contains
from tests.provider.formats import Settings
from tests.provider.server import Handler, Server

#: Longest that anything here waits, in seconds: a forgotten release must not hang a test run.
PATIENCE_SECONDS = 100.0


class Provider:
    """The server. A context manager; also ``start()`` and ``stop()``."""

    def __init__(self, port: int = 0, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.rule: Callable[[Sequence[str]], Answer | None] | None = None
        self.latency = 0.0
        self._changed = threading.Condition()  # guards everything below
        self.calls: list[Call] = []
        self.sent: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.in_flight = 0
        self.max_concurrent = 0
        self._script: deque[Answer | None] = deque()
        self._held = False
        self._releases = 0
        self._stopping = False
        self._sockets: set[socket.socket] = set()
        self._server = Server(("127.0.0.1", port), Handler)
        self._server.provider = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="provider", daemon=True)

    @property
    def url(self) -> str:
        """The bare address."""
        return "http://127.0.0.1:{1}".format(*self._server.server_address)

    @property
    def openai_url(self) -> str:
        """Base URL of OpenAI's API."""
        return f"{self.url}/v1"

    @property
    def openrouter_url(self) -> str:
        """Base URL of OpenRouter's API."""
        return f"{self.url}/api/v1"

    @property
    def gemini_url(self) -> str:
        """Base URL of Gemini's API."""
        return f"{self.url}/v1beta"

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            sockets = list(self._sockets)
        for sock in sockets:
            _shut(sock)
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(PATIENCE_SECONDS)
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- what a test commands ------------------------------------------------------------------------------------------

    def script(self, *answers: Answer | None) -> None:
        """Answer the next calls like this, one each; None is the usual answer."""
        with self._changed:
            self._script.extend(answers)

    def hold(self) -> None:
        """Keep calls in flight from now on: they arrive, are counted, and wait."""
        with self._changed:
            self._held = True

    def release(self) -> None:
        """Let go what is held or hangs."""
        with self._changed:
            self._held = False
            self._releases += 1
            self._changed.notify_all()

    def reset(self) -> None:
        """Forget calls, counts, script and rule; let go what is held."""
        with self._changed:
            self._script.clear()
            self.rule, self.latency = None, 0.0
            self.calls, self.sent, self.answered = [], Counter(), Counter()
            self.max_concurrent = self.in_flight
        self.release()

    def wait_for_calls(self, count: int, timeout: float = 45.0, *, ended: bool = False) -> bool:
        """Wait until ``count`` calls have arrived (or ended) since the start or the last reset."""

        def enough() -> bool:
            return sum(call.ended is not None or not ended for call in self.calls) >= count

        with self._changed:
            return self._changed.wait_for(enough, timeout)

    def state(self) -> dict[str, Any]:
        """Everything that was counted, as JSON can say it."""
        with self._changed:
            return {
                "calls": [
                    {"path": call.path, "model": call.model, "texts": call.texts, "status": call.status}
                    | {"started": call.started, "ended": call.ended}
                    for call in self.calls
                ],
                "sent": dict(self.sent),
                "answered": dict(self.answered),
                "in_flight": self.in_flight,
                "max_concurrent": self.max_concurrent,
            }

    def control(self, orders: Mapping[str, Any]) -> None:
        """Do what another process asks for: see the head of the package."""
        if orders.get("reset"):
            self.reset()
        self.script(*(answer and Answer(**answer) for answer in orders.get("script", ())))
        if "rule" in orders:
            rule = orders["rule"]
            self.rule = rule and contains(rule["contains"], Answer(**rule["answer"]))
        self.latency = orders.get("latency", self.latency)
        for setting in fields(Settings):
            if setting.name in orders:
                setattr(self.settings, setting.name, orders[setting.name])
        if orders.get("hold"):
            self.hold()
        if orders.get("release"):
            self.release()

    # -- what the handlers call ----------------------------------------------------------------------------------------

    def arrive(self, call: Call) -> Answer | None:
        """Count a call, wait where it is told to, and say how to answer it."""
        with self._changed:
            self.calls.append(call)
            self.sent.update(call.texts)
            self.in_flight += 1
            self.max_concurrent = max(self.max_concurrent, self.in_flight)
            answer = self._script.popleft() if self._script else self.rule and self.rule(call.texts)
            call.answer = answer
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._held or self._stopping, PATIENCE_SECONDS)
            if answer is not None and answer.manner == "hang":
                releases = self._releases
                self._changed.wait_for(lambda: self._releases > releases or self._stopping, PATIENCE_SECONDS)
            return answer

    def leave(self, call: Call, status: int) -> None:
        """Count the end of a call."""
        with self._changed:
            call.status, call.ended = status, time.time()
            self.in_flight -= 1
            if status == 200:
                self.answered.update(call.texts)
            self._changed.notify_all()

    def pause(self, seconds: float) -> bool:
        """Wait, unless the server stops; say whether it goes on."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._stopping, seconds)

    def track(self, sock: socket.socket, *, gone: bool = False) -> None:
        """Know the open connections, so that stop() can end them."""
        with self._changed:
            (self._sockets.discard if gone else self._sockets.add)(sock)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):  # gone already
        sock.shutdown(socket.SHUT_RDWR)
