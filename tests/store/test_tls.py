"""Redis over TLS, as a user with the rights of docs/redis-acl.md and no others; a provider over TLS.

The Redis of the wheel has no TLS of its own, so ``tls.TlsProxy`` stands before it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import trustme

from embedqueue import BatchFailed, ConfigurationError, ItemRejected, TransientError
from embedqueue.demo.localredis import LocalRedis
from embedqueue.embedders import GeminiEmbedder, OpenAIEmbedder
from embedqueue.settings.settings import read
from embedqueue.store.records import Asked
from embedqueue.store.store import Keys
from embedqueue.values.provenance import digest
from tests.inside import FIRST_PAUSE_SECONDS, inside
from tests.parts import PATIENCE_SECONDS, PROGRAM_SECONDS, eventually, expected, local_redis, provenance
from tests.proof.moves import terms
from tests.provider import Provider, hang
from tests.store.test_clients import _rules
from tests.store.tls import TlsProxy


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[LocalRedis]:
    yield from local_redis(appendonly=False)


@pytest.fixture
def admin(server) -> Iterator[redis.Redis]:
    with contextlib.closing(server.client()) as admin:
        admin.flushall()
        admin.execute_command("ACL", "SETUSER", "embedqueue", "reset", "on", ">secret", *_rules())
        admin.execute_command("ACL", "LOG", "RESET")
        yield admin
        admin.acl_deluser("embedqueue")


@pytest.fixture
def proxy(server, admin, authority) -> Iterator[TlsProxy]:
    with TlsProxy(server.socket_path, authority) as proxy:
        yield proxy


@pytest.fixture
def url(proxy, bundle) -> str:
    return f"rediss://embedqueue:secret@localhost:{proxy.port}/0?ssl_ca_certs={bundle}"


def test_everything_over_tls_under_the_minimal_acl(url, proxy, admin, make_queue, embedder, monkeypatch):
    """Dead letters, the cache, futures of another process, an outage of the provider, the dashboards' reads."""
    client = redis.Redis.from_url(url)
    queue, producer = make_queue(client, cache_ttl=60), make_queue(client, worker=False)
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert producer.enqueue("doc:2", "one").result(PATIENCE_SECONDS) == expected("one")
    assert embedder.sent["one"] == 1, "the cache does not work"
    admin.set("doc:string", "not a hash")
    with pytest.raises(ItemRejected):
        producer.enqueue("doc:string", "three").result(PATIENCE_SECONDS)
    assert [letter.redis_key for letter in queue.dead_letters()] == ["doc:string"]
    admin.delete("doc:string")
    assert queue.retry_dead("doc:string") == 1
    queue.flush(PATIENCE_SECONDS)
    admin.zadd("embed_queue:pending", {"not ours": 1})
    queue.flush(PATIENCE_SECONDS)
    assert queue.discard_dead() == 1
    embedder.rule = lambda texts: ConfigurationError("no credit")
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 5.0)
    assert isinstance(producer.enqueue("doc:4", "four").exception(PATIENCE_SECONDS), BatchFailed)
    assert queue.stats().paused_until
    embedder.rule = None
    eventually(lambda: admin.hexists("doc:4", "embedding"), "the probe")
    producer.flush(PATIENCE_SECONDS)
    assert producer.pending_count() == queue.stats().waiting == 0
    assert proxy.connections
    refused = {entry["object"] for entry in admin.acl_log(128)}
    assert refused <= {"info", "client|setinfo"}


def test_nothing_but_the_namespace_and_the_hashes_is_touched(url, admin, make_queue):
    """Every key that a day's work leaves is the queue's or one that was given; others stay as they were."""
    others = {"other:1": "a", "embed_queue2:pending": "b", "embed_queueX": "c"}
    admin.mset(others)
    queue = make_queue(redis.Redis.from_url(url), cache_ttl=60)
    queue.enqueue_many([(f"doc:{i}", f"text {i}") for i in range(50)])
    queue.flush(PATIENCE_SECONDS)
    queue.stop()
    found = {key.decode() for key in admin.keys("*")}
    ours = {key for key in found if key.startswith("embed_queue:")}
    assert found - ours == {*others, *(f"doc:{i}" for i in range(50))}
    assert {key.decode() for key in admin.hkeys("doc:1")} == {"embedding", "embedding_of"}
    assert {name: admin.get(name).decode() for name in others} == others


@pytest.mark.parametrize("name", [*Keys("embed_queue").all, "embed_queue:", "embed_queue:cache:00", "embed_queue:x"])
def test_keys_of_the_queue_itself_are_refused(name, admin, server, make_queue):
    """Before anything is written, one by one and among many; the neighbouring namespace is the user's."""
    queue = make_queue(server.client(), start=False)
    for wrong in (lambda: queue.enqueue(name, "x"), lambda: queue.enqueue_many([("doc:1", "x"), (name, "x")])):
        with pytest.raises(ValueError, match="namespace"):
            wrong()
    assert not admin.keys("*")
    queue.enqueue("embed_queue2:doc", "x")
    queue.enqueue("embed_queue", "x")
    assert queue.pending_count() == 2


