"""What anybody may have written into Redis: read within bounds, or taken for nothing."""

from __future__ import annotations

import json

import pytest

from embedqueue.futures import notices
from embedqueue.futures.notices import named_keys, named_reason
from embedqueue.store.store import REASON_CHARS

DEEP = "[" * 900 + "]" * 900
DEEPER = "[" * 100_000


@pytest.mark.parametrize(
    "body", ["", "1", '"doc:1"', "1" * 5000, DEEP, DEEPER, '{"keys": "doc:1"}', '{"keys": [1, null, "\\ud800"]}']
)
def test_bodies_that_name_nothing(body: str) -> None:
    assert named_keys(body) == []
    assert named_reason(body) == ""


def test_a_body_beyond_all_bounds_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep finds the futures."""
    body = '["doc:1"]'
    monkeypatch.setattr(notices, "LONGEST_BODY", len(body))
    assert named_keys(body) == ["doc:1"]
    assert named_keys(body + " ") == []


def test_a_reason_is_words_and_not_too_many() -> None:
    assert named_reason(f'{{"reason": {DEEP}}}') == ""
    assert len(named_reason(json.dumps({"reason": "x" * 1_000_000}))) == REASON_CHARS
