"""Keys: where they come from, and where they never go."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from embedqueue.embedders import GeminiEmbedder, OpenAIEmbedder, OpenRouterEmbedder
from embedqueue.values.errors import ConfigurationError, EmbedQueueError
from tests.provider import Provider, drop, fail, hang, raw

KEY = "sk-0123456789-hunter2"
VARIABLES = ("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENROUTER_API_KEY", "OPENAI_API_KEY")


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(keys=[KEY]) as provider:
        yield provider


def everything_said(error: BaseException | None) -> str:
    """All that a log, a traceback or a curious handler could show of an error and of what it hangs on."""
    said = []
    while error is not None:
        said += [str(error), repr(error), repr(error.args), repr(vars(error)), *traceback.format_exception(error)]
        error = error.__cause__ or error.__context__
    return "\n".join(said)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (GeminiEmbedder, "GEMINI_API_KEY or GOOGLE_API_KEY"),
        (OpenRouterEmbedder, "OPENROUTER_API_KEY"),
        (OpenAIEmbedder, "OPENAI_API_KEY"),
    ],
)
@pytest.mark.parametrize("given", [None, "", " \n"])
def test_without_a_key_the_first_call_names_the_variable(
    make: Callable[..., Any], names: str, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, " ")
    with pytest.raises(ConfigurationError, match=names):
        make(given).embed_batch(["x"], "m")


@pytest.mark.parametrize(
    ("make", "variable", "path", "header"),
    [
        (GeminiEmbedder, "GEMINI_API_KEY", "/v1beta", "x-goog-api-key"),
        (GeminiEmbedder, "GOOGLE_API_KEY", "/v1beta", "x-goog-api-key"),
        (OpenRouterEmbedder, "OPENROUTER_API_KEY", "/api/v1", "authorization"),
        (OpenAIEmbedder, "OPENAI_API_KEY", "/v1", "authorization"),
    ],
)
def test_the_environment_is_read_at_the_first_call(
    make: Callable[..., Any], variable: str, path: str, header: str, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = make(base_url=provider.url + path)
    monkeypatch.setenv(variable, f"  {KEY}\n")
    embedder.embed_batch(["x"], "vendor/model" if path != "/v1beta" else "gemini-embedding-001")
    assert provider.calls[0].headers[header].removeprefix("Bearer ") == KEY
    assert KEY not in provider.calls[0].path


def test_the_argument_wins_and_gemini_comes_before_google(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "wrong")
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    GeminiEmbedder(base_url=provider.gemini_url).embed_batch(["x"], "gemini-embedding-001")
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    OpenAIEmbedder(KEY, provider.openai_url).embed_batch(["x"], "m")


def test_a_key_that_came_after_a_failed_call_is_found(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = GeminiEmbedder(base_url=provider.gemini_url)
    with pytest.raises(ConfigurationError):
        embedder.embed_batch(["x"], "gemini-embedding-001")
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    assert embedder.embed_batch(["x"], "gemini-embedding-001").shape == (1, 3072)


@pytest.mark.parametrize("slip", ["two words", "line\nbreak", "ümlaut", "nul\0", "curly\u201d"])
@pytest.mark.parametrize("make", [GeminiEmbedder, OpenAIEmbedder, OpenRouterEmbedder])
def test_a_key_that_no_header_can_carry(make: Callable[..., Any], slip: str) -> None:
    with pytest.raises(ConfigurationError, match="header") as caught:
        make(f"{KEY}{slip}").embed_batch(["x"], "m")
    said = everything_said(caught.value)
    assert KEY not in said
    assert slip not in said


@pytest.mark.parametrize(
    "answer",
    [
        fail(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
        fail(400, f"<html><title>{KEY}</title>"),
        fail(500, {"detail": [{"loc": ["header"], "msg": KEY}]}),
        raw({"error": {"code": 403, "message": KEY}}),
        raw(f'{{"{KEY}'),
        fail(302, b"", location=f"http://127.0.0.1:1/?key={KEY}"),
        drop(),
        hang(),
    ],
)
@pytest.mark.parametrize("make", [GeminiEmbedder, OpenAIEmbedder, OpenRouterEmbedder])
def test_the_key_is_in_nothing_that_is_raised_or_logged(
    make: Callable[..., Any], answer: Any, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    path = "/v1beta" if make is GeminiEmbedder else "/v1"
    embedder = make(KEY, provider.url + path, timeout=(2, 0.2), headers={"X-Other": f"{KEY}-other"})
    provider.script(answer)
    with caplog.at_level(logging.DEBUG), pytest.raises(EmbedQueueError) as caught:
        embedder.embed_batch(["a text"], "vendor/model")
    assert KEY not in everything_said(caught.value)
    assert caught.value.__context__ is None
    assert KEY not in caplog.text
    assert KEY not in repr(embedder)


@pytest.mark.parametrize("header", ["bad\nvalue", " led by a space", "\u201ccurly\u201d"])
def test_a_header_of_the_user_that_cannot_be_sent_is_not_shown(header: str, provider: Provider) -> None:
    embedder = OpenAIEmbedder(KEY, provider.url, headers={"X-Secret": header})
    with pytest.raises(ConfigurationError) as caught:
        embedder.embed_batch(["x"], "m")
    assert header not in everything_said(caught.value)
    assert KEY not in everything_said(caught.value)


def test_secrets_of_the_address_are_not_shown() -> None:
    with Provider() as gone:
        url = gone.url.replace("//", "//user:hunter2@") + "/v1?token=hunter2"
    embedder = OpenAIEmbedder(base_url=url, timeout=2)
    assert "hunter2" not in repr(embedder)
    with pytest.raises(EmbedQueueError) as caught:
        embedder.embed_batch(["x"], "m")
    assert "hunter2" not in everything_said(caught.value)


def test_credentials_of_the_address_serve_where_there_is_no_key(provider: Provider) -> None:
    provider.settings.require_key = False
    url = provider.url.replace("//", "//user:hunter2@")
    OpenAIEmbedder(base_url=url).embed_batch(["x"], "m")
    OpenAIEmbedder(KEY, url).embed_batch(["x"], "m")
    assert provider.calls[0].headers["authorization"].startswith("Basic ")
    assert provider.calls[1].headers["authorization"] == f"Bearer {KEY}"


def test_an_empty_key_sends_none_whatever_the_environment(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    provider.settings.require_key = False
    OpenAIEmbedder("", provider.url).embed_batch(["x"], "m")
    assert "authorization" not in provider.calls[0].headers


class SecretStr:
    """As pydantic's."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def get_secret_value(self) -> Any:
        return self._value

    def __repr__(self) -> str:
        return "SecretStr('**********')"

    __str__ = __repr__


