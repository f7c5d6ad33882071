"""No secret leaves its place: everything that a full run of bad luck emitted is searched for key and passwords.

Emitted means: log records at DEBUG with their tracebacks, exceptions with the locals of our frames (as Sentry and
pytest show them), reprs of our objects, stats, dead letters, all of Redis, and what the commands print.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import socket
import traceback
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tenacity import Retrying, stop_after_attempt

from embedqueue import ConfigurationError, EmbeddingBatchQueue, EmbedQueueError, InputRejected, Observer, TransientError
from embedqueue.demo.localredis import LocalRedis
from embedqueue.embedders import GeminiEmbedder, OpenAIEmbedder, OpenRouterEmbedder
from embedqueue.settings.checks import check_call, check_redis
from embedqueue.settings.settings import read_environment
from tests.inside import FIRST_PAUSE_SECONDS
from tests.localcluster import free_port
from tests.parts import PATIENCE_SECONDS, local_redis
from tests.provider import Provider, drop, fail, hang, poison, raw

KEY = "sk-0123456789-hunter2"
PASSWORD = "correct-horse-battery"
PROXY_PASSWORD = "staple-proxy"
SECRETS = (KEY, PASSWORD, PROXY_PASSWORD)
DIARY = 'My diary:\t"Ada" isn\'t well,\nAda is ill with'


def locals_of_ours(trace: TracebackType | None) -> Iterator[str]:
    """The locals of our frames, as whoever reports errors shows them."""
    for frame, _ in traceback.walk_tb(trace):
        if frame.f_globals.get("__name__", "").partition(".")[0] == "embedqueue":
            yield from (f"{frame.f_code.co_name}.{name} = {value!r}" for name, value in frame.f_locals.items())


def said_by(error: BaseException | None) -> Iterator[str]:
    """All that an error and those behind it say."""
    while error is not None:
        yield from (str(error), repr(error), repr(vars(error)), *traceback.format_exception(error))
        yield from locals_of_ours(error.__traceback__)
        error = error.__cause__ or error.__context__


class Ear(logging.Handler):
    """Hears everything at DEBUG, whoever says it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.heard: list[str] = []
        self.levels: list[int] = []  # of what was heard

    def emit(self, record: logging.LogRecord) -> None:
        self.heard += [record.getMessage(), repr(vars(record))]
        if record.exc_info:
            self.heard += said_by(record.exc_info[1])
        self.levels += [record.levelno] * (len(self.heard) - len(self.levels))


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear, root = Ear(), logging.getLogger()
    level = root.level
    root.addHandler(ear)
    root.setLevel(logging.DEBUG)
    yield ear
    root.removeHandler(ear)
    root.setLevel(level)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalRedis]:
    for server in local_redis(port=free_port(), appendonly=False):
        with contextlib.closing(server.client()) as admin:
            admin.execute_command("ACL", "SETUSER", "app", "reset", "on", f">{PASSWORD}", "~*", "+@all")
        yield server


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(keys=[KEY]) as provider:
        yield provider


def our_reprs(thing: Any, seen: set[int]) -> Iterator[str]:
    """The repr of an object of ours and of all that hang on it."""
    if id(thing) in seen or not type(thing).__module__.startswith("embedqueue"):
        return
    seen.add(id(thing))
    yield repr(thing)
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    for value in [*getattr(thing, "__dict__", {}).values(), *(getattr(thing, name, None) for name in slots)]:
        yield from our_reprs(value, seen)


def all_in_redis(client: redis.Redis) -> Iterator[str]:
    readers = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
    }
    for key in client.keys("*"):
        kind = client.type(key)
        if kind != b"none":  # a pause may end meanwhile
            yield repr((key, readers[kind](key)))


def search(said: list[str], secrets: Sequence[str] = SECRETS) -> None:
    assert len(said) > 20, "nothing was heard"
    leaks = [line[:300] for line in said for secret in secrets if secret in line]
    assert not leaks, leaks[:5]


