"""One POST and its answer, quickly: a session per thread and process, prepared once, read within bounds."""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from embedqueue.values.errors import ConfigurationError, EmbedQueueError, TransientError
from embedqueue.values.words import secrets_of, shown_url

from .wire import TimedAdapter, start_clock

#: A connection unused for this many seconds is made anew: load balancers and NATs forget idle ones without a word
#: (from 60 s on), and the next call would wait in vain for its read timeout.
IDLE_SECONDS = 50.0
#: Bytes of a refusal that are read: its words come first.
_REFUSAL_BYTES = 1 << 20
#: Bytes asked for at once, and unfolded at once.
_STEP_BYTES = 1 << 20
_COMPRESSED_STEP_BYTES = 1 << 16
#: Bytes of a call beyond its body, as they come over the wire: the head, the sizes of chunks, a step too many.
_WIRE_BYTES = 4 << 20
#: The one encoding that is asked for and undone, by either of its names, and those that were not asked for. A word that
#: is neither changes nothing about a body.
_GZIP = ("gzip", "x-gzip")
_GZIP_WBITS, _GZIP_MAGIC = 16 + zlib.MAX_WBITS, b"\x1f"
_NOT_ASKED_FOR = ("deflate", "br", "zstd", "compress")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status, the headers (looked up in any case) and the decoded body."""

    status: int
    headers: Mapping[str, str] = field(repr=False)  # as the body, they may quote the key and texts
    body: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one call may take.

    Attributes:
        connect_seconds: to reach the server.
        read_seconds: the longest silence of the server.
        deadline_seconds: the whole call, from the first byte sent to the last received.
        response_bytes: the decoded body.
    """

    connect_seconds: float
    read_seconds: float
    deadline_seconds: float
    response_bytes: int


class _Session(requests.Session):
    """One that follows no redirect and keeps no cookie.

    Calls go through ``Session.send`` for the sake of those who stand in there: mocks of users' tests, and tracers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: no answer leads elsewhere, and nothing of its body is read before its time."""


@dataclass(eq=False, repr=False)  # proxies hold passwords, and whoever reports errors shows the reprs of locals
class _Line:
    """What one thread of one process calls with. Only that thread touches it, except for close()."""

    session: requests.Session
    verify: bool | str
    proxies: dict[str, str]
    used_mono: float
    prepared: dict[str, requests.PreparedRequest] = field(default_factory=dict)


class Http:
    """Posts JSON with the fewest steps that are safe. Thread-safe and fork-safe.

    Args:
        headers: gives the headers of a request, credentials included; asked once per thread and URL.
        limits: what one call may take.
    """

    def __init__(self, headers: Callable[[], Mapping[str, str]], limits: Limits) -> None:
        self._headers = headers
        self.limits = limits
        self._renew()

    def _renew(self) -> None:
        """Start clean: in a new object, and in a forked child, which must not use its parent's sockets or locks."""
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards _lines
        self._lines: weakref.WeakSet[_Line] = weakref.WeakSet()
        self._local = threading.local()

    def close(self) -> None:
        """Close the connections of every thread of this process. A later call opens new ones."""
        if self._pid != os.getpid():
            return
        with self._lock:
            lines = list(self._lines)
        for line in lines:
            line.prepared.clear()
            line.session.close()

    def secrets(self, url: str) -> Iterator[str]:
        """What is secret in an address and in those of the proxies on the way to it, as this thread knows them."""
        line: _Line | None = getattr(self._local, "line", None)
        for address in (url, *(line.proxies.values() if line is not None else ())):
            yield from secrets_of(address)

    def post(self, url: str, body: bytes) -> Answer:
        """Send one request and read its answer.

        Args:
            url: where to.
            body: JSON in UTF-8.

        Returns:
            The answer, whatever its status below 300 or from 400 on.

        Raises:
            TransientError: no connection, no answer in time, or a broken one.
            ConfigurationError: the address, the certificate, the proxy or a redirect.
        """
        line = self._line(url)
        request = line.prepared.get(url) or self._prepare(line, url)
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        return self._exchange(line, request, url)

    def _exchange(self, line: _Line, request: requests.PreparedRequest, url: str) -> Answer:
        """Send a request and read its answer, as :meth:`post` says."""
        limits = self.limits
        start_clock(limits.read_seconds, limits.deadline_seconds, limits.response_bytes + _WIRE_BYTES)
        response = None
        try:
            response = self._send(line, request)
            answer = read_answer(response, limits.response_bytes)
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            failure = failure_of(error, url, reached=response is not None)
        else:
            if not 300 <= answer.status < 400:
                return answer
            failure = redirected(url, answer)
        finally:
            request.body = None  # an idle thread need not hold the last texts
            if response is not None:
                response.close()
        raise failure  # outside of the except: what requests raises holds the request, and that the key

    def _send(self, line: _Line, request: requests.PreparedRequest) -> requests.Response:
        """Send a request; the body of the answer is yet to be read."""
        return line.session.send(
            request,
            stream=True,
            timeout=(self.limits.connect_seconds, self.limits.read_seconds),
            verify=line.verify,
            proxies=line.proxies,
        )

    def _line(self, url: str) -> _Line:
        if self._pid != os.getpid():
            self._renew()
        now_mono = time.monotonic()
        line: _Line | None = getattr(self._local, "line", None)
        if line is None:
            line = self._local.line = self._open(url)
            with self._lock:
                self._lines.add(line)
        elif now_mono - line.used_mono > IDLE_SECONDS:
            line.session.close()
        line.used_mono = now_mono
        return line

    def _open(self, url: str) -> _Line:
        if host_and_port(url) is None:
            raise ConfigurationError(f"base_url must be http:// or https:// and a host, not {shown_url(url)!r}")
        session = _Session()
        adapter = TimedAdapter(pool_connections=2, pool_maxsize=1)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        settings = session.merge_environment_settings(url, {}, None, None, None)
        verify = True if settings["verify"] is None else settings["verify"]
        session.trust_env = False  # asked once; and ~/.netrc must not replace our Authorization
        return _Line(session, verify, dict(settings["proxies"]), time.monotonic())

    def _prepare(self, line: _Line, url: str) -> requests.PreparedRequest:
        fault = ""
        try:
            request = _prepared(line.session, url, self._headers())
        except ValueError as error:  # InvalidURL, InvalidHeader and their like
            fault = type(error).__name__
        if fault:  # raised in a frame that does not hold the headers, outside of the except
            raise ConfigurationError(f"no request can be made to {shown_url(url)}: {fault}")
        line.prepared[url] = request
        return request


