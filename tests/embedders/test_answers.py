"""docs/providers.md, "Classification", row by row: which refusal becomes which error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from embedqueue.embedders.answers import OptionRefused, classify
from embedqueue.embedders.faults import read_fault
from embedqueue.values.errors import CallTooLarge, ConfigurationError, EmbedQueueError, InputRejected, TransientError
from embedqueue.values.words import READ_CHARS, SHOWN_CHARS


def error_for(status: int, body: Any, **facts: Any) -> EmbedQueueError:
    fault = read_fault(status, body if isinstance(body, bytes) else json.dumps(body).encode())
    texts = facts.pop("texts", ["some text"] * 50)
    fault.hide(facts.pop("secrets", ()), texts)
    return classify(fault, origin="host", count=len(texts), **facts)


def google(code: int, status: str, message: str, *details: Any) -> dict[str, Any]:
    return {"error": {"code": code, "status": status, "message": message, "details": list(details)}}


def openai(
    message: str, code: str | None = None, kind: str = "invalid_request_error", param: Any = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


PER_DAY = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "EmbedContentRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "1000"}],
}
PER_MINUTE = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "EmbedContentRequestsPerMinutePerProjectPerModel-FreeTier"}],
}
RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45s"}
BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 524, 527, 529, 424])
def test_a_server_that_fails_may_have_met_a_bad_text(status: int) -> None:
    error = error_for(status, {"error": {"message": "boom"}}, wait_seconds=3.0)
    assert type(error) is TransientError
    assert (error.status, error.suspect_input, error.retry_after) == (status, True, 3.0)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 499])
def test_a_bad_moment_is_no_texts_fault(status: int) -> None:
    error = error_for(status, {"error": {"message": "slow down"}}, wait_seconds=1.0)
    assert type(error) is TransientError
    assert (error.status, error.suspect_input, error.retry_after) == (status, False, 1.0)


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 498, 410, 451])
def test_account_statuses(status: int) -> None:
    assert type(error_for(status, {"error": {"message": "no"}}, wait_seconds=5.0)) is ConfigurationError


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota")),
        (400, google(400, "INVALID_ARGUMENT", "API key not valid.", BAD_KEY)),
        (400, [google(400, "INVALID_ARGUMENT", "API key expired.", BAD_KEY)]),
        (400, google(400, "FAILED_PRECONDITION", "User location is not supported")),
        (429, google(429, "RESOURCE_EXHAUSTED", "quota", PER_DAY, RETRY_INFO)),
        (400, openai("The model `x` does not exist", "model_not_found")),
        (400, openai("foo is not a valid model ID")),
        (400, openai("Invalid model: mistral-embad", "1500")),
    ],
)
def test_account_faults_in_disguise(status: int, body: Any) -> None:
    assert type(error_for(status, body, wait_seconds=45.0)) is ConfigurationError


@pytest.mark.parametrize(
    ("status", "body", "setting"),
    [
        (401, openai("no"), "the API key"),
        (404, openai("no"), "the model and the base URL"),
        (400, openai("foo is not a valid model ID"), "the model and the base URL"),
        (400, google(400, "INVALID_ARGUMENT", "API key not valid.", BAD_KEY), "the API key"),
        (429, openai("no", "insufficient_quota"), "the account's credit"),
    ],
)
def test_what_to_look_at_is_told(status: int, body: Any, setting: str) -> None:
    assert str(error_for(status, body)).endswith(f" (look at {setting})")


def test_the_minutes_quota_is_waited_for() -> None:
    body = google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", PER_MINUTE, RETRY_INFO)
    assert type(error_for(429, body, wait_seconds=45.0)) is TransientError
    assert read_fault(429, json.dumps(body).encode()).retry_delay == "45s"


@pytest.mark.parametrize(
    ("status", "body", "measure", "limit"),
    [
        (400, google(400, "INVALID_ARGUMENT", "* requests: at most 100 requests can be in one batch"), "texts", 100),
        (
            400,
            google(400, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 4194304 bytes"),
            "bytes",
            4194304,
        ),
        (
            400,
            openai("Requested 453357 tokens, max 300000 tokens per request", "max_tokens_per_request"),
            "tokens",
            300000,
        ),
        (400, openai("over the limit", "max_tokens_per_request"), "tokens", None),
        (400, openai("array too long. Expected an array with maximum length 2048, but got 3000"), "texts", 2048),
        (
            422,
            {"message": "batch size 64 > maximum allowed batch size 32", "code": 422, "type": "Validation"},
            "texts",
            32,
        ),
        (422, {"error": "batch size 64 > maximum allowed batch size 32", "error_type": "Validation"}, "texts", 32),
        (400, {"detail": "at most 512 items are allowed"}, "texts", 512),
        (
            422,
            {"detail": [{"loc": ["body", "input"], "msg": "List should have at most 2048 items", "type": "too_long"}]},
            "texts",
            2048,
        ),
        (400, {"message": "total number of texts must be at most 96 - received 97"}, "texts", 96),
        (400, {"message": "batch size is invalid, it should not be larger than 10."}, "texts", 10),
        (400, {"detail": "The max allowed tokens per submitted batch is 120,000. Yours has 150000"}, "tokens", 120000),
        (400, {"object": "error", "message": "Too many inputs in request", "code": "3210"}, "texts", None),
        (400, {"object": "error", "message": "Too many tokens overall, split", "code": "3210"}, "tokens", None),
        (400, {"object": "error", "message": "no", "code": "3210"}, "texts", None),
        (413, b"Failed to buffer the request body: length limit exceeded", "bytes", None),
        (413, b"", "bytes", None),
        (413, openai("Max size: 64000 tokens.", "tokens_limits_reached"), "tokens", 64000),
        (429, openai("Request too large for m on TPM: Limit 40000, Requested 57000", "rate"), "tokens", 40000),
        (
            400,
            {
                "error": {
                    "code": 400,
                    "message": "Provider returned error",
                    "metadata": {"raw": json.dumps({"error": {"message": "at most 100 requests can be in one batch"}})},
                }
            },
            "texts",
            100,
        ),
    ],
)
def test_a_call_too_large(status: int, body: Any, measure: str, limit: int | None) -> None:
    error = error_for(status, body)
    assert type(error) is CallTooLarge
    assert (error.measure, error.limit, error.status) == (measure, limit, status)


@pytest.mark.parametrize(
    ("status", "body", "index"),
    [
        (400, openai("Invalid 'input[3]': maximum input length is 8192 tokens."), 3),
        (400, openai("Invalid value", param="input[7]"), 7),
        (400, openai("This model's maximum context length is 8192 tokens, however you requested 9000"), None),
        (400, openai("'$.input' is invalid. Please check the API reference"), None),
        (400, google(400, "INVALID_ARGUMENT", "requests[4].content is empty"), 4),
        (422, {"error": "inputs[2] must have less than 512 tokens", "error_type": "Validation"}, 2),
        (422, {"error": "inputs must have less than 512 tokens. Given: 600", "error_type": "Validation"}, None),
        (422, {"detail": [{"loc": ["body", "input", 5], "msg": "String should have at most 9 characters"}]}, 5),
        (422, {"detail": [{"loc": ["body", "input", "list[constrained-str]", 6], "msg": "too long"}]}, 6),
        (400, {"detail": "The example at index 8 in your batch has too many tokens"}, 8),
        (400, openai("input[99] is too long"), None),  # beyond the call: a gateway's own count
        (400, {"error": "embedding contains NaN or Inf values"}, None),
        (400, b"", None),
        (
            403,
            {"error": {"code": 403, "message": "flagged", "metadata": {"flagged_input": "x", "reasons": ["y"]}}},
            None,
        ),
        (403, {"error": {"code": 403, "message": "no", "metadata": {"error_type": "content_policy_violation"}}}, None),
        (403, {"error": {"code": 403, "message": "Input requires moderation"}}, None),
    ],
)
def test_one_text_at_fault(status: int, body: Any, index: int | None) -> None:
    error = error_for(status, body)
    assert type(error) is InputRejected
    assert (error.index, error.status) == (index, status)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "words", "code": None}}, "words"),
        ({"error": "words"}, "words"),
        ({"error": "words", "error_type": "Backend"}, "words"),
        ({"message": "words", "code": 424, "type": "Backend"}, "words"),
        ({"detail": "words"}, "words"),
        ({"detail": [{"loc": ["body", "x"], "msg": "words", "input": "private"}]}, "body.x: words"),
        ([{"error": {"message": "words"}}], "words"),
        ({"object": "error", "message": "words", "code": "1"}, "words"),
        (b"<!DOCTYPE html><html><title>502\n Bad Gateway</title><body>private</body>", "an HTML page: 502 Bad Gateway"),
        (b"words\nin plain text", "words in plain text"),
        (b"", "no words in the answer"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_nine_shapes_of_a_body(body: Any, words: str) -> None:
    assert str(error_for(500, body)) == f"host answered 500: {words}"


def test_a_body_of_any_depth_is_read_without_harm() -> None:
    assert isinstance(error_for(500, b'{"error":' * 5000 + b"1" + b"}" * 5000), TransientError)
    assert isinstance(error_for(500, b"[" * 100_000), TransientError)
    assert isinstance(
        error_for(400, {"error": {"message": 5, "code": [], "metadata": None}, "detail": None}), InputRejected
    )


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"code": 429, "message": "slow down"}}, TransientError),
        ({"error": {"code": "402", "message": "no credit"}}, ConfigurationError),
        ({"error": {"code": 400, "message": "input[1] is bad"}}, InputRejected),
        ({"error": {"code": 502, "message": "upstream"}}, TransientError),
        ({"error": {"message": "who knows"}}, TransientError),
        ({"object": "error", "message": "x", "code": 40303}, TransientError),
    ],
)
def test_an_error_under_status_200_counts_by_its_own_code(body: Any, kind: type[EmbedQueueError]) -> None:
    assert type(error_for(200, body)) is kind


@pytest.mark.parametrize(
    ("status", "should_retry", "kind"),
    [
        (429, "false", ConfigurationError),
        (409, "false", ConfigurationError),
        (500, "false", TransientError),
        (400, "true", TransientError),
        (401, "true", ConfigurationError),
    ],
)
def test_x_should_retry(status: int, should_retry: str, kind: type[EmbedQueueError]) -> None:
    """It wins where somebody must not knock again; a 5xx stays suspect, or one text could stop the queue for ever."""
    assert type(error_for(status, openai("x"), should_retry=should_retry)) is kind


@pytest.mark.parametrize(
    ("message", "param", "option"),
    [
        ("This model does not support specifying dimensions.", None, "dimensions"),
        ("Unsupported parameter", "encoding_format", "encoding_format"),
        ("does not support matryoshka representation", None, "dimensions"),
        ("Unknown name \"outputDimensionality\" at 'requests[0]'", None, "outputDimensionality"),
        ("Invalid value at 'requests[0].task_type'", None, "taskType"),
    ],
)
def test_an_option_that_the_server_does_not_know(message: str, param: str | None, option: str) -> None:
    error = error_for(400, openai(message, param=param), options=frozenset({option}))
    assert isinstance(error, OptionRefused)
    assert error.option == option
    assert not isinstance(error_for(400, openai(message, param=param)), OptionRefused)  # not sent: not to blame


def test_words_are_cut_and_hold_neither_text_nor_key() -> None:
    long_text, short_text, key = "My diary of the year 1999, page one", "Hello", "sk-secret-1"
    body = openai(f"key {key} cannot embed 'Hello' and {long_text}" + "x" * 1000)
    said = str(error_for(400, body, texts=[long_text, short_text], secrets=[key]))
    assert len(said) < SHOWN_CHARS + 30
    assert said == "host answered 400: key [key] cannot embed '[text]' and [text] (invalid_request_error)"
    assert len(str(error_for(400, openai("word " * 1000)))) < SHOWN_CHARS + 30


@pytest.mark.parametrize(
    "codes",
    [
        {"code": "a" * 1_000_000},
        {"details": [{"details": [{"code": f"c{i}.{j}" + "z" * 90} for j in range(20)]} for i in range(20)]},
    ],
)
def test_codes_are_bounded_before_texts_are_looked_for_in_them(codes: dict[str, Any]) -> None:
    """That takes microseconds a character, and a refusal may have a million of them: the process would stand still."""
    text = "My diary of the year 1999"
    body = json.dumps({"error": {"message": f"cannot embed {text}", "type": "bad_input", **codes}}).encode()
    fault = read_fault(400, body)
    fault.hide((), [text])
    assert fault.shown.startswith("cannot embed [text] (")
    assert len(fault.shown) < READ_CHARS + SHOWN_CHARS


def test_an_echoed_text_is_not_taken_for_the_providers_words() -> None:
    text = "at most 1 requests can be in one batch"
    assert type(error_for(400, openai(f"cannot embed: {text}"), texts=[text])) is InputRejected


def test_a_text_that_is_one_of_the_providers_words_hides_no_limit() -> None:
    body = openai("at most 100 requests can be in one batch")
    error = error_for(400, body, texts=["requests"] * 101)
    assert isinstance(error, CallTooLarge)
    assert error.limit == 100


@pytest.mark.parametrize(
    "words", ["Rate limit reached on requests per day (RPD): Limit 200", "free-models-per-day", "daily limit"]
)
def test_a_quota_of_the_day_that_only_words_tell_of(words):
    """Waiting for a moment gains nothing: somebody has to know."""
    assert type(error_for(429, {"error": {"message": words}}, wait_seconds=8.0)) is ConfigurationError
    assert type(error_for(503, {"error": {"message": words}}, wait_seconds=8.0)) is TransientError