ONCE = Retrying(stop=stop_after_attempt(1), reraise=True)
ANSWERS = [
    fail(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
    fail(500, f"<html><title>{KEY}</title>"),
    raw(f'{{"{KEY}'),
    fail(302, b"", location=f"http://127.0.0.1:1/?key={KEY}"),
    fail(403, {"error": {"message": f"key={KEY} is not allowed"}}),
    drop(),
    hang(),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: str(answer.status))
@pytest.mark.parametrize("kind", [OpenAIEmbedder, OpenRouterEmbedder, GeminiEmbedder])
def test_a_provider_that_fails(server, provider, ear, kind, answer):
    """Whatever the provider answers, echoes of the key included."""
    url = {OpenAIEmbedder: provider.openai_url, OpenRouterEmbedder: provider.openrouter_url}
    embedder = kind(KEY, url.get(kind, provider.gemini_url), dimensions=16, timeout=0.3)
    client = redis.Redis(port=server.port, username="app", password=PASSWORD)
    client.flushall()
    model = "gemini-embedding-001" if kind is GeminiEmbedder else "vendor/m"
    provider.rule = lambda texts: answer
    said = []
    with EmbeddingBatchQueue(embedder, client, model=model, retry=ONCE) as queue:
        error = queue.enqueue("doc:1", "text").exception(PATIENCE_SECONDS)
        said += [*said_by(error), repr(queue.stats()), *our_reprs(queue, set()), *all_in_redis(client)]
    said += ear.heard
    search(said)


AZURE, GATEWAY = "azure-secret-77", "Bearer gw-secret-88"


@pytest.mark.parametrize("status", [401, 403, 400, 429, 500])
@pytest.mark.parametrize(
    "headers", [{"api-key": AZURE}, {"Authorization": GATEWAY}, {"X-Pass": AZURE, "X-Way": GATEWAY}]
)
def test_a_secret_in_a_header_of_the_users_own(server, provider, ear, headers, status):
    """Azure's api-key and a gateway's token are as secret as the key, in whichever form they are echoed."""
    provider.settings.require_key = False
    sent = [base64.b64encode(value.encode()).decode() for value in headers.values()]
    echo = f"{headers} {sent} {quote(str(list(headers.values())))} {json.dumps(headers)}"
    provider.rule = lambda texts: fail(status, {"error": {"message": f"Access denied: {echo}", "code": AZURE}})
    client = redis.Redis(port=server.port, username="app", password=PASSWORD)
    client.flushall()
    embedder = OpenAIEmbedder("", provider.openai_url, dimensions=16, headers=headers)
    with EmbeddingBatchQueue(embedder, client, model="m", retry=ONCE) as queue:
        error = queue.enqueue("doc:1", "a text of the user's").exception(PATIENCE_SECONDS)
        said = [*said_by(error), repr(queue.stats()), *our_reprs(queue, set()), *all_in_redis(client), *ear.heard]
    assert "Access denied" in str(error)
    search(said, (AZURE, GATEWAY, "gw-secret-88", *sent, quote(GATEWAY)))


@pytest.mark.parametrize("status", [500, 401, 429, 400])
@pytest.mark.parametrize("own", [False, True])
def test_a_text_that_is_echoed(server, provider, ear, status, own, monkeypatch):
    """At DEBUG and in dead letters only, however it is escaped, by a provider or an embedder of one's own."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)
    client = redis.Redis(port=server.port, username="app", password=PASSWORD)
    client.flushall()
    seen: list[Any] = []

    class Own(OpenAIEmbedder):
        def embed_batch(self, texts: Any, model: str) -> Any:
            raise {500: ValueError, 401: ConfigurationError, 429: TransientError, 400: InputRejected}[status](
                echo(texts)
            )

    class Watching(Observer):
        call_ended = released = redis_failed = lambda self, report: seen.append(report)  # noqa: E731

    def echo(texts: Any) -> str:
        return f"bad input {texts[0]!r}, that is {json.dumps(texts[0])}, {texts[0][:20]}..."

    provider.rule = lambda texts: fail(status, {"error": {"message": echo(texts), "code": "bad_input"}})
    embedder = (Own if own else OpenAIEmbedder)(KEY, provider.openai_url, dimensions=16)
    with EmbeddingBatchQueue(embedder, client, model="m", retry=ONCE, observers=[Watching()]) as queue:
        error = queue.enqueue("doc:1", DIARY).exception(PATIENCE_SECONDS)
        reason = client.get("embed_queue:pause") or b""
        said = [
            repr(queue.stats()),
            repr(error),
            repr(seen),
            reason.decode(),
            repr(client.xrange("embed_queue:events")),
        ]
    assert seen
    said += [words for level, words in zip(ear.levels, ear.heard, strict=True) if level > logging.DEBUG]
    search(said + [""] * 20, ("diary", "Ada", "ill with"))
    assert status == 400 or "bad input" in reason.decode()


def test_a_bad_text_and_a_good_one(server, provider, ear):
    """A dead letter with the provider's words, and a vector."""
    provider.rule = poison("bad", 400, {"error": {"message": f"the input is bad, says {KEY}"}})
    client = redis.Redis(port=server.port, username="app", password=PASSWORD)
    client.flushall()
    embedder = OpenAIEmbedder(KEY, provider.openai_url, dimensions=16)
    with EmbeddingBatchQueue(embedder, client, model="m", cache_ttl=60) as queue:
        futures = queue.enqueue_many([("doc:1", "bad"), ("doc:2", "good")])
        said = [*said_by(futures[0].exception(PATIENCE_SECONDS)), *said_by(futures[1].exception(PATIENCE_SECONDS))]
        assert len(queue.dead_letters()) == 1
        said += [repr(queue.dead_letters()), repr(queue.stats()), *our_reprs(queue, set()), *all_in_redis(client)]
    search(said + ear.heard)


def test_a_redis_that_fails(server, provider, ear):
    """Wrong passwords, a server that is gone, and one that hangs up."""
    said = []
    with contextlib.closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))
        gone = closed.getsockname()[1]
        for port, user in [(server.port, "nobody"), (gone, "app")]:
            client = redis.Redis(port=port, username=user, password=PASSWORD, retry=Retry(NoBackoff(), 0))
            queue = EmbeddingBatchQueue(OpenAIEmbedder(KEY, provider.openai_url), client, model="m")
            for what in (queue.pending_count, queue.stats, queue.dead_letters, queue.retry_dead, queue.flush):
                with pytest.raises(redis.RedisError) as caught:
                    what()
                said += said_by(caught.value)
            with pytest.raises(redis.RedisError) as caught:
                queue.enqueue("doc:1", "text")
            said += [*said_by(caught.value), *our_reprs(queue, set())]
            queue.stop()
    search(said + ear.heard)


