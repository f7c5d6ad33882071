"""The dashboard in a real browser: fresh by itself, whole without its script, by keyboard, on a phone, in the dark."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import product

import pytest

pytest.importorskip("flask", reason='the dashboard is in the extra "embedqueue[dashboard]"')
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

from embedqueue import InputRejected  # noqa: E402
from embedqueue.testing import FakeEmbedder, eager_queue  # noqa: E402
from tests.dashboard.site import Dashboard, write_past  # noqa: E402
from tests.inside import inside  # noqa: E402
from tests.web.servers import PATIENCE_SECONDS  # noqa: E402

EVIL_KEY = "<img src=x onerror='window.evil=1'>"
EVIL_TEXT = "<script>window.evil=1</script> a bad text"

#: Elements with text of their own whose contrast with what is behind them is below WCAG's 4.5 (3 where large).
FAINT = """() => {
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const found = rgb(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !element.getClientRects().length || element.closest(".quiet")) continue;
    const style = getComputedStyle(element);
    const pair = [light(rgb(style.color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) {
      faint.push(`${ratio.toFixed(2)} ${element.className} ${element.textContent.trim().slice(0, 40)}`);
    }
  }
  return faint;
}"""
#: Controls that have no name for those who do not see them.
NAMELESS = """() => [...document.querySelectorAll("a, button, input:not([type=hidden]), select, summary, [role=img]")]
  .filter(one => !(one.getAttribute("aria-label") || one.textContent.trim() || (one.labels && one.labels.length)))
  .map(one => one.outerHTML.slice(0, 100))"""
WIDE = "document.documentElement.scrollWidth"
#: How bright it is.
PAPER = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"


@pytest.fixture
def queue(redis_client):
    """A queue that refuses what contains "bad"; 30 letters are dead, and an hour and two weeks have passed."""

    def rule(texts):
        return InputRejected("the provider refuses this text") if any("bad" in text for text in texts) else None

    write_past(redis_client, time.time())
    with eager_queue(FakeEmbedder(rule=rule), redis_client) as made:
        made.enqueue("good", "a good text")
        for at in range(29):
            made.enqueue(f"doc:{at}", f"a bad text {at}")
        made.enqueue(EVIL_KEY, EVIL_TEXT)
        yield made


@pytest.fixture
def site(queue) -> Iterator[str]:
    """The address of its dashboard, where everything is allowed."""
    with Dashboard(queue, allow_changes=True, show_texts=True) as running:
        yield running.url


@pytest.fixture
def look(browser, site) -> Iterator[object]:
    """Opens the page as somebody has set their browser; in the end nobody else was asked, and nothing complained."""
    contexts, asked, complaints = [], [], []

    def look(path: str = "", width: int = 1280, **settings) -> playwright.Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, **settings)
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda sent: asked.append(sent.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(site + path)
        return page

    yield look
    for context in contexts:
        context.close()
    assert all(url.startswith((site, "data:")) for url in asked), asked
    assert complaints == []  # a violated policy is an error on the console, too


def number(page, name: str):
    return page.locator(f"#{name}")


def test_the_numbers_keep_themselves_fresh(look, queue):
    """What changes in Redis is seen without reloading; what somebody has opened stays so."""
    page = look()
    playwright.expect(number(page, "dead-count")).to_have_text("30")
    page.get_by_text("Every minute as a table").click()
    queue.enqueue("doc:new", "another bad text")
    playwright.expect(number(page, "dead-count")).to_have_text("31")
    assert page.locator("figure details").get_attribute("open") is not None
    assert page.evaluate("window.evil") is None

    hold = page.get_by_role("button", name="Pause updates")
    hold.click()
    queue.retry_dead("doc:new")
    queue.discard_dead()
    page.wait_for_timeout(2500)  # longer than it would take
    playwright.expect(number(page, "dead-count")).to_have_text("31")
    page.get_by_role("button", name="Resume updates").click()
    playwright.expect(number(page, "dead-count")).to_have_text("0")
    playwright.expect(number(page, "waiting")).to_have_text("1")


def test_a_pause_is_seen_with_its_reason_and_its_end(look, redis_client):
    """By itself, as soon as it begins and ends."""
    page = look()
    playwright.expect(page.locator("#state")).to_have_text("No worker")
    redis_client.set("embed_queue:pause", "the provider failed: 503 <b>overloaded</b>", ex=100)
    playwright.expect(page.locator("#state")).to_have_text("Paused")
    playwright.expect(page.locator(".sentence")).to_contain_text("the provider failed: 503 <b>overloaded</b>")
    redis_client.delete("embed_queue:pause")
    playwright.expect(page.locator("#state")).to_have_text("No worker")


@pytest.mark.parametrize("scripts", [True, False], ids=["", "without-scripts"])
def test_dead_letters_are_retried_and_discarded_by_pressing_buttons(look, queue, scripts):
    """With and without the script; each asks first, and may be left."""
    page = look("dead", java_script_enabled=scripts)
    page.get_by_label("Select doc:28").check()
    page.get_by_label("Select doc:27").check()
    page.get_by_role("button", name="Discard selected").click()
    playwright.expect(page.get_by_role("heading", name="Discard 2 dead letters for good?")).to_be_visible()
    page.get_by_role("link", name="Keep").click()
    assert queue.stats().dead == 30

    page.get_by_role("button", name="Discard doc:28").click()
    page.get_by_role("button", name="Discard for good").click()
    playwright.expect(page.get_by_text("1 discarded.")).to_be_visible()
    playwright.expect(page.get_by_label("Select doc:28")).to_have_count(0)

    inside(queue).embedder.rule = None  # the provider takes them now
    page.get_by_role("button", name=f"Retry {EVIL_KEY}", exact=True).click()
    playwright.expect(page.get_by_text(re.compile(r"That sends 1 texts of about \d+ tokens, about \$"))).to_be_visible()
    page.get_by_role("button", name="Retry", exact=True).click()
    playwright.expect(page.get_by_text("1 put back into the queue.")).to_be_visible()
    page.get_by_role("button", name=re.compile("Retry all with this reason")).click()
    page.get_by_role("button", name="Retry", exact=True).click()
    playwright.expect(page.get_by_text("28 put back into the queue.")).to_be_visible()
    queue.flush_now()
    page.reload()
    playwright.expect(page.get_by_text("There are none.")).to_be_visible()
    assert queue.redis.hexists(EVIL_KEY, "embedding")


def test_all_on_a_page_are_chosen_at_once_and_pages_are_turned(look):
    """25 a page; the box for all follows the others."""
    page = look("dead")
    everything = page.get_by_label("All on this page")
    everything.check()
    assert page.locator("input[name=id]:checked").count() == 25
    page.get_by_label("Select doc:28").uncheck()
    assert not everything.is_checked()
    assert everything.evaluate("box => box.indeterminate")
    page.get_by_role("link", name="Older").click()
    playwright.expect(page.locator("input[name=id]")).to_have_count(5)
    playwright.expect(page.get_by_role("link", name="Older")).to_have_count(0)
    page.get_by_role("spinbutton", name="Page").fill("1")
    page.get_by_role("button", name="Go").click()
    playwright.expect(page.locator("input[name=id]")).to_have_count(25)
    page.get_by_role("link", name="the provider refuses this text").click()
    playwright.expect(page.get_by_text("Letters with the reason")).to_be_visible()


PATHS = (
    *("", "items", "items?place=inflight", "dead", "item?key=doc:1", "money", "space", "jobs", "runs", "pause"),
    "find?words=doc",
)


#: Of a small and of a usual phone, and of a desk.
WIDTHS = (320, 390, 1280)


def test_it_fits_and_can_be_read(look, redis_client):
    """Nothing is wider than the screen, every word stands out, every control has a name; dark where dark is wanted."""
    for at in range(3):
        redis_client.zadd("embed_queue:pending", {f'{{"redis_key":"{"long" * 60}{at}","text":"one"}}': time.time()})
    page = look()
    base = page.url

    def check(path):
        for scheme, width in product(("light", "dark"), WIDTHS):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 800})
            wide, faint, nameless, paper = page.evaluate(f"[{WIDE}, ({FAINT})(), ({NAMELESS})(), {PAPER}]")
            assert wide <= width, (path, width)
            assert (faint, nameless) == ([], []), (path, scheme, width)
            assert (paper < 60) == (scheme == "dark")

    for path in PATHS:
        page.goto(base + path)
        check(path)
    page.goto(base + "dead")
    page.get_by_role("button", name="Discard all 30").click()
    page.get_by_role("button", name="Discard for good").wait_for()
    page.wait_for_load_state()
    check("dead, all 30")


@pytest.mark.parametrize("scripts", [True, False], ids=["", "without-scripts"])
def test_a_queue_is_paused_and_resumed_and_a_key_is_found(look, queue, scripts):
    """By buttons and links alone."""
    page = look(java_script_enabled=scripts)
    page.get_by_role("link", name="Pause the queue").click()
    page.get_by_label("Reason").fill("the provider moves")
    page.get_by_label("For").select_option("5 minutes")
    page.get_by_role("button", name="Pause", exact=True).click()
    playwright.expect(page.locator("#state")).to_have_text("Paused")
    playwright.expect(page.locator(".sentence")).to_contain_text("the provider moves")
    assert queue.stats().pause_reason == "the provider moves"
    page.get_by_role("link", name="Resume the queue").click()
    page.get_by_role("button", name="Resume", exact=True).click()
    playwright.expect(page.get_by_text("The pause is over.")).to_be_visible()
    assert queue.stats().paused_until is None
    page.get_by_role("searchbox", name="Find a key").fill("oc:28")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="doc:28").click()
    playwright.expect(page.locator("#item-state")).to_have_text("dead")
    page.get_by_role("button", name="Retry").click()
    page.get_by_role("link", name="Keep").click()
    assert queue.stats().dead == 30


def test_by_keyboard_alone(look, queue):
    """Tab reaches everything in order, where one is can be seen, Space and Enter do what a click does."""
    page = look("dead")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the numbers"
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "[document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim(), "
            "getComputedStyle(document.activeElement).outlineStyle]"
        )
        reached.append(name)
        assert outline != "none", name
        if name == "Select doc:28":
            break
    wanted = ["Find a key", "Find", "Overview", "Dead letters", "Retry selected", "Discard all 30"]
    assert [name for name in wanted if name in reached] == wanted
    page.keyboard.press("Space")
    assert page.get_by_label("Select doc:28").is_checked()
    page.keyboard.press("Enter")  # the form's first button: retry, which asks as all do
    page.get_by_role("button", name="Retry", exact=True).press("Enter")
    playwright.expect(page.get_by_text("1 put back into the queue.")).to_be_visible()
    assert queue.stats().dead == 29


def test_without_its_script_the_page_is_whole(look):
    """All numbers, charts and letters are there, and a link to reload instead of the button to hold still."""
    page = look(java_script_enabled=False)
    playwright.expect(number(page, "dead-count")).to_have_text("30")
    assert page.locator("svg rect.minute").count() > 40
    assert page.get_by_role("link", name="Reload").is_visible()
    assert not page.get_by_role("button", name="Pause updates").is_visible()
    page.get_by_role("link", name="Dead letters").click()
    assert page.locator("#letters tbody tr").count() > 25
    assert not page.get_by_label("All on this page").is_visible()


def test_a_redis_that_goes_and_comes_back(browser, fresh_redis_server):
    """The page says so, and shows everything again as soon as it can."""
    with eager_queue(FakeEmbedder(), fresh_redis_server.client()) as queue, Dashboard(queue) as running:
        queue.enqueue("doc:1", "text")
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        page.goto(running.url)
        playwright.expect(page.locator("#state")).to_have_text("No worker")
        fresh_redis_server.stop()
        playwright.expect(page.locator("#state")).to_have_text("Unreachable", timeout=PATIENCE_SECONDS * 1000)
        page.reload()
        playwright.expect(page.get_by_role("alert")).to_contain_text("Redis does not answer")
        fresh_redis_server.start()
        playwright.expect(page.locator("#state")).to_have_text("No worker", timeout=PATIENCE_SECONDS * 1000)
        playwright.expect(number(page, "waiting")).to_have_text("0")
        page.close()
