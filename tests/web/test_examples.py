"""The notes applications in a real browser: a note is saved, waits, becomes searchable, and is found by other words."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator

import pytest
import requests

from embedqueue.demo.localredis import find_search_module, find_server

pytest.importorskip("flask", reason="Flask is not installed: make setup")
pytest.importorskip("django", reason="Django is not installed: make setup")
pytest.importorskip("wordllama", reason="the offline model is not installed: make setup")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

from tests.provider import poison  # noqa: E402
from tests.web.servers import PATIENCE_SECONDS, Running  # noqa: E402

NOTE = "The bicycle's chain jumps on the biggest sprocket: tighten the cable by a quarter turn."
OTHER_WORDS = "my bike's gears slip"

pytestmark = [
    pytest.mark.skipif(find_server() is None, reason="no redis-server: make setup"),
    pytest.mark.skipif(find_search_module() is None, reason="no search for Redis: make setup"),
]


def _address(running: Running) -> str:
    return running.wait_for(r"(?:[Rr]unning on|server at) (http://[\d.:]+)").group(1)


@pytest.fixture(scope="module", params=["flask", "django", "fastapi"])
def site(request) -> Iterator[str]:
    """The address of an application that runs as its command starts it, but that embeds only when it is told to."""
    if request.param == "fastapi":
        for name in ("fastapi", "uvicorn", "a2wsgi"):
            pytest.importorskip(name, reason=f"{name} is not installed: make setup")
    env = {"EMBEDQUEUE_FLUSH_INTERVAL": "3600", "NOTES_PASSWORD": "correct horse"}
    with Running(["-m", f"examples.{request.param}_notes", "--port", "0"], env, afresh=True) as running:
        yield _address(running)
        running.send(signal.SIGTERM)
        assert running.ended() == 0
        running.assert_quiet()


@contextlib.contextmanager
def _opened(browser, **options) -> Iterator[playwright.Page]:
    """A page on a phone."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, **options)
    context.set_default_timeout(PATIENCE_SECONDS * 1000)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def phone(browser, site) -> Iterator[playwright.Page]:
    """What all tests of an application look at it with: each process of a browser takes its time to come up."""
    with _opened(browser) as page:
        yield page


@pytest.fixture
def page(request, browser, site) -> Iterator[playwright.Page]:
    """The application's page; with a false parameter, without its little script."""
    asked: list[str] = []
    complaints: list[str] = []

    def ask(sent) -> None:
        asked.append(sent.url)

    def complain(error) -> None:
        complaints.append(str(error))

    with contextlib.ExitStack() as opened:
        if getattr(request, "param", True):
            page = request.getfixturevalue("phone")
        else:
            page = opened.enter_context(_opened(browser, java_script_enabled=False))
        page.on("request", ask)
        page.on("pageerror", complain)
        page.goto(site)
        yield page
        page.remove_listener("request", ask)
        page.remove_listener("pageerror", complain)
    assert all(url.startswith((site, "data:")) for url in asked), asked  # nobody else is asked for anything
    assert not complaints


def _until_searchable(page, note):
    """The script shows it by itself; without it, somebody reloads."""
    state = note.locator(".state")
    for _ in range(50):
        try:
            playwright.expect(state).to_have_text("Searchable", timeout=500)
            return
        except AssertionError:
            if not page.evaluate("typeof refresh === 'function'"):
                page.reload()
    raise AssertionError(f"still {state.inner_text()!r}")


