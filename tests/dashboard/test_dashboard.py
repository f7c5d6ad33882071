"""The dashboard over HTTP: who gets in, what may be done, and what is shown of users' words."""

from __future__ import annotations

import re
from html import unescape

import pytest
import redis

flask = pytest.importorskip("flask", reason='the dashboard is in the extra "embedqueue[dashboard]"')
pytest.importorskip("click", reason='the command line is in the extra "embedqueue[cli]"')

from embedqueue import InputRejected, Limits  # noqa: E402
from embedqueue.dashboard import dashboard_app, password  # noqa: E402
from embedqueue.testing import FakeEmbedder, eager_queue  # noqa: E402
from tests.inside import inside  # noqa: E402

REFUSED = "it has 9000 tokens"
#: All there are.
PAGES = (
    "/",
    "/live",
    "/items",
    "/item?key=doc:1",
    "/find?words=doc",
    "/dead",
    "/money",
    "/space",
    "/jobs",
    "/runs",
    "/pause",
)


@pytest.fixture
def queue(redis_client):
    """A queue that refuses what contains "bad"; on a real Redis."""

    def rule(texts):
        return InputRejected(f"{REFUSED}: {texts[0]}") if any("bad" in text for text in texts) else None

    with eager_queue(FakeEmbedder(rule=rule), redis_client, history=True) as made:
        yield made


@pytest.fixture
def dead(queue):
    """Makes dead letters: doc:0 is the oldest."""

    def dead(count: int, text: str = "a bad text") -> None:
        for at in range(count):
            queue.enqueue(f"doc:{at}", f"{text} {at}")

    queue.enqueue("good", "a good text")  # the provider is well, as everybody can see
    return dead


def client_of(queue, **options):
    """Somebody who is let in, unless something else is said."""
    return dashboard_app(queue, **{"open": "authenticate" not in options, **options}).test_client()


def token_of(answer) -> str:
    return re.search(r'name="csrf_token" value="([\w-]+)"', answer.text).group(1)


def token_of_cookie(client) -> str:
    return client.get_cookie("embedqueue_csrf").value


def change(client, do: str, **form):
    """What a browser sends when a button is pressed, on the page of dead letters or on that of the question."""
    token = token_of(client.get("/pause"))
    return client.post("/dead", data={"csrf_token": token, "queue": "default", "do": do, **form})


def ids_of(answer) -> list[str]:
    return re.findall(r'name="id" value="([\w-]+)"', answer.text)


# -- who works -------------------------------------------------------------------------------------------------------


def test_who_works(queue, redis_client):
    """Each worker, with what it does; where items wait and nobody works, the page says so in red."""
    client = client_of(queue)
    page = client.get("/").text
    assert 'class="pill warn"' in page and "No worker is running." in page
    redis_client.zadd("embed_queue:pending", {'{"redis_key":"doc:1","text":"one"}': 1})
    page = client.get("/live").text
    assert '<p class="pill bad" id="state" role="status">Nobody works</p>' in page
    assert "1 items wait, and no worker is running: start one (embedqueue worker)." in page
    facts = {"host": "<web>", "pid": 7, "version": "9.9", "model": "m", "space": "m/8/-", "doing": "calling 3"}
    inside(queue).store.workers.announce("w1", 60.0, 5.0, facts, tidy=False)
    page = client.get("/live").text
    assert "Nobody works" not in page
    assert "&lt;web&gt;</th><td>7</td><td>calling 3</td><td>0</td><td>m/8/-</td>" in page and "<td>9.9</td>" in page
    redis_client.set("embed_queue:workers", "no hash")
    assert "Redis does not let us know." in client.get("/").text


# -- who gets in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"authenticate": None},
        {"open": False},
        {"open": 1},  # nothing but True
        {"authenticate": lambda: True, "open": True},  # which of them?
    ],
)
def test_who_may_look_has_to_be_said(queue, options):
    """Else no dashboard is made. Loopback proves nothing: behind nginx's plain proxy_pass, all of them come from it."""
    with pytest.raises(ValueError, match=r"authenticate=.*open=True"):
        dashboard_app(queue, **options)


def test_what_is_left_of_limits_is_shown(redis_client, make_queue):
    page = client_of(make_queue(redis_client, start=False, limits=Limits(requests_per_day=600))).get("/").text
    assert "requests_per_day: 600 of 600 left, the next full call may go now" in page


def test_an_open_dashboard_is_open(queue):
    """By whatever name and from wherever somebody comes."""
    client = client_of(queue, open=True)
    for given in ({}, {"environ_base": {"REMOTE_ADDR": "10.1.2.3"}}, {"headers": {"Host": "ops.example.org"}}):
        assert client.get("/", **given).status_code == 200