@pytest.mark.parametrize("slip", ["two words", "line\nbreak", "ümlaut"])
def test_a_key_with_a_slip(provider, ear, slip):
    """The locals of the frame that refuses a key do not hold it."""
    for kind in (OpenAIEmbedder, OpenRouterEmbedder, GeminiEmbedder):
        with pytest.raises(EmbedQueueError) as caught:
            kind(KEY + slip, provider.openai_url).embed_batch(["x"], "m")
        search([*said_by(caught.value), *ear.heard] + [""] * 20)


@pytest.mark.parametrize("extra", [{"X-Broken": "a\nb"}, {"Bad name": "x"}, {}])
def test_a_request_that_cannot_be_made(monkeypatch, ear, extra):
    """Headers that no request can carry, and a proxy that refuses."""
    with Provider() as gone:
        monkeypatch.setenv("http_proxy", gone.url.replace("//", f"//user:{PROXY_PASSWORD}@"))
    embedder = OpenAIEmbedder(KEY, "http://example.invalid/v1", timeout=2, headers=extra)
    with pytest.raises(EmbedQueueError) as caught:
        embedder.embed_batch(["x"], "m")
    search([*said_by(caught.value), *our_reprs(embedder, set()), *ear.heard] + [""] * 20)


def test_the_commands(server, provider, ear, monkeypatch):
    """What the command line prints, with a provider and then a Redis that refuse."""
    pytest.importorskip("click", reason='the command line is in the extra "embedqueue[cli]"')
    from click.testing import CliRunner

    from embedqueue.cli import cli

    client = redis.Redis(port=server.port, username="app", password=PASSWORD)
    client.flushall()
    for name, value in {
        "REDIS_URL": f"redis://app:{PASSWORD}@127.0.0.1:{server.port}/0",
        "PROVIDER": "openai",
        "BASE_URL": provider.openai_url,
        "API_KEY": KEY,
        "DIMENSIONS": "16",
    }.items():
        monkeypatch.setenv(f"EMBEDQUEUE_{name}", value)
    said = [repr(read_environment()), *check_redis(read_environment()), *check_call(read_environment())]
    provider.rule = poison("bad", 400, {"error": {"message": f"bad: {KEY}"}})
    client.zadd("embed_queue:pending", {'{"redis_key":"doc:1","text":"bad"}': 1, '{"redis_key":"doc:2","text":"x"}': 2})

    def run(*arguments: str) -> None:
        result = CliRunner().invoke(cli, arguments)
        said.extend([result.output, *said_by(result.exception)])

    for arguments in (
        ["worker", "--burst"], ["stats"], ["stats", "--json"], ["explain", "doc:1"], ["dead"], ["dead", "list"],
        ["--help"], ["ping"], ["check"], ["doctor"],
    ):  # fmt: skip
        run(*arguments)
    assert "doc:1" in " ".join(said)
    provider.settings.keys = ["another"]
    said += check_call(read_environment())
    monkeypatch.setenv("EMBEDQUEUE_REDIS_URL", f"redis://nobody:{PASSWORD}@127.0.0.1:{server.port}/0")
    said += check_redis(read_environment())
    for arguments in (["worker", "--burst"], ["stats"], ["dead"]):
        run(*arguments)
    search(said + ear.heard + [*all_in_redis(client)])