@pytest.mark.parametrize("page", [True, False], ids=["", "without-scripts"], indirect=True)
def test_a_note_becomes_searchable_by_its_meaning(page, request):
    """Saved: it waits. Embedded: it is found first, by words that it does not have."""
    name = request.node.callspec.id
    if page.get_by_role("button", name="Add some sample notes").is_visible():
        page.get_by_role("button", name="Add some sample notes").click()
    text = f"{NOTE} ({name})"
    page.get_by_role("textbox", name="New note").fill(text)
    page.get_by_role("button", name="Save note").click()
    note = page.locator("#notes li").filter(has_text=text)
    playwright.expect(note.locator(".state")).to_have_text("Waiting to be embedded")
    assert re.search(r"/#note:\w+$", page.url)
    waiting = page.locator("[data-count=waiting]")
    assert int(waiting.inner_text()) >= 1

    page.get_by_role("button", name="Embed now").click()
    _until_searchable(page, note)
    playwright.expect(waiting).to_have_text("0")

    page.get_by_role("searchbox", name="Search by meaning").fill(OTHER_WORDS)
    page.keyboard.press("Enter")
    hits = page.locator("#results li")
    playwright.expect(hits.first).to_contain_text(NOTE)
    scores = [float(found) for found in re.findall(r"(0\.\d\d) similarity", page.locator("#results").text_content())]
    assert 1 <= len(scores) <= 3
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.3


def test_the_page_fits_a_phone_and_the_keyboard_reaches_everything(page):
    """Nothing is wider than a phone; tab goes from the search to the last button."""
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    reached = []
    for _ in range(16):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.name"))
    assert [name for name in ("q", "Search", "text", "Save note", "Embed now") if name not in reached] == []


def test_the_dashboard_is_mounted(page, request):
    """Behind a password, in Django behind the admin's login."""
    link = page.get_by_role("link", name="The queue's dashboard")
    if "django" in request.node.callspec.id:
        link.click()
        page.get_by_label("Username").fill("admin")
        page.get_by_label("Password").fill("correct horse")
        page.get_by_role("button", name="Log in").click()
        playwright.expect(page.locator("#state")).to_be_visible()
        return
    address = page.url.partition("#")[0].partition("?")[0] + "queue/"
    assert requests.get(address, timeout=PATIENCE_SECONDS).status_code == 401
    answer = requests.get(address, auth=("admin", "correct horse"), timeout=PATIENCE_SECONDS)
    assert answer.status_code == 200 and 'action="/queue/find"' in answer.text
    answer = requests.get(address + "static/dashboard.css", timeout=PATIENCE_SECONDS)
    assert answer.status_code == 200


def test_what_is_written_is_never_markup(page):
    """A note is text, wherever it is shown."""
    page.get_by_role("textbox", name="New note").fill("<b id=injected>bold</b> claims")
    page.get_by_role("button", name="Save note").click()
    playwright.expect(page.locator("#notes")).to_contain_text("<b id=injected>bold</b> claims")
    page.get_by_role("button", name="Embed now").click()
    page.get_by_role("searchbox").fill('"><b id=injected>')
    page.keyboard.press("Enter")
    page.locator("#results").wait_for()
    assert page.locator("#injected").count() == 0


def test_what_cannot_be_embedded_says_so(browser, provider):
    """A note that the provider refuses is dead and not waiting; a search that it refuses gives a sentence."""
    provider.rule = poison("bad", 400)
    env = {"EMBEDQUEUE_FLUSH_INTERVAL": "0", "EMBEDQUEUE_PROVIDER": "openai", "EMBEDQUEUE_DIMENSIONS": "16"}
    env |= {"EMBEDQUEUE_BASE_URL": provider.openai_url, "EMBEDQUEUE_API_KEY": "test-key"}
    with Running(["-m", "examples.flask_notes", "--port", "0"], env) as running:
        page = browser.new_page()
        page.goto(_address(running))
        for text, state in (("good", "Searchable"), ("bad", "Not searchable: it could not be embedded")):
            page.get_by_role("textbox", name="New note").fill(text)
            page.get_by_role("button", name="Save note").click()
            shown = page.locator("#notes li").first
            playwright.expect(shown).to_contain_text(text)
            playwright.expect(shown.locator(".state")).to_have_text(state, timeout=PATIENCE_SECONDS * 1000)
        playwright.expect(page.locator("[data-count=dead]")).to_have_text("1")
        page.get_by_role("searchbox").fill("bad question")
        page.keyboard.press("Enter")
        playwright.expect(page.get_by_role("alert")).to_contain_text("This could not be searched")
        page.close()
        running.send(signal.SIGTERM)
        assert running.ended() == 0