def test_a_hook_decides_for_everything(queue, dead):
    """True lets in, False and None do not, an answer is sent as it stands; POST is asked like GET."""
    dead(1)
    verdict = [True]
    client = client_of(queue, authenticate=lambda: verdict[0], allow_changes=True)
    assert client.get("/").status_code == 200
    for verdict[0] in (False, None):
        for path in PAGES:
            assert client.get(path).status_code == 403, path
        for path in ("/dead", "/pause", "/runs", "/jobs"):
            assert client.post(path, data={"do": "retry:all"}).status_code == 403
    verdict[0] = flask.Response("go and log in", 302, {"Location": "/login"})
    assert client.get("/").location == "/login"
    assert queue.stats().dead == 1


def test_a_password(queue):
    """The right one with the right name lets in; anything else is asked again."""
    client = client_of(queue, authenticate=password("correct horse", user="ops"))
    assert client.get("/", auth=("ops", "correct horse")).status_code == 200
    for auth in (None, ("ops", "wrong"), ("ops", ""), ("admin", "correct horse"), ("öps", "ü")):
        answer = client.get("/", auth=auth)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    with pytest.raises(ValueError, match="empty"):
        password("")


# -- what may be done ------------------------------------------------------------------------------------------------


def test_read_only_unless_enabled(queue, dead):
    """No button and no way around it."""
    dead(2)
    client = client_of(queue)
    assert "doc:1" in client.get("/dead").text
    for path in PAGES:
        page = client.get(path).text
        assert "<button name" not in page
        assert "csrf_token" not in page
    client.set_cookie("embedqueue_csrf", "x" * 40)
    for path, do in (
        ("/dead", "discard:all"),
        ("/pause", "pause"),
        ("/pause", "resume"),
        ("/runs", "stop:a"),
        ("/jobs", "cancel:a"),
    ):
        answer = client.post(path, data={"csrf_token": "x" * 40, "queue": "default", "do": do, "sure": "yes"})
        assert answer.status_code == 403
    assert (queue.stats().dead, queue.stats().paused_until) == (2, None)


def test_changes_may_depend_on_the_request(queue, dead):
    """A function decides."""
    dead(1)
    allowed = [False]
    client = client_of(queue, allow_changes=lambda: allowed[0])
    assert "<button name" not in client.get("/dead").text
    allowed[0] = True
    assert change(client, "retry:all", sure="yes").status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.org"},
        {"Origin": "null"},
    ],
)
def test_another_site_changes_nothing(queue, dead, headers):
    """Even if it knew the token."""
    dead(1)
    client = client_of(queue, allow_changes=True)
    form = {"csrf_token": token_of(client.get("/dead")), "queue": "default", "do": "retry:all", "sure": "yes"}
    assert client.post("/dead", data=form, headers=headers).status_code == 403
    assert client.post("/pause", data={**form, "do": "pause"}, headers=headers).status_code == 403
    assert client.post("/runs", data={**form, "do": "stop:a"}, headers=headers).status_code == 403
    assert client.post("/jobs", data={**form, "do": "cancel:a"}, headers=headers).status_code == 403
    assert (queue.stats().dead, queue.stats().paused_until) == (1, None)
    assert client.post("/dead", data=form, headers={"Origin": "http://localhost"}).status_code == 303


def test_a_form_without_the_token_changes_nothing(queue, dead):
    """Token and cookie must be there and be the same; the cookie is out of reach of scripts and other sites."""
    dead(1)
    client = client_of(queue, allow_changes=True)
    page = client.get("/dead")
    cookie = page.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    form = {"queue": "default", "do": "retry:all", "sure": "yes"}
    for token in ({}, {"csrf_token": ""}, {"csrf_token": "wrong"}):
        assert client.post("/dead", data={**form, **token}).status_code == 403
        assert client.post("/pause", data={**form, "do": "pause", **token}).status_code == 403
        assert client.post("/runs", data={**form, "do": "stop:a", **token}).status_code == 403
        assert client.post("/jobs", data={**form, "do": "cancel:a", **token}).status_code == 403
    stranger = client_of(queue, allow_changes=True)
    assert stranger.post("/dead", data={**form, "csrf_token": token_of(page)}).status_code == 403
    assert queue.stats().dead == 1