def _prepared(session: requests.Session, url: str, headers: Mapping[str, str]) -> requests.PreparedRequest:
    all_headers = {"Accept-Encoding": "gzip", **headers}
    request = session.prepare_request(requests.Request("POST", url, headers=all_headers, data=b"{}"))
    request.headers.update(headers)  # credentials in the URL are for servers without a key
    return request


def host_and_port(url: str) -> tuple[str, int] | None:
    """Where an URL leads to; None where it is not of HTTP, or broken."""
    try:
        parts = urlsplit(url)
        ports = {"http": 80, "https": 443}
        return (parts.hostname, parts.port or ports[parts.scheme]) if parts.hostname else None
    except (ValueError, KeyError):  # broken brackets, a port that is none, another scheme
        return None


def origin(url: str) -> str:
    """Host and port of an URL, for messages.

    Args:
        url: any URL, even a broken one.

    Returns:
        Host and port without credentials.
    """
    return shown_url(url).partition("://")[2].partition("/")[0] or shown_url(url)


def read_answer(response: requests.Response, limit_bytes: int) -> Answer:
    """An answer, of which the body is read; of a refusal, the beginning of it."""
    status, raw, headers = response.status_code, response.raw, response.headers
    if status < 200:  # on a connection that is not ours: the answer itself may be yet to come
        raise urllib3.exceptions.HTTPError(f"only an interim answer came: {status}")
    refused = status >= 300
    try:
        body = _read_body(raw, headers, _REFUSAL_BYTES if refused else limit_bytes)
    except (OSError, urllib3.exceptions.HTTPError):
        if not refused:
            raise
        body = b""  # the status says enough
    if not refused and len(body) > limit_bytes:
        raise urllib3.exceptions.HTTPError(f"the answer is larger than {limit_bytes} bytes")
    return Answer(status, headers, body)


def _read_body(raw: urllib3.HTTPResponse, headers: Mapping[str, str], limit_bytes: int) -> bytes:
    """The body; where it is too long, its beginning and a little more than the limit."""
    encoding = headers.get("content-encoding", "").strip().lower()
    if "," in encoding or encoding in _NOT_ASKED_FOR:
        raise urllib3.exceptions.HTTPError(f"the answer is encoded as {encoding[:60]!r}; only gzip is undone")
    compressed = encoding in _GZIP
    length_bytes = raw.length_remaining
    if not compressed and length_bytes is not None and length_bytes <= limit_bytes:
        return raw.read(decode_content=False)
    received = raw.stream(_COMPRESSED_STEP_BYTES if compressed else _STEP_BYTES, decode_content=False)
    steps: list[bytes] = []
    size_bytes = 0
    for step in unfolded(received) if compressed else received:
        steps.append(step)
        size_bytes += len(step)
        if size_bytes > limit_bytes:
            raw.close()  # the rest stays unread: this connection is of no more use
            break
    return b"".join(steps)


