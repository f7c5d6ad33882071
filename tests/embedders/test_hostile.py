"""Servers and proxies that mean harm, over bare sockets: time, size, and where the key goes."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import json
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import requests
import trustme
import urllib3

from embedqueue.embedders import OpenAIEmbedder
from embedqueue.embedders.batch_http import BatchHttp
from embedqueue.embedders.http import Limits
from embedqueue.values.errors import ConfigurationError, EmbedQueueError, TransientError
from tests.provider import Provider, fail, raw

KEY = "sk-0123456789-hunter2"
GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n{"data": [{"embedding": [1, 2]}]}'


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on loopback that does ``serve`` with each connection; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def one(sock: socket.socket) -> None:
            with suppress(OSError), sock:
                sock.settimeout(10)
                serve(sock)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(45)


def request(sock: socket.socket) -> bytes:
    """All of one request: whoever closes on unread bytes resets the connection."""
    said = b""
    while not said.endswith(b"}"):
        if not (part := sock.recv(1 << 16)):
            raise ConnectionResetError("the client has gone")
        said += part
    return said


def subject(port: int, **options) -> OpenAIEmbedder:
    return OpenAIEmbedder(KEY, f"http://127.0.0.1:{port}/v1", **{"timeout": (2, 1), "deadline": 0.5, **options})


def repeat(part: bytes) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        sock.recv(1 << 16)
        while True:
            sock.sendall(part)

    return serve


@pytest.mark.quiet
@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        b"x" * 4096,
        b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n" + b"X: y\r\n" * 1000,
    ],
)
def test_a_head_without_end(part):
    """However fast it comes, the call ends: at the deadline, or at what a head may hold."""
    with server(repeat(part)) as port:
        started_mono = time.monotonic()
        with pytest.raises(TransientError):
            subject(port).embed_batch(["x"], "m")
        assert time.monotonic() - started_mono < 5


def test_a_body_in_chunks_without_end():
    """Of one byte each, and each in time."""

    def serve(sock: socket.socket) -> None:
        sock.recv(1 << 16)
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            sock.sendall(b"1\r\n \r\n")
            time.sleep(0.01)

    with server(serve) as port, pytest.raises(TransientError, match="in time"):
        subject(port).embed_batch(["x"], "m")


@pytest.mark.quiet
def test_a_server_that_reads_nothing():
    """Megabytes of text that nobody takes: sending ends at the deadline, too."""
    with server(lambda sock: threading.Event().wait(5)) as port:
        started_mono = time.monotonic()
        with pytest.raises(TransientError):
            subject(port).embed_batch(["x" * 30_000_000], "m")
        assert time.monotonic() - started_mono < 5


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        (b"", b"HTTP/1.1 103 Early Hints\r\n" + b"X: %s\r\n" % (b"x" * 60_000) * 90 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 60_000 + b"\r\n \r\n"),
    ],
)
def test_bytes_around_the_body_count_as_well(head, part):
    """Heads, trailers and the sizes of chunks: the call ends long before its deadline."""

    def serve(sock: socket.socket) -> None:
        sock.recv(1 << 16)
        sock.sendall(head)
        while True:
            sock.sendall(part)

    with server(serve) as port, pytest.raises(TransientError, match="the answer has no end"):
        subject(port, timeout=(10, 10), deadline=50, max_response_bytes=1 << 20).embed_batch(["x"], "m")


# -- answers that belong to another call, or to none ------------------------------------------------------------------


def answer_to(said: bytes) -> bytes:
    """A vector of as many ones as the text of a request has letters."""
    text = json.loads(said.partition(b"\r\n\r\n")[2])["input"][0]
    body = json.dumps({"data": [{"embedding": [1] * len(text)}]}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def widths(embedder: OpenAIEmbedder, texts: list[str]) -> list[int | None]:
    """How many ones each text gets, embedded one after the other; None where there is no answer to it."""
    got: list[int | None] = []
    for text in texts:
        try:
            got.append(embedder.embed_batch([text], "m").shape[1])
        except TransientError:
            got.append(None)
    return got


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\nHTTP/1.1 199 So\r\n\r\n",
    ],
)
def test_interim_answers_come_before_the_final_one(interim):
    """They say that the server is at work; the answer to a text is the one that comes after them."""
    connections = []

    def serve(sock: socket.socket) -> None:
        connections.append(sock)
        while True:
            answer = answer_to(request(sock))
            for part in (interim, answer):
                sock.sendall(part)

    with server(serve) as port:
        assert widths(subject(port, timeout=(10, 10), deadline=50), ["x", "xx", "xxx"]) == [1, 2, 3]
    assert len(connections) == 1


def test_interim_answers_are_bounded_in_number():
    """They are short, so that the limit of bytes alone would let millions be read."""
    with server(lambda sock: sock.sendall(b"HTTP/1.1 102 P\r\n\r\n" * 20_000 + answer_to(request(sock)))) as port:
        with pytest.raises(TransientError, match="the answer has no end"):
            subject(port, timeout=20, deadline=50).embed_batch(["x"], "m")


def test_another_protocol_is_not_spoken():
    """A 101 is no answer to a text, and nothing that comes after it is one to the next text."""

    def serve(sock: socket.socket) -> None:
        first = answer_to(request(sock))
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
        request(sock)
        sock.sendall(first)

    with server(serve) as port:
        embedder = subject(port, timeout=10, deadline=10)
        with pytest.raises(TransientError, match="101"):
            embedder.embed_batch(["x"], "m")
        assert widths(embedder, ["xx"]) == [None]


def test_an_interim_answer_on_a_connection_that_is_not_ours(monkeypatch):
    """Python's own takes it for the final one: the call fails, and the next one is not given what comes after it."""

    class Replaced(urllib3.connection.HTTPConnection):
        pass

    calls = []

    def serve(sock: socket.socket) -> None:
        calls.append(answer_to(request(sock)))
        answer = calls[-1]
        if len(calls) == 1:
            sock.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
            request(sock)  # the next call, if it comes this way
        sock.sendall(answer)

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "ConnectionCls", Replaced)
    with server(serve) as port:
        assert widths(subject(port, timeout=10, deadline=10), ["x", "xx"]) == [None, 2]


