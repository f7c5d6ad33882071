"""Commands that spend ask before it is more than a dollar."""

from __future__ import annotations

import io
import os
import sys

import pytest

from embedqueue import EmbedQueueError
from embedqueue.operating.spending import Spending
from embedqueue.testing import eager_queue

FILL = ("--match", "doc:*", "--text-field", "body")
#: Four tokens each, by estimate.
COUNT = 30


@pytest.fixture
def hashes(redis_client):
    for i in range(COUNT):
        redis_client.hset(f"doc:{i}", "body", f"the text {i:04}")


@pytest.fixture
def dear(monkeypatch):
    """A token costs a cent, so all of them cost 1.20 dollars."""
    monkeypatch.setenv("EMBEDQUEUE_PRICES", "text-embedding-3-large=10000")
    monkeypatch.setattr("embedqueue.backlog.filler.LOOK_ITEMS", 10)


@pytest.mark.parametrize("command", [("backfill", *FILL), ("verify", *FILL, "--fix")])
def test_nobody_can_be_asked(run, redis_client, hashes, dear, command):
    """Then it ends with 1 before more than a dollar is spent, says what is known so far, and what is in stays in."""
    said = run(*command, code=1)
    assert "30 texts of about 120 tokens, about $1.20 so far, and there may be more" in said
    assert "nothing more was enqueued; 20 texts are in, for about $0.80: --yes says yes" in said
    assert redis_client.zcard("embed_queue:pending") == 20


def test_yes_beforehand(run, redis_client, hashes, dear):
    """No question, and a line about what it costs."""
    said = run("backfill", *FILL, "--yes")
    assert "30 enqueued" in said
    assert "That is about 120 tokens: about $1.20" in said
    assert redis_client.zcard("embed_queue:pending") == COUNT


def test_cheap_or_without_a_price_nobody_is_asked(run, redis_client, hashes, monkeypatch):
    """What is not known is said."""
    assert "about $0.000016" in run("backfill", *FILL)
    redis_client.flushall()
    for i in range(3):
        redis_client.hset(f"doc:{i}", "body", "some text")
    monkeypatch.setenv("EMBEDQUEUE_MODEL", "own/model")
    assert "nobody has said what own/model costs" in run("backfill", *FILL)


def test_a_look_spends_nothing(run, hashes, dear):
    """Without --fix, nobody is asked."""
    assert "missing          30" in run("verify", *FILL, code=1)


def test_asked_again_at_each_tenfold(monkeypatch, capsys):
    """Who has agreed to two dollars has not agreed to two hundred."""
    queue = eager_queue(prices={"gemini-embedding-001": 1e6})  # a dollar a token
    master, slave = os.openpty()
    with open(master, "wb", buffering=0) as keyboard, open(slave) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        spending = Spending(yes=False)
        spend = spending.before(queue)
        keyboard.write(b"y\n")
        spend([("k", "1234567")])  # 2
        spend([("k", "1234567")] * 4)  # 10
        assert capsys.readouterr().err.count("[y/N]") == 1
        keyboard.write(b"n\n")
        with pytest.raises(EmbedQueueError, match="5 texts are in, for about \\$10.00"):
            spend([("k", "12")])
        assert "6 texts of about 11 tokens, about $11.00 so far" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    Spending(yes=True).before(queue)([("k", "1234567" * 1000)])