def test_retry_and_discard(queue, dead, redis_client):
    """One, those that were chosen, those of a reason, all; both ask first, and do nothing until then."""
    queue.enqueue("other", "another bad thing")
    dead(5)
    redis_client.zadd("embed_queue:pending", {b"\xff\x00 not ours": 1})
    redis_client.set("string", "x")
    queue.enqueue("string", "a good text for a key of another type")
    assert queue.stats().dead == 8
    client = client_of(queue, allow_changes=True)
    ids = dict(zip([letter.redis_key for letter in queue.dead_letters()], ids_of(client.get("/dead")), strict=True))

    redis_client.delete("string")
    asked = change(client, f"retry:one:{ids['string']}")
    assert asked.status_code == 200
    assert "Retry 1 dead letter?" in asked.text
    assert re.search(r"That sends 1 texts of about \d+ tokens, about \$0\.\d+, to be paid", asked.text)
    assert queue.stats().dead == 8
    answer = change(client, "retry:selected", id=ids_of(asked), sure="yes")
    assert answer.status_code == 303
    assert "1 put back into the queue" in client.get(answer.location).text
    queue.flush_now()
    assert redis_client.hexists("string", "embedding")

    asked = change(client, "discard:selected", id=[ids["doc:1"], ids["doc:2"], ids[""]])
    assert asked.status_code == 200
    assert "Discard 3 dead letters for good?" in asked.text
    assert queue.stats().dead == 7  # nothing yet
    done = change(client, "discard:selected", id=ids_of(asked), sure="yes")
    assert "3 discarded" in client.get(done.location).text
    assert {letter.redis_key for letter in queue.dead_letters()} == {"doc:0", "doc:3", "doc:4", "other"}

    [reason] = set(re.findall(r'value="discard:reason:(\w+)"', client.get("/dead").text))
    asked = change(client, f"discard:reason:{reason}")
    assert "4 dead letters" in asked.text
    assert f'value="discard:reason:{reason}"' in asked.text, "the answer looks again which these are"
    assert ids_of(asked) == []
    change(client, "discard:all", sure="yes")
    assert queue.stats().dead == 0


@pytest.mark.parametrize(
    "do", ["", "retry", "explode:all", "retry:some", "retry:one:kÄ", "retry:one:d12", "discard:selected"]
)
def test_a_form_that_makes_no_sense_does_nothing(queue, dead, do):
    """It is refused, or finds nothing."""
    dead(1)
    answer = change(client_of(queue, allow_changes=True), do)
    assert answer.status_code in (303, 400)
    assert queue.stats().dead == 1


def test_an_unknown_queue_is_not_there(queue):
    """Neither to look at, nor to change."""
    client = client_of({"a": queue}, allow_changes=True)
    assert client.get("/?queue=b").status_code == 404
    assert client.get("/?queue=a").status_code == 200


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_users_words_are_never_markup(queue):
    """Keys, texts and reasons, on the page and where it asks once more."""
    key, text = "<b id=evil>&\"'key", "<script>evil()</script> bad"
    queue.enqueue("good", "a good text")
    queue.enqueue(key, text)
    client = client_of(queue, allow_changes=True, show_texts=True)
    page = client.get("/dead").text
    asked = change(client, "discard:selected", id=ids_of(client.get("/dead"))).text
    for shown in (page, asked):
        assert "<b id=evil" not in shown
        assert "<script>evil" not in shown
        assert key in unescape(shown)
    assert text in unescape(page)


def test_texts_are_shown_only_where_enabled(queue, dead):
    """And what a reason quotes of them neither."""
    dead(1, "a bad SECRET text that nobody else should read")
    for path in ("/", "/dead", "/item?key=doc:0"):
        hidden, shown = client_of(queue).get(path).text, client_of(queue, show_texts=True).get(path).text
        assert "SECRET" not in hidden
        assert REFUSED in hidden
        assert "SECRET" in shown


def test_dead_letters_have_pages(queue, dead):
    """Twenty-five each, the latest first; beyond the last page is the last. "Older" goes on behind a letter."""
    dead(60)
    client = client_of(queue)

    def keys(path):
        return re.findall(r"<code[^>]*>(doc:\d+)</code>", client.get(path).text)

    assert keys("/dead?page=1") == keys("/dead") == [f"doc:{at}" for at in range(59, 34, -1)]
    assert keys("/dead?page=3") == [f"doc:{at}" for at in range(9, -1, -1)]
    assert keys("/dead?page=99") == keys("/dead?page=3")
    older = unescape(re.search(r'rel="next" href="([^"]+)"', client.get("/dead").text).group(1))
    queue.discard_dead(["doc:50", "doc:35"])
    assert keys(older)[:2] == ["doc:34", "doc:33"], "what has gone meanwhile hides nothing"


