"""The test provider's HTTP: threads, connections, and the manners in which an answer can go wrong."""

from __future__ import annotations

import json
import socketserver
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.provider.answers import Answer, Call
from tests.provider.dialects import OllamaFormat, TEIFormat, VoyageFormat
from tests.provider.formats import (
    GeminiFormat,
    OpenAIFormat,
    Refusal,
    Settings,
    dumps,
    error_body,
    read_document,
)
from tests.provider.vendors import AzureFormat, CohereFormat, MistralFormat

if TYPE_CHECKING:
    from tests.provider.provider import Provider

_Wire = OpenAIFormat | GeminiFormat | OllamaFormat | TEIFormat | CohereFormat
FORMATS: tuple[_Wire, ...] = (
    *(OpenAIFormat(), GeminiFormat(), TEIFormat(), OllamaFormat(), VoyageFormat()),
    *(AzureFormat(), MistralFormat(), CohereFormat()),
)
#: Bodies up to this size go in one packet with their head; larger ones are not copied for it.
_SMALL_BYTES = 1 << 16


class Server(socketserver.ThreadingTCPServer):
    """A thread a connection."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128
    provider: Provider

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: clients that vanish are a part of the tests."""


class Handler(socketserver.StreamRequestHandler):
    """HTTP/1.1 with keep-alive, no more of it than the clients under test speak; several times http.server's speed."""

    disable_nagle_algorithm = True
    server: Server

    def handle(self) -> None:
        provider = self.server.provider
        provider.track(self.connection)
        try:
            while self._serve_one(provider):
                pass
        except OSError:
            pass  # the client hung up
        finally:
            provider.track(self.connection, gone=True)

    def _serve_one(self, provider: Provider) -> bool:
        start = self.rfile.readline(65536).split()
        if len(start) != 3:
            return False
        method, (path, _, query) = start[0].decode("latin-1"), start[1].decode("latin-1").partition("?")
        headers: dict[str, str] = {}
        while (line := self.rfile.readline(65536)) not in (b"\r\n", b"\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", "0")))
        if path == "/control":
            return self._control(provider, method, body)
        wire = next((wire for wire in FORMATS if wire.serves(path)), None)
        if wire is None or method != "POST":
            status = 404 if wire is None else 405
            return self._send(status, error_body(status, "no such endpoint"), {})
        document = read_document(body)
        if document is None:
            return self._send(400, error_body(400, "we could not parse the JSON body of your request"), {})
        call = Call(path, wire.model(path, document), wire.texts(document), document, headers, self.client_address)
        call.query = query
        answer = provider.arrive(call)
        status, reply = 0, b""
        try:
            if provider.latency and not provider.pause(provider.latency):
                return False
            status, reply = _reply(wire, call, answer, provider.settings)
        finally:
            spoiled = answer is not None and answer.manner in ("drop", "truncate")
            provider.leave(call, 0 if spoiled else status)
        return self._send_as(answer or Answer(), status, reply, provider)

    def _send_as(self, answer: Answer, status: int, body: bytes, provider: Provider) -> bool:
        if answer.manner == "drop":
            return False
        head = _head(status, len(body), answer.headers)
        if answer.manner == "truncate":
            self.wfile.write(head + body[: len(body) // 2])
            return False
        if answer.manner == "trickle":
            at_once, rest = (b"", head + body) if answer.from_head else (head, body)
            self.wfile.write(at_once)
            for place in range(len(rest)):
                self.wfile.write(rest[place : place + 1])
                if not provider.pause(answer.interval):
                    return False
            return True
        return self._send(status, body, answer.headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> bool:
        head = _head(status, len(body), headers)
        if len(body) > _SMALL_BYTES:
            self.connection.sendall(head)
            self.connection.sendall(body)
        else:
            self.connection.sendall(head + body)
        return True

    def _control(self, provider: Provider, method: str, body: bytes) -> bool:
        if method == "POST":
            provider.control(json.loads(body))
        return self._send(200, dumps(provider.state()), {})


def _reply(wire: _Wire, call: Call, answer: Answer | None, settings: Settings) -> tuple[int, bytes]:
    """Status and body: what the test commands, else what a strict provider says."""
    body = None if answer is None else answer.body
    status = 200 if answer is None else answer.status
    if isinstance(body, bytes | str):
        return status, body if isinstance(body, bytes) else body.encode()
    if body is not None:
        return status, dumps(body)
    if status >= 400:
        return status, error_body(status, "as the test commands")
    try:
        wire.check(call.path, call.headers, call.document, settings)
        return status, wire.vectors(call.document, settings)
    except Refusal as refusal:
        return refusal.status, refusal.body


def _head(status: int, length: int, headers: Mapping[str, str]) -> bytes:
    usual = {"content-type": "application/json", "content-length": str(length)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (usual | dict(headers)).items() if value)
    return f"HTTP/1.1 {status} -\r\n{lines}\r\n".encode("latin-1")
