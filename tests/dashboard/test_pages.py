"""The pages one by one: items, the search, money, the space, pauses; and what is no address of ours."""

from __future__ import annotations

import re
import signal
import time
from html import unescape
from itertools import product
from urllib.parse import quote

import pytest
import redis

pytest.importorskip("flask", reason='the dashboard is in the extra "embedqueue[dashboard]"')

from embedqueue import Budget, InputRejected, Limits  # noqa: E402
from embedqueue.testing import FakeEmbedder, eager_queue  # noqa: E402
from embedqueue.values.item import encode_member  # noqa: E402
from tests.dashboard.test_dashboard import PAGES, change, client_of, token_of  # noqa: E402
from tests.inside import inside  # noqa: E402
from tests.parts import PATIENCE_SECONDS, eventually  # noqa: E402
from tests.web.servers import Running  # noqa: E402

EVIL = "<img src=x onerror=alert(1)>\"'&<script>alert(2)</script>"


@pytest.fixture
def queue(redis_client, make_queue):
    """One that only enqueues, so that what is put in waits."""
    return make_queue(worker=False, flush_interval=600.0)


def keys(page) -> list[str]:
    return [unescape(key) for key in re.findall(r"<code[^>]*>([^<]*:[^<]*)</code>", page.text)]


def link(page, rel: str) -> str:
    return unescape(re.search(rf'rel="{rel}" href="([^"]+)"', page.text).group(1))


# -- what waits ------------------------------------------------------------------------------------------------------


def test_what_waits_is_listed_page_by_page(queue):
    """In the order in which it is claimed; behind, before, and at any page."""
    queue.enqueue_many((f"doc:{at:03}", "x") for at in range(120))
    client = client_of(queue)
    first = client.get("/items")
    assert keys(first) == [f"doc:{at:03}" for at in range(50)]
    assert "1 to 50" in first.text and "in 10 min" in first.text
    second = client.get(link(first, "next"))
    assert keys(second) == [f"doc:{at:03}" for at in range(50, 100)]
    queue.forget("doc:099")
    queue.forget("doc:000")
    third = client.get(link(second, "next"))
    assert keys(third) == [f"doc:{at:03}" for at in range(100, 120)], "what has gone meanwhile hides nothing"
    assert 'rel="next"' not in third.text
    assert keys(client.get(link(second, "prev")))[:2] == ["doc:001", "doc:002"]
    assert keys(client.get("/items?page=3")) == [f"doc:{at:03}" for at in range(102, 120)]
    assert keys(client.get("/items?page=999999999"))[-1] == "doc:119"


def test_what_is_in_flight_says_who_holds_it(queue, redis_client):
    """And until when; what waits for its last delivery is listed as well."""
    queue.enqueue("doc:1", "x")
    inside(queue).store.claim("w1:1/50.000:", 1, probe_limit=1, lease_seconds=50, max_deliveries=5, alone=True)
    client = client_of(queue)
    page = client.get("/items?place=inflight").text
    assert "doc:1" in page and "<code>w1</code>" in page and "ends in" in page
    assert "There are none." in client.get("/items").text
    redis_client.zadd("embed_queue:alone", {encode_member("doc:2", "y"): 5})
    assert "doc:2" in client.get("/items?place=alone").text


def test_texts_of_items_are_shown_only_where_enabled(queue):
    """In the list and on the item's own page."""
    queue.enqueue("doc:1", "a SECRET text")
    for path in ("/items", "/item?key=doc:1"):
        assert "SECRET" not in client_of(queue).get(path).text
        assert "a SECRET text" in client_of(queue, show_texts=True).get(path).text


def test_odd_members_are_listed_too(queue, redis_client):
    """What is not ours, scores that are no time, and keys that are too long for a row or a link."""
    redis_client.zadd("embed_queue:pending", {b"\xff<b>not ours</b>": float("-inf"), b"[]": float("inf"), b"{": 1e300})
    queue.enqueue("k" * 300, "x")
    queue.enqueue("K" * 30_000, "x")
    redis_client.zadd("embed_queue:dead", {b"\xfe": float("inf"), b"\xfd": -1e300})
    redis_client.hset("embed_queue:dead:info", mapping={b"\xfe": "{}", b"\xfd": "[]"})
    for path in ("/", "/dead"):
        assert client_of(queue).get(path).status_code == 200
    page = client_of(queue, show_texts=True).get("/items")
    assert page.status_code == 200
    assert "<b>not ours" not in page.text and page.text.count("not ours</span>") == 3
    assert len(page.data) < 20_000, "long keys are cut"
    assert "k" * 39 + "…" + "k" * 20 in page.text


# -- one item --------------------------------------------------------------------------------------------------------


