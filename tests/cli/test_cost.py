"""``embedqueue cost``: what all processes have sent, what that costs and what was saved."""

from __future__ import annotations

import json
from concurrent.futures import wait

import pytest

from embedqueue import OpenAIEmbedder
from embedqueue.settings.settings import read_environment
from tests.parts import PATIENCE_SECONDS


@pytest.fixture
def spent(make_queue, provider):
    """Two texts of 1,000 tokens each were sent as one model's, one as another's; one was saved."""
    provider.settings.tokens_per_text = 1000
    embedder = OpenAIEmbedder("test-key", provider.openai_url, 16)
    with make_queue(embedder=embedder, model="text-embedding-3-small", provenance_field="of") as queue:
        queue.enqueue_many([("doc:1", "one"), ("doc:2", "two"), ("doc:3", "one")])
        queue.flush(PATIENCE_SECONDS)
        assert (queue.stats().used_tokens, queue.stats().estimated_tokens, queue.stats().saved_texts) == (2000, 0, 1)
    provider.settings.tokens_per_text = None
    with make_queue(embedder=embedder, model="own/model", namespace="embed_queue") as queue:
        inside_settings = queue  # another model on purpose: somebody has decided
        inside_settings._redis.delete("embed_queue:settings")
        queue.enqueue("doc:4", "x" * 399).result(PATIENCE_SECONDS)


def test_by_day_and_by_model(run, spent):
    """Tokens, dollars, savings; a model without a price is named, and its dollars are in no sum."""
    told = run("cost")
    assert "2,000" in told and "over $0.000040" in told
    assert "1 by equal texts" in told
    assert "Nobody has said what own/model costs" in told
    found = json.loads(run("cost", "--by", "model", "--json"))
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["text-embedding-3-small"]["tokens_measured"] == 2000
    assert rows["text-embedding-3-small"]["usd"] == pytest.approx(0.00004)
    assert (rows["own/model"]["tokens_estimated"], rows["own/model"]["usd"]) == (100, None)
    assert found["total"]["unpriced_models"] == ["own/model"]


def test_prices_of_ones_own(run, spent, monkeypatch):
    """From the setting, and before it from the option."""
    monkeypatch.setenv("EMBEDQUEUE_PRICES", "own/model=10000")
    assert json.loads(run("cost", "--json"))["total"]["usd"] == pytest.approx(1.00004)
    assert json.loads(run("cost", "--json", "--price", "own/model=0"))["total"]["usd"] == pytest.approx(0.00004)
    assert "MODEL=DOLLARS" in run("cost", "--price", "own", code=2)


def test_nothing_was_sent(run, redis_client):
    """Then it says so."""
    assert "Nothing was sent" in run("cost", "--days", "1")


def test_the_budget_is_shown_and_raised(run, env, make_queue, provider, monkeypatch):
    """What is spent, what is left, that it is parked; a raise lets it go on today."""
    assert "have no budget" in run("budget", "show")
    assert "no budget" in run("budget", "raise", "5", code=1)
    monkeypatch.setenv("EMBEDQUEUE_BUDGET", "usd_per_day=0.000010, usd_per_month=5, usd_per_million_tokens=1")
    settings = read_environment()
    assert "this day" in run("budget", "show")
    with settings.queue() as queue:
        provider.settings.tokens_per_text = 6
        futures = queue.enqueue_many([(f"doc:{i}", f"{i}" * 20) for i in range(3)])
        assert not wait(futures, PATIENCE_SECONDS).not_done
        shown, found = run("budget", "show"), json.loads(run("budget", "show", "--json"))
        assert "parked      budget: " in shown and "of $5.00" in shown
        assert found["day_spent"] == found["month_spent"] <= 0.00001
        assert found["parked"].startswith("budget: ")
        assert "budget raise" in run("check", "--no-call")
        assert "more may be spent today" in run("budget", "raise", "1")
        queue.flush(PATIENCE_SECONDS)
    assert json.loads(run("budget", "show", "--json"))["day_left"] > 0.9
    assert "are left" in run("check", "--no-call", "--verbose")
    for wrong in ("0", "nan", "1e12"):
        run("budget", "raise", wrong, code=1)


def test_a_burst_does_not_wait_for_midnight(run, redis_client, provider, monkeypatch):
    """It ends with 1, and says that the budget is spent and how much waits."""
    monkeypatch.setenv("EMBEDQUEUE_BUDGET", "usd_per_day=0.000001, usd_per_million_tokens=1")
    with read_environment().queue(worker=False) as queue:
        queue.enqueue("doc:1", "some words")
    redis_client.set("embed_queue:pause", "budget: spent", px=3_600_000)  # whatever the time of the day is
    assert "budget: spent; 1 items are still queued" in run("worker", "--burst", code=1)
