"""Every form in which a provider asks for patience."""

from __future__ import annotations

import subprocess
import sys

import pytest
from requests.structures import CaseInsensitiveDict

from embedqueue.embedders.waits import asked_wait, duration_seconds
from embedqueue.values.errors import LONGEST_WAIT_SECONDS

NOW_UNIX = 1_700_000_000.0
NOW_DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
IN_30_S = "Tue, 14 Nov 2023 22:13:50 GMT"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("37s", 37),
        ("0.8s", 0.8),
        ("17ms", 0.017),
        ("6m0s", 360),
        ("1m2s", 62),
        ("1h2m3.5s", 3723.5),
        ("20 seconds", 20),
        ("2 minutes", 120),
        ("1 day", 86400),
        ("3 milliseconds", 0.003),
        ("soon", None),
        ("", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert duration_seconds(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "message", "delay", "seconds"),
    [
        ({"Retry-After-Ms": "1500", "Retry-After": "9"}, "", None, 1.5),
        ({"Retry-After": "7"}, "", None, 7),
        ({"Retry-After": "0.25"}, "", None, 0.25),
        ({"Retry-After": IN_30_S}, "", None, 30),
        ({"Retry-After": "-3"}, "", None, 0),
        ({"Retry-After": "nan"}, "try again in 2s", None, 2),
        ({"Retry-After": "inf"}, "", None, None),
        ({"Retry-After": "1m30s"}, "", None, 90),
        ({"Retry-After": "1e8"}, "", None, LONGEST_WAIT_SECONDS),
        ({"Retry-After": str(int(NOW_UNIX + 2))}, "", None, 2),
        ({"Retry-After": str(int(NOW_UNIX * 1000 + 2000))}, "", None, 2),
        ({"Retry-After": str(int(NOW_UNIX - 60))}, "", None, 0),
        ({"X-RateLimit-Reset": "3600", "X-RateLimit-Remaining": "99"}, "", None, None),
        ({"X-RateLimit-Reset": "3600", "X-RateLimit-Remaining": "0"}, "", None, 3600),
        ({"X-RateLimit-Reset": "3600", "X-RateLimit-Remaining": "99", "Retry-After": "3"}, "", None, 3),
        ({}, "", "37.41s", 37.41),
        ({"X-RateLimit-Reset": str(int(NOW_UNIX + 12))}, "", None, 12),
        ({"X-RateLimit-Reset": str(int(NOW_UNIX * 1000 + 2500))}, "", None, 2.5),
        ({"X-RateLimit-Reset": "15"}, "", None, 15),
        ({"X-RateLimit-Reset": "6m0s"}, "", None, 360),
        ({}, "Rate limit reached. Please try again in 6ms. Visit the site", None, 0.006),
        ({}, "Please try again in 1m2s.", None, 62),
        ({}, "Please retry in 37.41s.", None, 37.41),
        ({}, "Please retry after 30 seconds", None, 30),
        ({}, "please wait a moment", None, None),
        ({}, "Quota exceeded", None, None),
    ],
)
def test_hints(headers: dict[str, str], message: str, delay: str | None, seconds: float | None) -> None:
    """The most exact hint wins; what cannot be read is passed over."""
    asked = asked_wait(CaseInsensitiveDict(headers), message, delay, NOW_UNIX)
    assert asked == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


def test_dates_are_compared_with_the_servers_own_clock() -> None:
    """A host whose clock is an hour off still waits 30 seconds."""
    headers = CaseInsensitiveDict({"Retry-After": IN_30_S, "Date": NOW_DATE})
    assert asked_wait(headers, "", None, NOW_UNIX + 3600) == pytest.approx(30)


@pytest.mark.parametrize("text", ["1.5.5s", "15.s 2s", "1 2s", "1ms2"])
def test_numbers_that_run_into_each_other(text: str) -> None:
    """Of a run of digits all count, or none."""
    expected = {"1.5.5s": 5.5, "15.s 2s": 2, "1 2s": 2, "1ms2": 0.001}
    assert duration_seconds(text) == pytest.approx(expected[text])


READING = """
import json
import resource
from embedqueue.embedders.answers import classify
from embedqueue.embedders.faults import read_fault
from embedqueue.embedders.waits import asked_wait

SIZE = 1 << 18
resource.setrlimit(resource.RLIMIT_CPU, (10, 10))  # of computing: it takes one, and a busy machine makes nothing of it
for part in ("1", "1.", "1 ", "1s ", "1s1", "9,", "wait 1", "try again in 1", "retry "):
    words = part * (SIZE // len(part))
    headers = dict.fromkeys(("date", "retry-after-ms", "retry-after", "x-ratelimit-reset"), words)
    asked_wait(headers, words, words, 0.0)

texts = [f"t {number}" for number in range(2048)]
parts = ("1", "entity ", "batch size ", "input[1", "model ", "at most 1 ", "array too long ", "context length ",
         "<title", "<title>", ".list[1", "limit 1", str(texts))
for part in parts:
    words = part * (SIZE // len(part))
    bodies = [words.encode()] + [
        json.dumps(document).encode()
        for document in (
            {"error": {"message": words, "param": words, "code": words}},
            {"detail": [{"msg": words, "loc": ["body", words, 1]}]},
            {"error": {"details": [{"retryDelay": words, "violations": [{"quotaId": words}]}]}},
        )
    ]
    for body in bodies:
        fault = read_fault(400, body)
        fault.hide("a key", texts)
        classify(fault, origin="host", count=2048, options=frozenset(["dimensions"]),
                 wait_seconds=asked_wait({}, fault.message, fault.retry_delay, 0.0))
"""


def test_words_without_end_are_read_in_time() -> None:
    """What is not linear in them takes minutes to years, and keeps all threads waiting: so in a process of its own."""
    subprocess.run([sys.executable, "-c", READING], check=True, timeout=180)
