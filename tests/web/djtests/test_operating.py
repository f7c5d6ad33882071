"""``manage.py embedqueue`` for whoever is on call: pause and resume, reasons, dead letters."""

from __future__ import annotations

import json

import pytest
from django.core.management import CommandError
from django.test import override_settings

from embedqueue import Budget
from embedqueue.contrib.django import queue, queues
from tests.provider import poison


def test_from_a_pause_to_a_dead_letter(run, real_settings, redis_client, provider):
    """The item waits while the queue is paused, and says why; then it is refused, shown, put back and dropped."""
    from django.conf import settings

    with override_settings(EMBEDQUEUE={**settings.EMBEDQUEUE, "WORKER": False}):
        queue.enqueue("note:1", "bad words")
        run("pause", "--for", "600", "--reason", "the provider moves")
        assert "the provider moves" in run("explain", "note:1")
        assert "The pause is over" in run("resume")
        assert "no pause" in run("resume")
        provider.rule = poison("bad", 400, {"error": {"message": "cannot embed this"}})
        run("worker", "--burst", "--concurrency", "2")
        assert "dead" in run("explain", "note:1")
        assert "bad words" in run("dead", "show", "note:1")
        assert "0 put back" in run("dead", "retry", "--reason", "something else")
        assert "1 put back" in run("dead", "retry", "--reason", "cannot embed")
        for command in ("show", "retry", "discard"):
            with pytest.raises(CommandError, match="note:1 is no dead letter"):
                run("dead", command, "note:1")
        with pytest.raises(CommandError, match="give keys"):
            run("dead", "discard", "--all", "--reason", "x")
        with pytest.raises(CommandError, match="health"):
            run("worker", "--burst", "--health", "here")


def test_nobody_says_yes(run, real_settings, redis_client, provider):
    """Dead letters are dropped only with --yes where there is no terminal, or where each was named."""
    from django.conf import settings

    provider.rule = poison("bad", 400)
    with override_settings(EMBEDQUEUE={**settings.EMBEDQUEUE, "WORKER": False}):
        queue.enqueue_many([("note:1", "bad"), ("note:2", "bad too")])
        run("worker", "--burst")
        with pytest.raises(CommandError, match="Drop 2 dead letters .* nothing was changed: --yes"):
            run("dead", "discard", "--all")
        assert redis_client.zcard("embed_queue:dead") == 2
        assert run("dead", "discard", "note:1") == "1 discarded\n"
        assert run("dead", "discard", "--all", "--yes") == "1 discarded\n"


def test_a_worker_of_the_projects_queues(run, real_settings, redis_client, redis_server):
    """All of them, or those that are named; each with its own settings, which a sentence names."""
    from django.conf import settings

    own = {**settings.EMBEDQUEUE, "WORKER": False, "QUEUES": {"titles": {}, "images": {}}}

    def work(*arguments):
        for name in ("default", "titles", "images"):
            queues[name].enqueue(f"{name}:1", "hello")
        run("worker", "--burst", *arguments)
        done = [name for name in ("default", "titles", "images") if redis_client.hexists(f"{name}:1", "embedding")]
        redis_client.delete(*(f"{name}:1" for name in done))
        return done

    with override_settings(EMBEDQUEUE=own):
        assert work("titles", "images") == ["titles", "images"]
        assert work("--queue", "titles") == ["titles"]
        assert work() == ["default", "titles", "images"]
        with pytest.raises(CommandError, match="there is no queue 'nothing'"):
            run("worker", "titles", "nothing")
    own["QUEUES"] = {"titles": {}, "images": {"REDIS_URL": f"{redis_server.url}-none"}}
    with (
        override_settings(EMBEDQUEUE=own),
        pytest.raises(CommandError, match=r'start it, or set EMBEDQUEUE\["QUEUES"\]\["images"\]\["REDIS_URL"\]'),
    ):
        run("worker", "--burst")


def test_what_it_costs_and_what_may_be_spent(run, real_settings, redis_client, provider):
    """As ``embedqueue cost`` and ``embedqueue budget`` tell it."""
    from django.conf import settings

    with pytest.raises(CommandError, match=r'no budget to raise: set EMBEDQUEUE\["BUDGET"\]'):
        run("budget", "raise", "5")
    own = {**settings.EMBEDQUEUE, "WORKER": False, "BUDGET": Budget(5), "PRICES": {"text-embedding-3-large": 1000}}
    with override_settings(EMBEDQUEUE=own):
        queue.enqueue("note:1", "some words")
        run("worker", "--burst")
        (row,) = json.loads(run("cost", "--by", "model", "--json"))["rows"]
        assert (row["texts"], row["tokens_measured"], row["usd"]) == (1, 1, pytest.approx(0.001))
        assert "$0.0020" in run("cost", "--price", "text-embedding-3-large=2000")
        assert "$0.0010 of $5.00" in run("budget", "show")
        assert "more may be spent" in run("budget", "raise", "5")
        assert json.loads(run("budget", "show", "--json"))["day_left"] == pytest.approx(9.999)
        with pytest.raises(CommandError, match="give dollars from"):
            run("budget", "raise", "0")