def test_a_secret_may_be_kept_in_an_object(provider: Provider) -> None:
    """A key, and a header, as pydantic hands them over."""
    embedder = OpenAIEmbedder(SecretStr(KEY), provider.openai_url, headers={"x-gateway": SecretStr("gate-key")})
    embedder.embed_batch(["x"], "m")
    assert provider.calls[0].headers["authorization"] == f"Bearer {KEY}"
    assert provider.calls[0].headers["x-gateway"] == "gate-key"


@pytest.mark.parametrize("make", [GeminiEmbedder, OpenRouterEmbedder, OpenAIEmbedder])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_key": KEY.encode()}, "^api_key must be a string, or hold one as pydantic's SecretStr does, not bytes$"),
        ({"api_key": lambda: KEY}, "^api_key .* not function$"),
        ({"api_key": SecretStr(KEY.encode())}, "^api_key .* not SecretStr of bytes$"),
        ({"api_key": SecretStr}, "^api_key .* not type$"),
        ({"headers": {"x-key": KEY.encode()}}, r"^headers\['x-key'\] must be a string"),
        ({"base_url": ["https://h", KEY]}, "^base_url must be a string, not list$"),
    ],
    ids=["bytes", "function", "secret bytes", "class", "header", "address"],
)
def test_another_type_is_refused_at_once_and_not_shown(
    make: Callable[..., Any], options: dict[str, Any], words: str
) -> None:
    """At the first call it would seem to be a fault that passes."""
    with pytest.raises(TypeError, match=words) as caught:
        make(**options)
    assert KEY not in everything_said(caught.value)
