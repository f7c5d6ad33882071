"""Where the dashboard can stand: in Flask, in Django, and alone."""

from __future__ import annotations

import json
import re
import signal

import pytest
import requests

flask = pytest.importorskip("flask", reason='the dashboard is in the extra "embedqueue[dashboard]"')
pytest.importorskip("click", reason='the command line is in the extra "embedqueue[cli]"')

from embedqueue.contrib.flask import EmbedQueue  # noqa: E402
from embedqueue.dashboard import dashboard  # noqa: E402
from tests.dashboard.test_dashboard import dead, queue, token_of  # noqa: E402, F401 - two of them are fixtures
from tests.web.servers import DJANGO, PATIENCE_SECONDS, Running  # noqa: E402


def test_in_an_application_under_a_prefix(queue, dead):  # noqa: F811
    """Links, forms and cookies keep to the prefix; the application's own escaping and errors are left alone."""
    dead(1)
    app = flask.Flask("site")
    app.jinja_env.autoescape = False
    app.register_blueprint(
        dashboard({"one": queue, "two": queue}, open=True, allow_changes=True), url_prefix="/embeddings"
    )
    client = app.test_client()
    for name in ("", "items", "dead", "money", "space", "pause", "find"):
        page = client.get(f"/embeddings/{name}?queue=two")
        assert page.status_code == 200
        paths = re.findall(r'(?:href|src|action|data-live-url)="(/[^"]*)"', page.text)
        assert len(paths) > 6
        assert all(path.startswith("/embeddings/") for path in paths)
    page = client.get("/embeddings/dead?queue=two")
    assert client.get_cookie("embedqueue_csrf", path="/embeddings/") is not None
    assert client.get_cookie("embedqueue_csrf") is None, "the rest of the application is not sent it"
    form = {"csrf_token": token_of(page), "queue": "two", "do": "discard:all", "sure": "yes"}
    answer = client.post("/embeddings/dead", data=form)
    assert answer.location.startswith("/embeddings/dead?queue=two")
    assert "Not Found" in client.get("/elsewhere").text
    assert "Content-Security-Policy" not in client.get("/elsewhere").headers


def test_with_the_flask_extension(env, redis_client):
    """The queues of the application's settings; to look at them starts none of those that only enqueue."""
    app = flask.Flask("site")
    app.config.update(env, EMBEDQUEUE_WORKER=False, EMBEDQUEUE_QUEUES={"titles": {"DIMENSIONS": 8}})
    embeddings = EmbedQueue(app)
    app.register_blueprint(dashboard(embeddings, open=True), url_prefix="/embeddings")
    client = app.test_client()
    with app.app_context():
        embeddings.queues.idle().enqueue("doc:1", "text")
    page = client.get("/embeddings/").text
    assert re.search(r'id="waiting">1<', page)
    assert "?queue=titles" in page
    assert re.search(r'id="waiting">0<', client.get("/embeddings/?queue=titles").text)
    assert app.extensions["embedqueue"].made() is None
    app.config["EMBEDQUEUE_NONSENSE"] = "1"
    app.extensions["embedqueue"].reset()
    answer = client.get("/embeddings/")
    assert answer.status_code == 503
    assert "EMBEDQUEUE_NONSENSE is not a setting" in answer.text


def test_bad_arguments_are_refused_at_once():
    """Not at the first request."""
    with pytest.raises(TypeError, match="queues must be"):
        dashboard("redis://localhost", open=True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="authenticate"):
        dashboard({}, authenticate="admin")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="price of"):
        dashboard({}, open=True, prices={"m": -1})


