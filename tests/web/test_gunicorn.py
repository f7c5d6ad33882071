"""Gunicorn for real: sync and gthread, with and without --preload, reloaded, ended and killed."""

from __future__ import annotations

import itertools
import os
import signal
import time

import pytest

pytest.importorskip("gunicorn", reason="gunicorn is not installed: pip install gunicorn")
pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")

from tests.parts import PATIENCE_SECONDS, eventually  # noqa: E402
from tests.web.servers import gunicorn, site_of  # noqa: E402

KINDS = {"sync": ["--worker-class", "sync"], "gthread": ["--worker-class", "gthread", "--threads", "4"]}


def _all_workers(site, count):
    """Post and wait until so many processes have embedded something of their own."""
    pids = set()
    end_mono = time.monotonic() + PATIENCE_SECONDS
    for n in itertools.count():
        answer = site.post(f"/save/note:{n}", text=f"text {n}", wait="1")
        assert answer["numbers"] == 16
        pids.add(answer["pid"])
        if len(pids) == count:
            return pids
        assert time.monotonic() < end_mono, f"only {pids} answered"


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_worker_embeds_and_ends_in_silence(env, redis_client, kind, preload):
    """Both processes serve; SIGTERM ends them well within the graceful timeout, with nothing left claimed."""
    options = ["--workers", "2", *KINDS[kind], *(["--preload"] if preload else [])]
    if preload:
        env = {**env, "SITE_USES_QUEUE_AT_IMPORT": "1"}  # the master has a worker of its own when it forks
    with gunicorn(env, *options, afresh=preload == (kind == "gthread")) as running:
        site = site_of(running)
        _all_workers(site, 2)
        began = time.monotonic()
        running.send(signal.SIGTERM)
        assert running.ended() == 0
        assert time.monotonic() - began < 25  # gunicorn kills after 30
        running.assert_quiet()
    assert redis_client.zcard("embed_queue:inflight") == 0
    assert sorted(redis_client.hkeys("note:0")) == [b"embedding", b"embedding_of"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_claimed_when_sigterm_comes_is_given_back(env, redis_client, provider, kind):
    """A call hangs: the worker ends in time all the same, and the items wait for the next one."""
    with gunicorn(env, "--workers", "1", *KINDS[kind]) as running:
        site = site_of(running)
        site.post("/save/note:first", text="first", wait="1")  # it is known from now on that calls take no time
        provider.hold()
        for n in range(5):
            site.post(f"/save/note:{n}", text=f"text {n}")
        site.post("/flush")
        assert provider.wait_for_calls(2)
        assert redis_client.zcard("embed_queue:inflight") == 5
        running.send(signal.SIGTERM)
        assert running.ended() == 0
        running.assert_quiet()
    provider.release()
    assert redis_client.zcard("embed_queue:inflight") == 0
    assert redis_client.zcard("embed_queue:pending") == 5


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
def test_a_reload_loses_nothing(env, redis_client, provider, preload):
    """HUP with items in flight: the new workers finish what the old ones gave back."""
    options = ["--preload"] if preload else []
    with gunicorn({**env, "EMBEDQUEUE_FLUSH_INTERVAL": "0"}, "--workers", "2", *KINDS["gthread"], *options) as running:
        site = site_of(running)
        before = _all_workers(site, 2)
        provider.hold()
        for n in range(300, 320):
            site.post(f"/save/note:{n}", text=f"text {n}")
        running.send(signal.SIGHUP)
        running.wait_for("Booting worker", 4)
        provider.release()
        eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in before))
        after = _all_workers(site, 2)
        assert not before & after
        eventually(lambda: all(redis_client.hexists(f"note:{n}", "embedding") for n in range(300, 320)))
        running.send(signal.SIGTERM)
        assert running.ended() == 0
        running.assert_quiet()


def test_a_killed_worker_loses_nothing(env, redis_client, provider):
    """SIGKILL in the middle of a call: after the lease another worker embeds the items."""
    provider.hold()
    env = {**env, "EMBEDQUEUE_LEASE_SECONDS": "1", "EMBEDQUEUE_FLUSH_INTERVAL": "0"}
    with gunicorn(env, "--workers", "1", *KINDS["gthread"]) as running:
        site = site_of(running)
        pid = site.post("/save/note:1", text="hello")["pid"]
        assert provider.wait_for_calls(1)
        os.kill(pid, signal.SIGKILL)
        running.wait_for("Booting worker", 2)
        provider.release()
        assert site.post("/save/note:2", text="other", wait="1")["pid"] != pid
        eventually(lambda: redis_client.hexists("note:1", "embedding"))
