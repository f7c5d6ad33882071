"""What a check says of the queue itself: who works, pauses, limits, and settings with which nothing is claimed."""

from __future__ import annotations

import pytest

from embedqueue.operating.examine import examine, summary
from embedqueue.operating.standing import examine_queue
from embedqueue.settings.settings import read
from embedqueue.store.keys import Keys
from tests.inside import inside
from tests.parts import eventually


@pytest.fixture
def settings(redis_server, redis_client):
    """Makes settings of a queue in the session's Redis."""

    def make(**more):
        return read(
            {"REDIS_URL": redis_server.url, "PROVIDER": "openai", "BASE_URL": "http://h", "DIMENSIONS": 8, **more}
        )

    return make


def found(settings) -> dict[str, tuple[str, str]]:
    return {finding.about: (finding.level, finding.words) for finding in examine_queue(settings)}


def test_who_works(settings, make_queue):
    """Nobody is a warning, and a problem where somebody waits; else they are counted by host."""
    assert found(settings()) == {
        "workers": (
            "warning",
            "no worker is running: start one (embedqueue worker, or an application whose queue works)",
        )
    }
    queue = make_queue(start=False)
    queue.enqueue("doc:1", "one")
    level, words = found(settings())["workers"]
    assert level == "problem" and words.startswith("1 items wait, and no worker is running: start one")
    queue.start()
    eventually(lambda: queue.stats().workers == 1, "it is announced")
    [worker] = queue.workers()
    assert found(settings())["workers"] == ("ok", f"1 on {worker.host}")


def test_who_works_is_not_known_to_everybody(settings, redis_client, redis_server):
    """Under an ACL of before, a check says what to grant."""
    redis_client.acl_setuser("before", enabled=True, nopass=True, keys=[*Keys("embed_queue").all], commands=["+@all"])
    try:
        level, words = found(settings(REDIS_URL=redis_server.url.replace("//", "//before:any@")))["workers"]
    finally:
        redis_client.acl_deluser("before")
    assert level == "warning" and "let this user of Redis use embed_queue:workers" in words


def test_a_pause(settings, make_queue, redis_client):
    """With its reason and its end; a probe is one as well."""
    store = inside(make_queue(start=False)).store
    store.hold(60, "the provider moves")
    assert "nothing is claimed for another" in found(settings())["pause"][1]
    store.hold(None, "by hand")
    level, words = found(settings())["pause"]
    assert level == "warning" and words.startswith("nothing is claimed until somebody resumes: by hand")
    store.unhold()
    redis_client.set("embed_queue:pause:probe", "w:1/50.0:", px=50_000)
    assert "one call tests the provider" in found(settings())["pause"][1]


@pytest.mark.parametrize(("most", "level"), [(100, None), (11, "warning"), (10, "problem"), (5, "problem")])
def test_a_limit(settings, make_queue, most, level):
    """From nine tenths on a warning; reached, nothing can be enqueued."""
    make_queue(start=False).enqueue_many([(f"doc:{i}", "x") for i in range(10)])
    limit = found(settings(MAX_PENDING=most)).get("limit")
    assert (limit and limit[0]) == level
    assert limit is None or f"10 of {most} items wait (max_pending)" in limit[1]


def test_settings_with_which_nothing_would_be_claimed(settings, redis_client):
    """What the namespace keeps is another's."""
    redis_client.hset("embed_queue:settings", mapping={"model": "another", "embedding_field": "embedding"})
    level, words = found(settings())["space"]
    assert level == "problem" and "is kept with another model" in words


def test_a_redis_that_runs_no_scripts_is_not_vouched_for(settings, redis_client, redis_server):
    """PING and ZCARD work there; no item would ever be enqueued."""
    redis_client.acl_setuser(
        "noscript", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-@scripting"]
    )
    try:
        url = redis_server.url.replace("//", "//noscript:any@")
        findings = list(examine(settings(REDIS_URL=url, API_KEY="k"), call=False))
    finally:
        redis_client.acl_deluser("noscript")
    assert [finding.about for finding in findings if finding.level == "problem"] == ["redis"]
    assert "lets this user run no scripts" in findings[0].words and "docs/redis-acl.md" in findings[0].words


def test_keys_of_another_layout_are_told_of(settings, redis_client):
    """Before anything is enqueued in vain."""
    redis_client.hset("embed_queue:settings", "layout", "99")
    [problem, _] = examine(settings(API_KEY="k"), call=False)
    assert problem.level == "problem" and "have layout 99" in problem.words


def test_what_is_said_at_the_end():
    assert summary({"ok"}) == "All is well."
    assert summary({"ok", "warning"}) == "It works; the warnings say what may hurt."