def test_standing_alone(env, redis_client, tmp_path):
    """The command serves the page with a password, on any address; SIGTERM ends it."""
    secret = tmp_path / "password"
    secret.write_text("correct horse\n")
    command = ["-m", "embedqueue", "dashboard", "--host", "0.0.0.0", "--port", "0", "--password-file", str(secret)]
    with Running([*command, "--allow-changes", "--price", "mine=0.5"], env, afresh=True) as running:
        url = running.wait_for(r"http://0\.0\.0\.0:(\d+)/").group(1)
        url = f"http://127.0.0.1:{url}/"
        assert requests.get(url, timeout=PATIENCE_SECONDS).status_code == 401
        answer = requests.get(url, auth=("admin", "correct horse"), timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200
        assert "embed_queue" in answer.text
        running.send(signal.SIGTERM)
        assert running.ended() == 0
        assert "correct horse" not in running.output
        running.assert_quiet()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_alone_on_loopback_one_browser_gets_in_by_the_link(env, redis_client, host):
    """Nobody else on this machine, nor through a proxy; the browser keeps a secret that is not in the link."""

    def get(client, path, **options):
        return client.get(url + path, timeout=PATIENCE_SECONDS, allow_redirects=False, **options)

    member = b'{"redis_key":"doc:1","text":"text"}'
    redis_client.zadd("embed_queue:dead", {member: 1})
    redis_client.hset("embed_queue:dead:info", "doc:1", json.dumps({"member": member.decode(), "reason": "it is bad"}))
    with Running(["-m", "embedqueue", "dashboard", "--host", host, "--port", "0", "--allow-changes"], env) as running:
        url, token = running.wait_for(rf"(http://{re.escape(host)}:\d+/)\?token=([\w-]+)").groups()
        stranger, browser = requests.Session(), requests.Session()
        # a HEAD is of who looks where a link leads: it lets nobody in and uses nothing up
        assert stranger.head(f"{url}?token={token}", timeout=PATIENCE_SECONDS).status_code == 403
        entered = get(browser, f"?token={token}")
        assert (entered.status_code, entered.headers["Location"]) == (303, "/")
        cookie = entered.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert token not in cookie
        page = get(browser, "")
        assert page.status_code == 200
        assert token not in page.text
        assert get(browser, "live").status_code == 200
        assert get(browser, f"?token={token}").headers["Location"] == "/"  # the link in its history leads to the page
        for path in ("", "live", f"?token={token}", "?token=wrong", "?token=%FF", "?token="):
            for headers in ({}, {"Connection": "close"}, {"Host": "evil.example.org"}, {"Cookie": f"a={token}"}):
                answer = get(stranger, path, headers=headers)
                assert answer.status_code == 403
                assert "embed_queue" not in answer.text
        form = {"csrf_token": token_of(get(browser, "dead")), "queue": "default", "do": "discard:all", "sure": "yes"}
        kept = {"Cookie": f"embedqueue_csrf={form['csrf_token']}"}
        assert stranger.post(url + "dead", data=form, headers=kept, timeout=PATIENCE_SECONDS).status_code == 403
        assert redis_client.zcard("embed_queue:dead") == 1
        assert browser.post(url + "dead", data=form, timeout=PATIENCE_SECONDS).status_code == 200
        assert redis_client.zcard("embed_queue:dead") == 0
        running.send(signal.SIGTERM)
        assert running.ended() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--password-file"),
        (["--host", "::"], "--password-file"),
        (["--host", "db.internal"], "--password-file"),
        (["--host", "127.0.0.1.nip.io"], "--password-file"),
        (["--host", "localhost.example.org"], "--password-file"),
        (["--host", ""], "--password-file"),
        (["--auth", "no.such.module:check"], "no.such"),
        (["--auth", "os:path"], "is not a function"),
        (["--price", "mine"], "MODEL=DOLLARS"),
        (["--price", "mine=-1"], "must not be negative"),
    ],
)
def test_a_command_that_cannot_be_safe_says_why(env, monkeypatch, arguments, said):
    """And binds to nothing."""
    from click.testing import CliRunner

    from embedqueue.cli import cli

    for name, value in env.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(cli, ["dashboard", "--port", "0", *arguments])
    assert result.exit_code in (1, 2)
    assert said in result.output
    assert "Traceback" not in result.output


# -- Django ----------------------------------------------------------------------------------------------------------


def test_in_django_by_the_admins_permissions(redis_client, redis_server, provider):
    """Who may view queues looks, who may change them acts, anybody else is sent to the login or away."""
    pytest.importorskip("django", reason="Django is not installed: pip install embedqueue[django]")
    env = {"REDIS_URL": redis_server.url, "PROVIDER": "openai", "BASE_URL": provider.openai_url}
    env = {f"EMBEDQUEUE_{name}": value for name, value in {**env, "API_KEY": "test-key", "DIMENSIONS": "16"}.items()}
    with Running(["-m", "tests.web.djsite.dashboard"], {**env, **DJANGO}) as running:
        assert running.ended() == 0, running.output
        assert "fine" in running.output