def test_who_sends_more_than_an_answer_gets_a_new_connection():
    """What comes behind a body is of no call, and what comes after that, unasked, is no answer to the next text."""

    def serve(sock: socket.socket) -> None:
        first = answer_to(request(sock))
        sock.sendall(first + b"\r\n")
        request(sock)  # the next call, if it comes this way
        sock.sendall(first)

    with server(serve) as port:
        assert widths(subject(port, timeout=10, deadline=10), ["x", "xx"]) == [1, 2]


def test_a_download_that_gets_an_interim_answer_only(monkeypatch):
    """The result of a batch job, on a connection that is not ours, is not empty because of it: it fails."""
    calls = []

    class Replaced(urllib3.connection.HTTPConnection):
        pass

    def serve(sock: socket.socket) -> None:
        calls.append(sock.recv(1 << 16))
        sock.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "ConnectionCls", Replaced)
    limits = Limits(connect_seconds=2, read_seconds=1, deadline_seconds=5, response_bytes=1 << 20)
    with server(serve) as port, pytest.raises(TransientError, match="interim answer"):
        list(BatchHttp(dict, limits, lambda *_: AssertionError()).lines(f"http://127.0.0.1:{port}/result"))


@functools.cache
def folded(layers: int) -> bytes:
    """256 MiB of blanks, compressed so many times; the last one is a few KB."""
    body = b"".join(folder.compress(b" " * (1 << 20)) for folder in [zlib.compressobj(9, wbits=31)] for _ in range(256))
    for _ in range(layers - 1):
        body = gzip.compress(body, 9)
    return body


@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip,gzip, gzip", "gzip, identity, deflate", "deflate", "br"])
def test_what_unfolds_without_bounds_is_not_unfolded(status, encoding):
    """Neither several encodings around each other, nor one that was not asked for; a status still says what it says."""
    with Provider(keys=[KEY]) as provider:
        body = folded(2)
        provider.script(raw(body, status, content_encoding=encoding))
        embedder = OpenAIEmbedder(KEY, provider.openai_url, timeout=5)
        tracemalloc.start()
        with pytest.raises(TransientError, match="429" if status == 429 else "encoded as"):
            embedder.embed_batch(["x"], "m")
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 4 << 20
        assert provider.calls[0].headers["accept-encoding"] == "gzip"
        assert embedder.embed_batch(["x"], "m").shape == (1, 3072)


