"""The way there and back: time, size, connections, threads, forks, and an environment that interferes."""

from __future__ import annotations

import gzip
import json
import os
import ssl
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import urllib3

from embedqueue.embedders import GeminiEmbedder, OpenAIEmbedder, http
from embedqueue.values.errors import ConfigurationError, TransientError
from tests.provider import Answer, Provider, drop, fail, hang, raw, truncate, vector_of


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


def embedder(provider: Provider, **options: Any) -> OpenAIEmbedder:
    return OpenAIEmbedder("test-key", provider.openai_url, **{"timeout": (10, 10), **options})


def peers(provider: Provider) -> int:
    return len({call.peer for call in provider.calls})


def test_one_connection_serves_many_calls_refused_ones_too(provider: Provider) -> None:
    provider.script(None, fail(500), fail(429, "x" * 100_000), None, raw("{"), None)
    subject = embedder(provider, encoding_format="float")
    for _ in range(6):
        with suppress(TransientError):
            subject.embed_batch(["x"], "m")
    assert len(provider.calls) == 6
    assert peers(provider) == 1


def test_a_connection_that_was_idle_for_long_is_not_trusted(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Load balancers forget it without a word, and the call would wait for its whole read timeout."""
    subject = embedder(provider)
    subject.embed_batch(["x"], "m")
    monkeypatch.setattr(http, "IDLE_SECONDS", -1.0)
    subject.embed_batch(["x"], "m")
    assert peers(provider) == 2


@pytest.mark.parametrize("place", [requests.Session, requests.adapters.HTTPAdapter], ids=["session", "adapter"])
def test_mocks_and_tracers_of_requests_see_our_calls(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, place: type
) -> None:
    """Where requests-mock, responses and tracers stand: before our first call, and after it."""
    seen, send = [], place.send
    subject = embedder(provider)
    subject.embed_batch(["x"], "m")

    def watched(self: Any, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        seen.append((request.method, request.url, json.loads(request.body)["input"]))
        return send(self, request, **kwargs)

    monkeypatch.setattr(place, "send", watched)
    for one in (subject, embedder(provider)):
        one.embed_batch(["y"], "m")
    assert seen == [("POST", f"{provider.openai_url}/embeddings", ["y"])] * 2


def test_another_connection_in_place_of_urllib3s_is_used(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """As vcrpy puts one there; ours is used again afterwards."""
    made = []

    class Recorded(urllib3.connection.HTTPConnection):
        def connect(self) -> None:
            made.append(self.port)
            super().connect()

    with monkeypatch.context() as patch:
        patch.setattr(urllib3.HTTPConnectionPool, "ConnectionCls", Recorded)
        embedder(provider).embed_batch(["x"], "m")
    embedder(provider).embed_batch(["x"], "m")
    assert len(made) == 1


def test_no_cookie_is_kept(provider: Provider) -> None:
    """A gateway's session is nobody's: not for the next address, nor in memory."""
    provider.script(fail(500, set_cookie="session=1; Path=/"))
    subject = GeminiEmbedder("test-key", provider.gemini_url)
    with suppress(TransientError):
        subject.embed_batch(["x"], "gemini-embedding-001")
    subject.embed_batch(["x"], "gemini-embedding-2")
    assert [call.headers.get("cookie") for call in provider.calls] == [None, None]


def test_close_and_go_on(provider: Provider) -> None:
    subject = embedder(provider)
    subject.embed_batch(["x"], "m")
    subject.close()
    subject.close()
    assert subject.embed_batch(["x"], "m").shape == (1, 3072)
    assert peers(provider) == 2


def test_silence(provider: Provider) -> None:
    provider.script(hang())
    with pytest.raises(TransientError, match="in time") as caught:
        embedder(provider, timeout=(2, 0.15)).embed_batch(["x"], "m")
    assert caught.value.suspect_input
    assert caught.value.cause == "timeout"


@pytest.mark.quiet
@pytest.mark.parametrize("from_head", [False, True])
def test_a_byte_at_a_time_ends_at_the_deadline(provider: Provider, from_head: bool) -> None:
    """Each byte comes well within the read timeout; only the sum is too long."""
    provider.script(Answer(body=b" " * 100, manner="trickle", interval=0.02, from_head=from_head))
    started = time.monotonic()
    with pytest.raises(TransientError, match="in time") as caught:
        embedder(provider, timeout=(2, 1), deadline=0.3).embed_batch(["x"], "m")
    assert time.monotonic() - started < 2
    assert caught.value.suspect_input


def test_a_refusal_that_never_ends_is_still_a_refusal(provider: Provider) -> None:
    provider.script(Answer(401, {"error": "no"}, manner="trickle", interval=10.0))
    with pytest.raises(ConfigurationError, match="401"):
        embedder(provider, timeout=(2, 2)).embed_batch(["x"], "m")


@pytest.mark.parametrize("answer", [drop(), truncate()])
def test_cut_off(provider: Provider, answer: Answer) -> None:
    """After the call was sent: one text may have brought the server down."""
    provider.script(answer)
    subject = embedder(provider)
    with pytest.raises(TransientError) as caught:
        subject.embed_batch(["x"], "m")
    assert caught.value.suspect_input
    assert caught.value.cause == "connection"
    assert subject.embed_batch(["x"], "m").shape == (1, 3072)


def test_nobody_listens() -> None:
    with Provider() as gone:
        url = gone.openai_url
    with pytest.raises(TransientError, match="refused") as caught:
        OpenAIEmbedder("k", url, timeout=2).embed_batch(["x"], "m")
    assert not caught.value.suspect_input


def test_compressed_answers(provider: Provider) -> None:
    body = gzip.compress(b'{"data": [{"embedding": [1, 2]}]}')
    provider.script(raw(body, content_encoding="gzip"), raw(body[:20] + b"!!!!", content_encoding="gzip"))
    subject = embedder(provider)
    assert subject.embed_batch(["x"], "m").tolist() == [[1, 2]]
    with pytest.raises(TransientError):
        subject.embed_batch(["x"], "m")


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_compressed_in_parts_and_padded(provider: Provider, encoding: str) -> None:
    """As some servers flush, in members of their own, and as some pad; longer than a step of either kind."""
    texts = [str(number) for number in range(1000)]
    vectors = [[float(number)] * 1000 for number in range(1000)]
    whole = json.dumps({"data": [{"embedding": vector} for vector in vectors]}).encode()
    body = gzip.compress(whole[:1_500_000]) + gzip.compress(b"") + gzip.compress(whole[1_500_000:], 0) + bytes(9)
    provider.script(raw(body, content_encoding=encoding))
    assert embedder(provider, encoding_format="float").embed_batch(texts, "m").tolist() == vectors


def test_an_encoding_that_is_none_changes_nothing(provider: Provider) -> None:
    provider.script(raw(b'{"data": [{"embedding": [1, 2]}]}', content_encoding="utf-8"))
    assert embedder(provider).embed_batch(["x"], "m").tolist() == [[1, 2]]


def test_chunked_answers(provider: Provider) -> None:
    parts = [b'{"data": [{"embed', b'ding": [1, 2]}]}', b""]
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    provider.script(*[raw(body, content_length="", transfer_encoding="chunked")] * 2)
    subject = embedder(provider)
    for _ in range(2):
        assert subject.embed_batch(["x"], "m").tolist() == [[1, 2]]
    assert peers(provider) == 1


@pytest.mark.parametrize("compressed", [True, False])
def test_an_answer_without_end_takes_bounded_memory(provider: Provider, compressed: bool) -> None:
    bomb = b"0" * (64 << 20)
    provider.script(raw(gzip.compress(bomb, 1), content_encoding="gzip") if compressed else raw(bomb))
    subject = embedder(provider, max_response_bytes=1 << 20)
    tracemalloc.start()
    with pytest.raises(TransientError, match="larger than 1048576 bytes"):
        subject.embed_batch(["x"], "m")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 << 20
    assert subject.embed_batch(["x"], "m").shape == (1, 3072)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_named_and_not_followed(provider: Provider, status: int) -> None:
    with Provider() as elsewhere:
        provider.script(fail(status, b"", location=f"{elsewhere.openai_url}/embeddings?key=1"))
        with pytest.raises(ConfigurationError, match=elsewhere.url.removeprefix("http://")):
            embedder(provider).embed_batch(["x"], "m")
        assert not elsewhere.calls


@pytest.mark.parametrize("location", ["http://[", "", "//"])
def test_broken_redirects(provider: Provider, location: str) -> None:
    provider.script(fail(302, b"", location=location))
    with pytest.raises(ConfigurationError, match="redirect"):
        embedder(provider).embed_batch(["x"], "m")


@pytest.mark.parametrize(
    "base_url",
    ["nonsense", "localhost:8080", "ftp://host/v1", "http://", "http://[::1", "http://h:99999999", "http://a b"],
)
def test_addresses_that_are_none(base_url: str) -> None:
    with pytest.raises(ConfigurationError):
        OpenAIEmbedder("k", base_url, timeout=2).embed_batch(["x"], "m")
    with pytest.raises(ConfigurationError):
        GeminiEmbedder("k", base_url, timeout=2).embed_batch(["x"], "m")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": (1, -1)}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"timeout": "5"}, TypeError),
        ({"timeout": None}, TypeError),
        ({"deadline": 0}, ValueError),
        ({"dimensions": 0}, ValueError),
        ({"dimensions": 1.5}, TypeError),
        ({"max_texts": True}, TypeError),
        ({"max_response_bytes": 0}, ValueError),
        ({"encoding_format": "hex"}, ValueError),
    ],
)
def test_options_that_cannot_work_are_refused_at_once(options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        OpenAIEmbedder("k", **options)


def test_threads_call_side_by_side_on_their_own_connections(provider: Provider) -> None:
    subject = embedder(provider)
    provider.hold()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(subject.embed_batch, [f"text {place}"], "m") for place in range(4)]
        arrived = provider.wait_for_calls(4)
        provider.release()
        rows = [future.result(timeout=45) for future in futures]
    assert arrived
    assert (provider.max_concurrent, peers(provider)) == (4, 4)
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(row[0], vector_of(f"text {place}"))


def test_many_threads_never_mix_answers(provider: Provider) -> None:
    subject = embedder(provider)

    def call(place: int) -> bool:
        texts = [f"{place}:{part}" for part in range(3)]
        return np.array_equal(
            subject.embed_batch(texts, f"m{place % 3}"), np.stack([vector_of(text) for text in texts])
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(200)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_uses_connections_of_its_own(provider: Provider) -> None:
    subject = embedder(provider)
    subject.embed_batch(["parent"], "m")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads run: that is the point
        child = os.fork()
    if child == 0:
        try:
            good = np.array_equal(subject.embed_batch(["child"], "m")[0], vector_of("child"))
            subject.close()
            os._exit(0 if good else 1)
        finally:
            os._exit(2)
    assert provider.wait_for_calls(2, ended=True)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(subject.embed_batch(["parent again"], "m")[0], vector_of("parent again"))
    parent, forked, again = (call.peer for call in provider.calls)
    assert parent == again != forked


def test_netrc_does_not_replace_our_key(provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    embedder(provider).embed_batch(["x"], "m")
    assert provider.calls[0].headers["authorization"] == "Bearer test-key"
    provider.settings.require_key = False
    OpenAIEmbedder("", provider.openai_url, timeout=2).embed_batch(["x"], "m")
    assert "authorization" not in provider.calls[1].headers


def test_proxies_of_the_environment_are_used(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    with Provider() as gone:
        monkeypatch.setenv("http_proxy", gone.url.replace("//", "//user:hunter2@"))
    with pytest.raises(TransientError, match="proxy") as caught:
        OpenAIEmbedder("k", "http://example.invalid/v1", timeout=2).embed_batch(["x"], "m")
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    embedder(provider).embed_batch(["x"], "m")
    assert len(provider.calls) == 1


def test_a_ca_bundle_that_is_not_there(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "no-such-file.pem")
    with pytest.raises(ConfigurationError, match=r"no-such-file\.pem"):
        OpenAIEmbedder("k", provider.url.replace("http", "https"), timeout=2).embed_batch(["x"], "m")


TUNNEL = "Tunnel connection failed:"


def _retries(reason: Exception) -> urllib3.exceptions.MaxRetryError:
    return urllib3.exceptions.MaxRetryError(None, "/v1?key=secret", reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "kind", "suspect"),
    [
        (requests.exceptions.ConnectTimeout("x"), TransientError, False),
        (requests.exceptions.ReadTimeout("x"), TransientError, True),
        (requests.exceptions.ConnectionError(_retries(OSError(111, "refused"))), TransientError, False),
        (requests.exceptions.ConnectionError(urllib3.exceptions.ProtocolError("x", OSError())), TransientError, True),
        (requests.exceptions.SSLError(_retries(ssl.SSLCertVerificationError(1, "expired"))), ConfigurationError, None),
        (requests.exceptions.SSLError(_retries(ssl.SSLEOFError(8, "EOF"))), TransientError, False),
        (requests.exceptions.ProxyError(_retries(OSError(f"{TUNNEL} 407 Who?"))), ConfigurationError, None),
        (requests.exceptions.ProxyError(_retries(OSError(f"{TUNNEL} 503 Busy"))), TransientError, False),
        (requests.exceptions.ProxyError(_retries(OSError(111, "refused"))), TransientError, False),
        (requests.exceptions.InvalidURL("secret"), ConfigurationError, None),
        (requests.exceptions.MissingSchema("secret"), ConfigurationError, None),
        (requests.exceptions.InvalidHeader("secret"), ConfigurationError, None),
        (requests.exceptions.InvalidSchema("secret"), ConfigurationError, None),
        (requests.exceptions.ChunkedEncodingError("x"), TransientError, False),
        (urllib3.exceptions.DecodeError("x"), TransientError, False),
        (OSError("no such bundle"), ConfigurationError, None),
        (UnicodeEncodeError("latin-1", "secret", 0, 1, "no"), ConfigurationError, None),
    ],
)
def test_what_requests_raises(error: Exception, kind: type[Exception], suspect: bool | None) -> None:
    failure = http.failure_of(error, "http://host/v1", reached=False)
    assert type(failure) is kind
    assert getattr(failure, "suspect_input", None) is suspect
    assert "secret" not in str(failure)


def test_an_answer_broken_on_its_way_is_suspect() -> None:
    failure = http.failure_of(urllib3.exceptions.DecodeError("x"), "http://host/v1", reached=True)
    assert isinstance(failure, TransientError)
    assert failure.suspect_input