def unfolded(steps: Iterable[bytes]) -> Iterator[bytes]:
    """What gzip has folded, in steps: urllib3 unfolds at once what it has read, in some versions and some cases."""
    decoder = zlib.decompressobj(wbits=_GZIP_WBITS)
    for step in steps:
        while step:
            if decoder.eof:
                if not step.startswith(_GZIP_MAGIC):
                    return  # padding, as everybody bears it
                decoder = zlib.decompressobj(wbits=_GZIP_WBITS)
            try:
                yield decoder.decompress(step, _STEP_BYTES)
            except zlib.error as error:
                raise urllib3.exceptions.DecodeError(str(error)) from None
            step = decoder.unconsumed_tail or decoder.unused_data
    yield decoder.flush()  # all input is taken: what is left is a few bytes


def redirected(url: str, answer: Answer) -> EmbedQueueError:
    """The error that a redirect becomes."""
    try:
        target = origin(urljoin(url, answer.headers.get("location", "")))
    except ValueError:
        target = "an address that is none"
    target = target[:200]
    return ConfigurationError(
        f"{origin(url)} answered {answer.status}: a redirect to {target}. "
        "Credentials never follow one; set base_url to the final address"
    )


#: How ``http.client`` tells that CONNECT was refused for want of a password; all else may pass.
_PROXY_WANTS_PASSWORD = re.compile(r"Tunnel connection failed: 407\b")


def failure_of(error: Exception, url: str, *, reached: bool) -> EmbedQueueError:
    """The error that a failed exchange becomes.

    Args:
        error: what requests, urllib3 or the socket raised.
        url: whom we asked.
        reached: whether the headers of an answer had come.

    Returns:
        The error, with neither the key nor the request attached; what others said is in it at its full length.
    """
    host, kinds = origin(url), requests.exceptions
    if isinstance(error, kinds.ConnectTimeout):
        return TransientError(f"{host} could not be reached in time", cause="timeout")
    if isinstance(error, kinds.Timeout | urllib3.exceptions.TimeoutError):
        return TransientError(f"{host} did not answer in time", suspect_input=True, cause="timeout")
    reason = _root(error)
    why = f"{type(reason).__name__}: {reason}"
    if isinstance(error, kinds.ProxyError):
        if _PROXY_WANTS_PASSWORD.search(why):
            return ConfigurationError(f"the proxy on the way to {host} refuses: {why}")
        return TransientError(f"no way to {host} through the proxy: {why}", cause="connection")
    if isinstance(error, kinds.SSLError):
        if isinstance(reason, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return TransientError(f"{host} hung up during the handshake: {why}", cause="connection")
        return ConfigurationError(f"no secure connection to {host}: {why}")
    if (proxy_fault := _proxy_fault(error, reason)) is not None:
        return ConfigurationError(
            f"the proxy on the way to {host} (HTTPS_PROXY, HTTP_PROXY or ALL_PROXY) cannot be used: {proxy_fault}"
        )
    if isinstance(error, ValueError):  # InvalidURL, InvalidHeader, InvalidSchema and their like
        return ConfigurationError(f"no request can be made to {shown_url(url)}: {type(error).__name__}")
    if isinstance(error, kinds.RequestException | urllib3.exceptions.HTTPError):
        # cut off after the call was sent: one text may have brought the server down
        cut = reached or isinstance(next(iter(error.args), None), urllib3.exceptions.ProtocolError)
        return TransientError(f"no answer from {host}: {why}", suspect_input=cut, cause="connection")
    return ConfigurationError(f"no connection to {host} can be made: {why}")  # the CA bundle is missing


def _proxy_fault(error: Exception, reason: BaseException) -> str | None:
    """What keeps us from using a proxy at all, in words without its password; None if it is not the proxy."""
    socks = "SOCKS" in str(error)
    if socks and isinstance(error, requests.exceptions.InvalidSchema):
        return "it speaks SOCKS, which needs PySocks: pip install requests[socks]"
    unknown = isinstance(error, requests.exceptions.InvalidProxyURL)
    unknown = unknown or isinstance(reason, urllib3.exceptions.ProxySchemeUnknown)
    if unknown or (socks and isinstance(error, ValueError)):
        return "its address must be http://HOST:PORT, https://HOST:PORT or socks5h://HOST:PORT"
    return None


def _root(error: BaseException) -> BaseException:
    """The innermost reason: what wraps it repeats the URL and names our own classes."""
    for _ in range(8):
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((part for part in error.args if isinstance(part, BaseException)), error.__cause__)
        if inner is None:
            break
        error = inner
    return error