@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize("chunked", [False, True])
def test_what_unfolds_a_thousand_times_is_counted_as_it_comes(status, chunked):
    """256 MiB out of 256 KB: what may be read of it is held some times over, and no more."""
    with Provider(keys=[KEY]) as provider:
        body = folded(1)
        if chunked:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            how = {"transfer_encoding": "chunked", "content_length": ""}
        else:
            how = {}
        provider.script(raw(body, status, content_encoding="gzip", **how))
        tracemalloc.start()
        with pytest.raises(TransientError, match="429" if status == 429 else "larger than 1048576 bytes"):
            OpenAIEmbedder(KEY, provider.openai_url, timeout=5, max_response_bytes=1 << 20).embed_batch(["x"], "m")
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 32 << 20


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", b"HTTP/9.9 abc\r\n\r\n", b"\0" * 100]
)
def test_heads_that_are_none(head):
    with server(lambda sock: (sock.recv(1 << 16), sock.sendall(head))[0] and None) as port:
        with pytest.raises(TransientError):
            subject(port).embed_batch(["x"], "m")


def test_a_redirect_to_the_same_host_is_not_followed_either():
    """The next address may be anybody's; whoever redirects is told of in the error, and nothing is sent twice."""
    with Provider(keys=[KEY]) as provider:
        provider.script(fail(307, b"", location="/v1/embeddings"))
        with pytest.raises(ConfigurationError, match="redirect"):
            OpenAIEmbedder(KEY, provider.openai_url, timeout=2).embed_batch(["x"], "m")
        assert len(provider.calls) == 1


def test_cookies_are_not_kept():
    """An answer cannot make us say something in the next call."""
    with Provider(keys=[KEY]) as provider:
        provider.script(raw(b'{"data": [{"embedding": [1, 2]}]}', set_cookie="a=b; Path=/"), None)
        embedder = OpenAIEmbedder(KEY, provider.openai_url, timeout=2)
        embedder.embed_batch(["x"], "m")
        embedder.embed_batch(["x"], "m")
        assert "cookie" not in provider.calls[1].headers


# -- proxies ---------------------------------------------------------------------------------------------------------