def test_the_way_of_an_item(queue, redis_client, make_queue):
    """It waits, is claimed, and its vector is written; each time its page says so, and why."""
    client = client_of(queue)
    queue.enqueue("doc:1", "hello")

    def told() -> str:
        return client.get("/item?key=doc:1").text

    page = told()
    assert 'id="item-state">waiting<' in page and "a drain starts in" in page and "Enqueued" in page
    store = inside(queue).store
    store.claim("w1:1/50.000:", 1, probe_limit=1, lease_seconds=50, max_deliveries=5, alone=True)
    page = told()
    assert 'id="item-state">in flight<' in page and "a worker has claimed it" in page and "<dd>w1</dd>" in page
    store.release_all("w1:")
    make_queue(max_batch_size=1, history=False).flush(PATIENCE_SECONDS)
    page = told()
    assert 'id="item-state">written<' in page and "Vector written" in page
    assert 'id="item-state">unknown<' in client.get("/item?key=doc:never").text
    redis_client.set("string", "x")
    assert "WRONGTYPE" in client.get("/item?key=string").text


def test_a_dead_letter_has_a_page_with_its_whole_reason(redis_client):
    """Also one that is not ours; with buttons, and nothing that its reason quotes of the text."""
    reason = "it is refused, " + "and so on, " * 60 + "to the end"

    def rule(texts):
        return InputRejected(f"{reason}: {texts[0]}") if "bad" in texts[0] else None

    with eager_queue(FakeEmbedder(rule=rule), redis_client) as queue:
        queue.enqueue("good", "good")
        queue.enqueue("doc:1", "a bad text that nobody shall read")
        redis_client.zadd("embed_queue:pending", {b"\xff not ours": 1})
        queue.flush_now()
        client = client_of(queue, allow_changes=True)
        page = client.get("/item?key=doc:1").text
        assert reason in page and "nobody shall read" not in page
        assert "and so on, " * 60 not in client.get("/dead").text, "a list shows the beginning"
        name = re.search(r'value="retry:one:([\w-]+)"', page).group(1)
        assert "Retry 1 dead letter?" in change(client, f"retry:one:{name}").text
        foreign = unescape(re.search(r'href="([^"]*letter=d[^"]+)"', client.get("/dead").text).group(1))
        assert "A member that is not ours" in client.get(foreign).text
        queue.discard_dead()
        assert client.get(foreign).status_code == 404


# -- the search ------------------------------------------------------------------------------------------------------


def test_keys_are_found_by_a_part(queue, redis_client):
    """Among what waits and what is dead; nothing in the words is a pattern, and the very key is one link away."""
    queue.enqueue_many([("doc:17", "x"), ("doc:18", "x"), ("odd:*", "x")])
    redis_client.zadd("embed_queue:dead", {encode_member("dead:17", "x"): 1})
    redis_client.hset("embed_queue:dead:info", "dead:17", '{"member":"x","reason":"no"}')
    client = client_of(queue)
    found = client.get("/find?words=17").text
    assert keys(client.get("/find?words=17"))[-2:] == ["doc:17", "dead:17"]
    assert "waiting" in found and "dead" in found
    assert keys(client.get("/find?words=*"))[-1:] == ["odd:*"]
    assert "/item?queue=default&amp;key=doc:9" in client.get("/find?words=doc:9").text
    assert "None" in client.get("/find?words=nothing%20like%20it").text


def test_a_long_search_goes_on_by_a_link(queue, monkeypatch):
    """A page looks at a part only."""
    monkeypatch.setattr("embedqueue.dashboard.find.STEPS", 1)
    queue.enqueue_many((f"doc:{at}", "x") for at in range(6000))
    client, found, path, looks = client_of(queue), set(), "/find?words=doc:599", 0
    while path:
        page = client.get(path)
        found |= {key for key in keys(page) if re.fullmatch(r"doc:599\d", key)}
        path = link(page, "next") if 'rel="next"' in page.text else ""
        looks += 1
    assert found == {f"doc:599{at}" for at in range(10)}
    assert looks > 1


# -- money and spaces ------------------------------------------------------------------------------------------------


def test_what_is_spent_and_left(redis_client, make_queue):
    """The budget with what is spent of it, also where it is used up; what is left of each limit."""
    queue = make_queue(
        start=False,
        budget=Budget(usd_per_day=2.0, usd_per_month=30.0, usd_per_million_tokens=1.0),
        limits=Limits(requests_per_minute=60),
    )
    client = client_of(queue)
    today = int(time.time()) // 86_400
    redis_client.hset("embed_queue:budget", mapping={"day": today, "day:spent": 1_900_000, "parked": "1.0 no money"})
    redis_client.set("embed_queue:pause", "no money")
    page = client.get("/money").text
    assert "$1.90 of $2.00" in page and "of $30.00 a month" in page and "no money" in page
    assert "60 of 60" in page and "requests per minute" in page
    page = client.get("/").text
    assert "$1.90 of $2.00 spent today" in page and "no money" in page