def test_processes_over_tls(url, admin, provider, tmp_path):
    """The command line with settings alone: enqueue here, a worker there, as the user with the minimal rights."""
    pytest.importorskip("click", reason='the command line is in the extra "embedqueue[cli]"')
    lines = "".join(json.dumps({"redis_key": f"doc:{i}", "text": f"text {i}"}) + "\n" for i in range(5))
    environment = {
        "EMBEDQUEUE_REDIS_URL": url,
        "EMBEDQUEUE_PROVIDER": "openai",
        "EMBEDQUEUE_BASE_URL": provider.openai_url,
        "EMBEDQUEUE_API_KEY": "test-key",
        "EMBEDQUEUE_DIMENSIONS": "16",
    }
    said = ""
    for arguments, text in ((["enqueue", "-"], lines), (["worker", "--burst"], ""), (["stats", "--json"], "")):
        done = subprocess.run(
            [sys.executable, "-m", "embedqueue", *arguments],
            input=text, capture_output=True, text=True, timeout=PROGRAM_SECONDS, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    assert all(admin.hstrlen(f"doc:{i}", "embedding") == 64 for i in range(5))
    assert "secret" not in said


@pytest.mark.parametrize("change", ["no bundle", "wrong name"])
def test_a_redis_that_cannot_prove_itself_is_not_spoken_to(proxy, bundle, make_queue, admin, change, caplog):
    """redis-py verifies unless told otherwise, and our private clients do as it was told; no password is sent."""
    options = {"ssl_ca_certs": str(bundle)} if change == "wrong name" else {}
    host = "127.0.0.1" if change == "wrong name" else "localhost"
    client = redis.Redis(host=host, port=proxy.port, ssl=True, username="embedqueue", password="secret", **options)
    with caplog.at_level(logging.WARNING):
        queue = make_queue(client, start=False)
        with pytest.raises(redis.ConnectionError):
            queue.enqueue("doc:1", "one")
        with pytest.raises(redis.ConnectionError):
            queue.pending_count()
    assert not admin.keys("*")
    assert "secret" not in caplog.text


def test_client_certificates(server, admin, authority, bundle, make_queue, tmp_path):
    """Settings of the user's client reach ours, files and all."""
    mine = authority.issue_cert("client")
    mine.private_key_pem.write_to_path(tmp_path / "key.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    files = {"ssl_certfile": str(tmp_path / "cert.pem"), "ssl_keyfile": str(tmp_path / "key.pem")}
    with TlsProxy(server.socket_path, authority, client_certificates=True) as proxy:
        for extra in ({}, files):
            client = redis.Redis(host="localhost", port=proxy.port, ssl=True, ssl_ca_certs=str(bundle), **extra)
            queue = make_queue(client, start=bool(extra))
            if extra:
                assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
            else:
                with pytest.raises(redis.ConnectionError):
                    queue.enqueue("doc:1", "one")
            queue.stop()  # a handshake that the proxy's end cuts off leaves a socket to the garbage collector


# -- the provider ----------------------------------------------------------------------------------------------------


@pytest.fixture
def secure_provider(provider: Provider, authority) -> Iterator[TlsProxy]:
    with TlsProxy(int(provider.url.rpartition(":")[2]), authority) as proxy:
        yield proxy


@pytest.mark.parametrize("kind", [OpenAIEmbedder, GeminiEmbedder])
def test_a_provider_that_cannot_prove_itself_gets_nothing(secure_provider, provider, bundle, monkeypatch, kind):
    """Verified by default; the bundle of the environment is taken; neither key nor text is sent before."""
    path = "v1" if kind is OpenAIEmbedder else "v1beta"
    model = "m" if kind is OpenAIEmbedder else "gemini-embedding-001"
    stranger = kind("test-key", f"https://localhost:{secure_provider.port}/{path}", timeout=5)
    with pytest.raises(ConfigurationError, match=r"secure connection.*CERTIFICATE_VERIFY_FAILED"):
        stranger.embed_batch(["x"], model)
    assert not provider.calls
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    known = kind("test-key", f"https://localhost:{secure_provider.port}/{path}", timeout=5)
    assert known.embed_batch(["x"], model).shape == (1, 3072)
    other_name = kind("test-key", f"https://127.0.0.1:{secure_provider.port}/{path}", timeout=5)
    with pytest.raises(ConfigurationError, match="CERTIFICATE_VERIFY_FAILED"):
        other_name.embed_batch(["x"], model)
    assert len(provider.calls) == 1


def test_the_deadline_holds_over_tls(secure_provider, provider, bundle, monkeypatch):
    """Silence behind TLS ends in time as well."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    provider.rule = lambda texts: hang()
    subject = OpenAIEmbedder("test-key", f"https://localhost:{secure_provider.port}/v1", timeout=(5, 0.2))
    with pytest.raises(TransientError, match="in time"):
        subject.embed_batch(["x"], "m")


def test_no_setting_turns_verification_off():
    """There is no option, variable or header for it that we read."""
    for name in ("VERIFY", "SSL_VERIFY", "INSECURE"):
        with pytest.raises(ValueError, match=name):
            read({name: "0"})


def test_hashes_that_may_not_be_read_do_not_hide_the_others(url, admin, make_queue):
    """Whoever waits for several learns of each what there is to learn."""
    for key in ("doc:1", "private:1"):
        admin.hset(key, mapping={"embedding": b"vector", "embedding_of": provenance("text")})
    store = inside(make_queue(redis.Redis.from_url(url), start=False)).store
    asked = [Asked(key, 0, digest("text")) for key in ("private:1", "doc:1", "private:2")]
    found = store.look(asked, terms("embedding"))
    assert found == [("gone", b""), ("done", b"vector"), ("gone", b"")]


def test_a_hash_that_may_not_be_read_keeps_no_other_from_being_put_right(url, admin, make_queue):
    queue = make_queue(redis.Redis.from_url(url), start=False)
    assert queue.verify([("doc:1", "text"), ("private:1", "text")], fix=True).fixed == 2
    queue.start()
    queue.flush(PATIENCE_SECONDS)
    assert admin.hexists("doc:1", "embedding")
    assert [letter.redis_key for letter in queue.dead_letters()] == ["private:1"]