class Connect:
    """A proxy that knows CONNECT, and remembers all that it was told before the tunnel."""

    def __init__(self, target: int, before: bytes = b"") -> None:
        self.target, self.before = target, before
        self.heard: list[bytes] = []

    def __call__(self, sock: socket.socket) -> None:
        head = sock.recv(1 << 16)
        self.heard.append(head)
        with socket.create_connection(("127.0.0.1", self.target)) as target:
            sock.sendall(self.before + b"HTTP/1.1 200 OK\r\n\r\n")
            threading.Thread(target=copy, args=(target, sock), daemon=True).start()
            copy(sock, target)


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for sock in (source, target):
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority) -> Iterator[tuple[int, list[bytes]]]:
    """A provider over TLS that answers one vector; its port, and what it heard."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("provider.test").configure_cert(context)
    heard: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            heard.append(request(tls))
            tls.sendall(GOOD)

    with server(serve) as port:
        yield port, heard


@pytest.fixture
def clean(monkeypatch, authority, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    return monkeypatch


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_sees_the_host_and_its_own_password_only(secure, clean, variable):
    """Through HTTPS_PROXY the key and the texts travel inside of TLS, which ends at the provider."""
    port, heard = secure
    proxy = Connect(port)
    with server(proxy) as proxy_port:
        clean.setenv(variable, f"http://user:staple@127.0.0.1:{proxy_port}")
        rows = OpenAIEmbedder(KEY, "https://provider.test/v1", timeout=5).embed_batch(["a private text"], "m")
    assert rows.tolist() == [[1, 2]]
    assert proxy.heard[0].startswith(b"CONNECT provider.test:443 ")
    assert b"Proxy-Authorization: Basic" in proxy.heard[0]
    assert KEY.encode() in heard[0]
    assert b"Proxy-Authorization" not in heard[0], "the provider need not know the proxy's password"
    assert not any(KEY.encode() in part or b"private" in part for part in proxy.heard)


def test_a_proxy_may_send_interim_answers_too(secure, clean):
    """Before it says that the tunnel stands."""
    with server(Connect(secure[0], b"HTTP/1.1 102 Processing\r\n\r\n")) as proxy_port:
        clean.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy_port}")
        assert OpenAIEmbedder(KEY, "https://provider.test/v1", timeout=5).embed_batch(["x"], "m").tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("status", "error"),
    [(502, TransientError), (503, TransientError), (504, TransientError), (407, ConfigurationError)],
)
def test_a_proxy_that_lets_nobody_through(clean, status, error):
    """For a moment, or for want of a password."""

    def refuse(sock: socket.socket) -> None:
        sock.recv(1 << 16)
        sock.sendall(b"HTTP/1.1 %d Sorry\r\nContent-Length: 0\r\n\r\n" % status)

    with server(refuse) as proxy_port:
        clean.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy_port}")
        with pytest.raises(error, match=rf"proxy.*{status}"):
            OpenAIEmbedder(KEY, "https://provider.test/v1").embed_batch(["private"], "m")


@pytest.mark.parametrize(
    ("address", "without", "words"),
    [
        ("socks5h://user:staple@127.0.0.1:1", True, r"needs PySocks: pip install requests\[socks\]"),
        ("socks://127.0.0.1:1", True, "needs PySocks"),
        ("socks://127.0.0.1:1", False, "must be http://HOST:PORT, .* or socks5h://HOST:PORT"),
        ("ftp://user:staple@127.0.0.1:1", False, "must be http://HOST:PORT"),
        ("http://", False, "must be http://HOST:PORT"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_told_at_once(clean, address, without, words):
    """It is not tried again, and the sentence is about the proxy."""

    def as_requests_has_it(*args, **kwargs):
        if without:
            raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")
        raise ValueError(f"Unable to determine SOCKS version from {address}")  # urllib3.contrib.socks

    clean.setattr(requests.adapters, "SOCKSProxyManager", as_requests_has_it)
    clean.setenv("ALL_PROXY", address)
    with pytest.raises(
        ConfigurationError, match=f"the proxy on the way to provider.test .*ALL_PROXY.*{words}"
    ) as caught:
        OpenAIEmbedder(KEY, "https://provider.test/v1").embed_batch(["private"], "m")
    assert "staple" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("socks") is not None, reason="PySocks is installed")
def test_a_socks_proxy_without_pysocks(clean):
    """In requests' own words."""
    clean.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="PySocks"):
        OpenAIEmbedder(KEY, "https://provider.test/v1").embed_batch(["private"], "m")


def test_a_proxy_that_breaks_tls_open_is_found_out(clean, authority):
    """It shows a certificate of its own, which nobody here trusts."""
    other = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert("provider.test").configure_cert(context)
    heard = []

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            heard.append(tls.recv(1 << 16))

    with server(serve) as port, server(Connect(port)) as proxy_port:
        clean.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy_port}")
        with pytest.raises(EmbedQueueError, match="CERTIFICATE_VERIFY_FAILED"):
            OpenAIEmbedder(KEY, "https://provider.test/v1", timeout=5).embed_batch(["x"], "m")
    assert not any(KEY.encode() in part for part in heard)


def test_no_proxy_and_what_is_not_documented(clean):
    """NO_PROXY wins; REQUEST_METHOD (httpoxy), a proxy of another scheme and one set later change nothing."""
    with Provider(keys=[KEY]) as provider, server(Connect(0)) as proxy_port:
        proxy = f"http://127.0.0.1:{proxy_port}"
        clean.setenv("HTTPS_PROXY", proxy)  # of https only
        embedder = OpenAIEmbedder(KEY, provider.openai_url, timeout=2)
        embedder.embed_batch(["x"], "m")
        clean.setenv("http_proxy", proxy)  # decided once a session
        embedder.embed_batch(["x"], "m")
        clean.setenv("NO_PROXY", "127.0.0.1")
        OpenAIEmbedder(KEY, provider.openai_url, timeout=2).embed_batch(["x"], "m")
        assert len(provider.calls) == 3