def test_spaces_that_differ_are_told(queue, redis_client):
    """What is kept, what this process says, and that they are at odds."""
    kept = {"model": "another-model", "dimensions": 8, "embedding_field": "embedding", "role": "-"}
    redis_client.hset("embed_queue:settings", mapping=kept)
    page = client_of(queue).get("/space").text
    assert "another-model" in page and "differ from what is kept" in page
    redis_client.delete("embed_queue:settings")
    assert "Nothing is agreed in yet" in client_of(queue).get("/space").text


# -- pauses ----------------------------------------------------------------------------------------------------------


def test_pause_and_resume(queue, redis_client):
    """Each behind a page that says what it does; with a reason, and an end where one is wished."""
    client = client_of(queue, allow_changes=True)
    page = client.get("/pause")
    assert "Pause the queue" in page.text

    def press(do: str, **form):
        return client.post("/pause", data={"csrf_token": token_of(page), "queue": "default", "do": do, **form})

    answer = press("pause", seconds="300", reason=f"moving {EVIL}")
    assert answer.status_code == 303
    assert "Paused: nothing is claimed any more." in client.get(answer.location).text
    assert 290 < redis_client.ttl("embed_queue:pause") <= 300
    told = client.get("/pause").text
    assert "Resume the queue" in told and "moving" in told and "<script>alert" not in told
    assert "The pause is over." in client.get(press("resume").location).text
    assert "There was no pause to end." in client.get(press("resume").location).text
    press("pause")
    assert queue.stats().pause_reason == "paused on the dashboard"
    assert queue.stats().paused_until == float("inf")
    assert press("explode").status_code == 400
    for seconds in ("-1", "0", "x", "1" * 40, "999999999"):
        assert press("pause", seconds=seconds).status_code == 400
    assert press("pause", reason="x" * 201).status_code == 400
    assert press("pause", queue="other").status_code == 404


# -- runs ------------------------------------------------------------------------------------------------------------


def note_run(queue, name: str, state: str = "running", **more) -> None:
    facts = {"kind": "backfill", "state": state, "done": 30, "total": 120, "failed": 2, "texts": 28, "tokens": 2_800}
    facts |= {"usd": 0.42, "host": "<web>", "pid": 7, "began": time.time(), "words": "", "rate": 5.0, **more}
    inside(queue).store.runs.note(name, "owner", 60.0, facts, begins=True)


def test_runs_are_listed_and_asked(queue):
    """How far each is, what it costs and when it is over; to stand still, go on or stop, each after a question."""
    client = client_of(queue, allow_changes=True)
    assert "There are none" in client.get("/runs").text
    note_run(queue, "fill:docs")
    note_run(queue, "old", "failed", words=f"no money {EVIL}")
    page = client.get("/runs")
    assert "30 of 120" in page.text and "$0.42" in page.text and "5 a second, 18 s left" in page.text
    assert "&lt;web&gt; 7" in page.text and "no money" in page.text and "<script>alert" not in page.text
    assert re.findall(r'name="do" value="(\w+:[^"]+)"', page.text) == ["pause:fill:docs", "stop:fill:docs"]

    def press(do: str, **form):
        return client.post("/runs", data={"csrf_token": token_of(page), "queue": "default", "do": do, **form})

    asked = press("stop:fill:docs")
    assert "Stop the run fill:docs?" in asked.text
    assert inside(queue).store.runs.all()[-1].state == "running"
    answer = press("pause:fill:docs", sure="yes")
    assert "The run hears of it within some seconds." in client.get(answer.location).text
    facts = {"kind": "backfill", "state": "running", "done": 31, "total": 120, "failed": 2, "texts": 28, "tokens": 2}
    facts |= {"usd": None, "host": "web", "pid": 7, "began": time.time(), "words": "", "rate": 5.0}
    assert inside(queue).store.runs.note("fill:docs", "owner", 60.0, facts, begins=False) == "pause"
    assert press("stop:old", sure="yes").status_code == press("stop:nothing", sure="yes").status_code == 404
    for do in ("", "stop", "stop:", "explode:fill:docs"):
        assert press(do, sure="yes").status_code == 400


# -- what is no address of ours --------------------------------------------------------------------------------------

WRONG = ("", "x", "-1", "0", "1.5", "1e9", "1" * 400, "²", "%00", "%FF", quote(EVIL), "a" * 9000, "k~1~2", "inf~0~")
NAMES = "queue page place after before older reason key letter words where cursor".split()


