"""Django's own server with its autoreload, Django under gunicorn, and uWSGI, for real."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.localcluster import free_port
from tests.parts import eventually
from tests.web.servers import DJANGO, Running, Site, gunicorn, site_of


def test_django_reloads_itself_and_the_queue_goes_on(env, redis_client, provider, tmp_path):
    """A changed file ends the process: what it had claimed is given back and finished by the next one."""
    pytest.importorskip("django", reason="Django is not installed: pip install embedqueue[django]")
    touched = tmp_path / "reload_me.py"
    touched.write_text("")
    began = touched.stat().st_mtime
    port = free_port()
    env = {**env, **DJANGO, "DJSITE_MODULE": "reload_me", "PYTHONPATH": f"{Path.cwd()}{os.pathsep}{tmp_path}"}
    with Running(["-m", "django", "runserver", f"127.0.0.1:{port}", "--skip-checks"], env, afresh=True) as running:
        running.wait_for("Quit the server|CONTROL-C")
        site = Site(running, f"http://127.0.0.1:{port}")
        before = site.post("/save/note:1", text="one", wait="1")
        assert before["numbers"] == 16
        provider.hold()
        site.post("/save/note:2", text="two")
        site.post("/save/note:3", text="two", flush="1")
        assert provider.wait_for_calls(2)
        for later in range(10, 200, 10):  # Django looks once a second, and only then learns of a file
            os.utime(touched, (began + later, began + later))
            if running.saw("changed, reloading", seconds=1.5):
                break
        running.wait_for("changed, reloading")
        running.wait_for("CONTROL-C", 2)
        provider.release()
        after = site.post("/save/note:4", text="four", wait="1")
        assert after["pid"] != before["pid"]
        eventually(lambda: redis_client.hexists("note:2", "embedding"), "written")
        running.assert_quiet("Watching for file changes", "reloading")
        running.send(signal.SIGINT)
        running.ended()
        running.assert_quiet()


def test_django_under_gunicorn(env, redis_client):
    """The same life as Flask's."""
    pytest.importorskip("django", reason="Django is not installed: pip install embedqueue[django]")
    pytest.importorskip("gunicorn", reason="gunicorn is not installed: pip install gunicorn")
    options = ["--workers", "2", "--threads", "2", "--preload"]
    with gunicorn({**env, **DJANGO}, *options, app="tests.web.djsite.wsgi", afresh=True) as running:
        site = site_of(running)
        for n in range(8):
            assert site.post(f"/save/note:{n}", text=f"text {n}", wait="1")["numbers"] == 16
        running.send(signal.SIGTERM)
        assert running.ended() == 0
        running.assert_quiet()
    assert redis_client.zcard("embed_queue:inflight") == 0


def _uwsgi(env, *options):
    found = shutil.which("uwsgi", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("uWSGI is not installed: pip install uwsgi")
    port = free_port()
    fixed = ["--http-socket", f"127.0.0.1:{port}", "--master", "--processes", "2", "--die-on-term", "--need-app"]
    fixed += ["--module", "tests.web.flask_site:app", "--home", sys.prefix, "--pythonpath", str(Path.cwd())]
    running = Running([found, *fixed, *options], env)
    return running, Site(running, f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy-apps", "forking"])
def test_uwsgi(env, redis_client, lazy):
    """Lazy and forking start: each process embeds; SIGTERM ends them with nothing left claimed."""
    pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")
    if not lazy:
        env = {**env, "SITE_USES_QUEUE_AT_IMPORT": "1"}
    running, site = _uwsgi(env, "--enable-threads", "--lazy-apps" if lazy else "--py-call-uwsgi-fork-hooks")
    with running:
        running.wait_for("spawned uWSGI worker 2")
        running.wait_for("WSGI app 0 .* ready", 2 if lazy else 1)
        if not lazy:
            running.wait_for("forked", 2)  # a worker that is ended while Python's hooks of the fork run takes it ill
        for n in range(20):
            assert site.post(f"/save/note:{n}", text=f"text {n}", wait="1")["numbers"] == 16
        running.send(signal.SIGTERM)
        running.ended()
        running.assert_quiet("pthread", "threads support enabled")
    assert redis_client.zcard("embed_queue:inflight") == 0


def test_uwsgi_without_threads_is_told_so(env, redis_client):
    """There no worker can run: one warning says what to set, and the items wait."""
    pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")
    running, site = _uwsgi(env)
    with running:
        running.wait_for("spawned uWSGI worker 2")
        running.wait_for("WSGI app 0 .* ready")
        site.post("/save/note:1", text="text")
        running.wait_for("set enable-threads = true")
    assert redis_client.zcard("embed_queue:pending") == 1


def test_uwsgi_that_forks_behind_pythons_back_is_told_so(env, redis_client):
    """A queue that is used at import, and a uWSGI that would not tell Python of its forks."""
    pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")
    running, _ = _uwsgi({**env, "SITE_USES_QUEUE_AT_IMPORT": "1"}, "--enable-threads")
    with running:
        running.wait_for("set lazy-apps = true, or py-call-uwsgi-fork-hooks = true")