def test_long_dead_letters_are_a_short_page(queue, redis_client):
    """Redis sends little of them; all of the page are there, with reasons, and may be retried by one and by reason."""
    queue.enqueue("good", "a good text")
    inside(queue).embedder.rule = lambda texts: (
        InputRejected(f"it has {len(texts[0])} tokens") if "bad" in texts[0] else None
    )
    for at in range(30):
        queue.enqueue(f"doc:{at}", f"{at} bad " + "word " * 20_000)
    client = client_of(queue, allow_changes=True)
    before = redis_client.info("stats")["total_net_output_bytes"]
    page = client.get("/dead")
    assert redis_client.info("stats")["total_net_output_bytes"] - before < 2_500_000  # of 3 MB, what is compared
    assert len(page.data) < 60_000
    assert re.findall(r"<code[^>]*>(doc:\d+)</code>", page.text) == [f"doc:{at}" for at in range(29, 4, -1)]
    assert "word word" not in page.text
    asked = change(client, "discard:one:" + ids_of(page)[-1])
    assert "doc:5" in asked.text
    [reason] = set(re.findall(r'value="retry:reason:(\w+)"', page.text))
    assert "Retry 30 dead letters?" in change(client, f"retry:reason:{reason}").text
    done = change(client, f"retry:reason:{reason}", sure="yes")
    assert done.status_code == 303, done.text
    assert "30 put back" in client.get(done.location).text


def test_a_long_text_is_not_quoted_either(queue):
    """Where it is too long to be compared with its reason, the reason is not shown; where texts are shown, it is."""
    queue.enqueue("good", "a good text")
    inside(queue).embedder.rule = lambda texts: InputRejected(f"no {texts[0][-20:]}") if "bad" in texts[0] else None
    queue.enqueue("doc:1", "bad " + "word " * 500_000 + "SECRET at the end")
    for path in ("/dead", "/item?key=doc:1"):
        page = client_of(queue).get(path).text
        assert "doc:1" in page
        assert "SECRET" not in page
        assert "may quote the text" in page
        assert "SECRET at the end" in client_of(queue, show_texts=True).get(path).text


def test_a_page_ends_with_what_is_too_long_for_it(queue, redis_client):
    """Members that are not ours cannot be cut; the page says how many it leaves out."""
    for at in range(4):
        redis_client.zadd("embed_queue:pending", {b"not ours %d " % at + b"x" * 1_500_000: at + 1})
    queue.flush_now()
    client = client_of(queue, allow_changes=True)
    page = client.get("/dead")
    assert len(page.data) < 60_000
    assert (len(ids_of(page)), "2 more of this page" in page.text) == (2, True)
    change(client, "discard:selected", id=ids_of(page), sure="yes")
    assert queue.stats().dead == 2


def test_figures_stand_on_the_page(queue, dead):
    """Counts of the queue, what was done today, and what it cost."""
    dead(2)
    queue.stop()  # writes the history
    client = client_of(queue, prices={"gemini-embedding-001": 1e6})
    page = client.get("/").text
    numbers = dict(re.findall(r'class="number" id="([\w-]+)"[^>]*>([\d,]+)<', page))
    assert numbers == {"waiting": "0", "in-flight": "0", "written": "1", "dead-count": "2"}
    tokens = queue.history().days[-1].tokens["google/gemini-embedding-001"]
    assert f"${tokens:,.2f}" in client.get("/money").text
    assert "rejected" not in page
    assert "a text was refused" in page


def test_a_model_without_a_price_has_tokens_only(redis_client):
    """And the page says so."""
    with eager_queue(FakeEmbedder(), redis_client, history=True, model="my/own-model") as queue:
        queue.enqueue("doc:1", "text")
    page = client_of(queue).get("/money").text
    assert "The price of my/own-model is not known" in page
    assert "no price" in page
    assert "$" not in page


@pytest.mark.parametrize("path", [*PAGES, "/dead?page=x", "/static/dashboard.js", "/static/dashboard.css"])
def test_nothing_but_our_own_runs(queue, path):
    """A strict policy with each answer: no inline script or style, no other host, no frame."""
    with client_of(queue).get(path) as answer:
        text = answer.text
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert re.fullmatch(r"'nonce-[\w-]{20,}'", policy["script-src"])
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "unsafe" not in str(policy)
    assert not re.search(r"""\s(style|on\w+)=|(src|href)=["']?(https?:)?//""", text)


def test_a_redis_that_is_gone_is_a_sentence(redis_client):
    """With the status of an outage, and no traceback."""
    gone = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=1)
    with eager_queue(FakeEmbedder(), gone) as queue:
        client = client_of(queue, allow_changes=True)
        for path in PAGES:
            answer = client.get(path)
            assert answer.status_code == 503
            assert "Redis does not answer" in answer.text
        form = {"csrf_token": token_of_cookie(client), "queue": "default"}
        for path, do in (("/dead", "retry:all"), ("/pause", "pause")):
            answer = client.post(path, data={**form, "do": do})
            assert answer.status_code == 503
            assert "Redis does not answer" in answer.text