@pytest.mark.parametrize("path", [path.partition("?")[0] for path in PAGES])
def test_wrong_parameters_are_refused_in_a_sentence(queue, path):
    """Or do not matter; never a fault, never long, never markup."""
    queue.enqueue("doc:1", "x")
    client = client_of(queue)
    for name, value in product(NAMES, WRONG):
        answer = client.get(f"{path}?{name}={value}")
        assert answer.status_code in (200, 400, 404), (path, name, value)
        assert len(answer.data) < 50_000
        assert "<script>alert" not in answer.text and "<img src=x" not in answer.text
        if answer.status_code != 200:
            assert re.search(r"<p>[A-Za-z][^<]+\.</p>", answer.text), answer.text


@pytest.mark.parametrize("tail", ["did=retry&count=" + "1" * 5000, "did=<b>&count=1", "did=retry&count=x", "count=-1"])
def test_what_an_address_says_was_done_is_a_number_or_nothing(queue, tail):
    """The page is there all the same."""
    answer = client_of(queue).get(f"/?{tail}")
    assert answer.status_code == 200
    assert "put back" not in answer.text


def test_words_of_others_are_never_markup(redis_client):
    """Keys, texts, reasons, hosts, models, worker names, pauses: on every page."""

    def rule(texts):
        return InputRejected(f"{EVIL} refused") if "bad" in texts[0] else None

    with eager_queue(FakeEmbedder(rule=rule), redis_client, model=f"m{EVIL}") as queue:
        queue.enqueue("good", "good")
        queue.enqueue(f"dead:{EVIL}", f"bad {EVIL}")
        redis_client.zadd("embed_queue:pending", {encode_member(f"doc:{EVIL}", EVIL): 1, EVIL: 2})
        redis_client.zadd("embed_queue:inflight", {encode_member(f"fly:{EVIL}", EVIL): time.time() + 50})
        redis_client.hset("embed_queue:claims", f"fly:{EVIL}", f"1.0 1 {EVIL.replace(' ', '')}:1/50:")
        facts = dict.fromkeys(("host", "version", "model", "space", "doing"), EVIL) | {"pid": 1}
        inside(queue).store.workers.announce("w<b>", 60.0, 5.0, facts, tidy=False)
        redis_client.set("embed_queue:pause", EVIL)
        redis_client.hset("embed_queue:settings", "model", EVIL)
        client = client_of({f"q{EVIL}": queue, "other": queue}, allow_changes=True, show_texts=True)
        paths = [*PAGES, "/items?place=inflight", f"/find?words={quote(EVIL)}", f"/item?key={quote('dead:' + EVIL)}"]
        for path in paths:
            page = client.get(path)
            assert page.status_code == 200, path
            assert "<script>alert" not in page.text and "<img src=x" not in page.text, path
            assert "<imgsrc=x" not in page.text and "<b>" not in page.text, path


# -- what goes wrong meanwhile ---------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_told_of(redis_client, env, provider, queue):
    """By what it holds, until its leases end; and, once it is not heard of any more, that nobody works, in red."""
    client = client_of(queue)
    provider.hold()
    command = ["-m", "embedqueue", "worker", "--set", "flush_interval=0.01"]
    with Running(command, env) as worker:
        queue.enqueue_many([("doc:1", "one"), ("doc:2", "two")])
        eventually(lambda: f"<td>{worker.process.pid}</td>" in client.get("/live").text, "the worker is told of")
        eventually(lambda: "<td>calling 1</td><td>2</td>" in client.get("/live").text, "and what it does and holds")
        worker.send(signal.SIGKILL)
        worker.process.wait(PATIENCE_SECONDS)
    redis_client.delete("embed_queue:workers")  # as after a minute
    page = client.get("/live").text
    assert "not heard of any more" in page
    assert 'class="pill bad" id="state"' in page and "Nobody works" in page
    provider.release()


def test_an_acl_of_before_hides_no_more_than_it_must(redis_client, redis_server):
    """Without HVALS, nobody is told who holds what; the page is there."""
    redis_client.acl_setuser("before", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-hvals"])
    path = redis_client.connection_pool.connection_kwargs["path"]
    limited = redis.Redis(unix_socket_path=path, username="before", password="any")
    try:
        with eager_queue(FakeEmbedder(), limited) as queue:
            redis_client.zadd("embed_queue:inflight", {encode_member("doc:1", "x"): time.time() + 50})
            assert client_of(queue).get("/").status_code == 200
    finally:
        redis_client.acl_deluser("before")


def test_rates_are_live(queue, redis_client, make_queue):
    """What was embedded in the last seconds is seen at once, and not only when the minute is over."""
    client = client_of(queue)
    client.get("/live")
    worker = make_queue(max_batch_size=1, history=False)
    queue.enqueue_many((f"doc:{at}", f"text {at}") for at in range(20))
    worker.flush(PATIENCE_SECONDS)
    eventually(
        lambda: re.search(r'id="pace">2 a second<', client.get("/live").text) is not None, "20 in ten seconds are told"
    )
