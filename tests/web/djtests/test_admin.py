"""The admin's page: who may look, who may act, and what it says when something is wrong."""

from __future__ import annotations

import html
import re
import time
from urllib.parse import unquote

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client, override_settings

from embedqueue.contrib.django import queue, queues
from embedqueue.contrib.django.testing import eager
from embedqueue.operating.shown import form_id
from embedqueue.values.errors import InputRejected

PAGE = "/admin/embedqueue/queue/"


class Picky:
    """Refuses what is bad."""

    dimensions = 4

    def embed_batch(self, texts, model):
        """See Embedder."""
        if any("bad" in text for text in texts):
            raise InputRejected("refused <here>" if "bad too" in texts else f"refused <here>: {texts[0]}")
        return [[1.0, 0.0, 0.0, 0.0] for _ in texts]


@pytest.fixture
def dead_letters():
    """A good item and two dead ones."""
    with eager(Picky()) as found:
        queue.enqueue("note:0", "good")
        queue.enqueue("note:1", "bad <script>alert(1)</script>")
        queue.enqueue("note:2", "bad too")
        yield found


def _client(*permissions: str) -> Client:
    user = User.objects.create_user("u", is_staff=True, is_superuser=not permissions)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def test_the_page_shows_the_queue_and_its_dead_letters(dead_letters):
    """Numbers, reasons and texts, escaped."""
    page = _client().get(PAGE).content.decode()
    assert "<strong>2</strong> dead" in page
    assert "<strong>0</strong> workers" in page and "No worker is running." in page
    assert "note:1" in page and "refused &lt;here&gt;" in page
    assert "&lt;script&gt;alert" in page and "<script>alert" not in page


def _fields(page: str) -> dict[str, list[str]]:
    """What a browser would send of a page's form."""
    found: dict[str, list[str]] = {}
    form = page.split('id="content-main"')[1]
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form):
        found.setdefault(name, []).append(html.unescape(value))
    return found


def _press(client: Client, **form) -> str:
    """Press a button, and "yes" on the page that asks; what that page says, and the one behind it."""
    asked = client.post(PAGE, {"queue": "default", **form}).content.decode()
    return asked + client.post(PAGE, {**_fields(asked), "sure": "1"}, follow=True).content.decode()


def test_what_makes_no_sense_does_nothing(dead_letters):
    """And the page says so."""
    client = _client()
    for form, said in (
        ({"action": "retry"}, "No dead letter was chosen."),
        ({"action": "retry", "id": ["x", "k!", "d12"]}, "No dead letter was chosen."),
        ({"action": "explode", "scope": "all"}, "The form does not say what to do."),
        ({"queue": "nothing", "action": "retry", "scope": "all"}, "There is no queue"),
    ):
        told = client.post(PAGE, {"queue": "default", "sure": "1", **form}, follow=True)
        assert said in told.content.decode()
    assert len(queue.dead_letters()) == 2


@pytest.mark.parametrize("action", ["retry", "discard"])
@pytest.mark.parametrize(
    ("form", "count", "left"),
    [({"id": [form_id("note:2")]}, 1, ["note:1"]), ({"scope": "all"}, 2, [])],
    ids=["chosen", "all"],
)
def test_acting_asks_first(dead_letters, action, form, count, left):
    """A page says how many, and what a retry costs; only its button acts, and what was chosen goes along."""
    client = _client()
    asked = client.post(PAGE, {"queue": "default", "action": action, **form}).content.decode()
    assert f"{count} dead letter" in asked and len(queue.dead_letters()) == 2
    assert (f"That sends {count} texts of about" in asked) == (action == "retry")
    told = client.post(PAGE, {**_fields(asked), "sure": "1"}, follow=True).content.decode()
    assert (f"{count} put back into the queue." if action == "retry" else f"{count} discarded.") in told
    if action == "discard":  # put back, they are refused once more
        assert [letter.redis_key for letter in queue.dead_letters()] == left


def test_letters_by_reason(dead_letters):
    """A link shows those of one reason, and all of them can be chosen at once."""
    client = _client()
    page = client.get(PAGE).content.decode()
    [reason] = [one for one in re.findall(r"reason=(\w{32})", page) if "note:1" not in _listed(client, reason=one)]
    page = client.get(PAGE, {"reason": reason}).content.decode()
    assert "all with this reason" in page
    assert "1 discarded." in _press(client, action="discard", scope="reason", reason_id=reason)
    assert [letter.redis_key for letter in queue.dead_letters()] == ["note:1"]


def _listed(client: Client, **asked) -> list[str]:
    page = client.get(PAGE, asked).content.decode()
    return re.findall(r'class="eq-key">(?:<a [^>]*>)?([^<]+)', page)


def test_letters_have_pages():
    """25 each; "Older" goes on behind the last one that was seen."""
    with eager(Picky()):
        queue.enqueue("note:good", "good")
        queue.enqueue_many((f"note:{at}", f"bad {at}") for at in range(60))
        client = _client()
        first = _listed(client)
        assert len(first) == 25 and _listed(client, page="3") == _listed(client, page="99")
        older = re.search(r"older=([^&\"]+)", client.get(PAGE).content.decode()).group(1)
        queue.discard_dead(first[:3])
        assert _listed(client, older=unquote(older))[0] not in first
        assert len({*first, *_listed(client, older=unquote(older))}) == 50


@pytest.mark.parametrize("name", ["page", "older", "reason", "key", "queue"])
@pytest.mark.parametrize("value", ["x", "-1", "0", "1" * 400, "²", "\0", "<script>", "a" * 9000, "~~"])
def test_wrong_parameters(dead_letters, name, value):
    """Refused, or they do not matter; never a fault."""
    answer = _client().get(PAGE, {name: value})
    assert answer.status_code in (200, 400)
    assert "<script>" + "<" not in answer.content.decode()


def test_one_key_is_explained(dead_letters):
    """With the whole reason of a dead letter, as far as it may be seen."""
    page = _client("view_queue").get(PAGE, {"key": "note:1"}).content.decode()
    assert '<th scope="row">state</th><td>dead</td>' in page
    assert "refused &lt;here&gt;: […]" in page
    assert "written" in _client_again("view_queue").get(PAGE, {"key": "note:0"}).content.decode()


def _client_again(*permissions: str) -> Client:
    User.objects.all().delete()
    return _client(*permissions)


def test_texts_need_a_permission_of_their_own(dead_letters):
    """Else neither they nor what a reason quotes of them is shown."""
    hidden = _client("view_queue").get(PAGE).content.decode()
    assert "alert(1)" not in hidden and "refused &lt;here&gt;" in hidden and "bad too" not in hidden
    shown = _client_again("view_queue", "view_text").get(PAGE).content.decode()
    assert "alert(1)" in shown and "<script>alert" not in shown and "bad too" in shown


def test_pause_and_resume(dead_letters):
    """Each asks first; the pause has a reason and an end, which everybody is told."""
    client = _client()
    asked = client.post(PAGE, {"queue": "default", "action": "pause"}).content.decode()
    assert "Nobody claims anything" in asked and queue.stats().paused_until is None
    form = {**_fields(asked), "sure": "1", "seconds": "300", "reason": "moving <b>"}
    page = client.post(PAGE, form, follow=True).content.decode()
    assert "Paused: nothing is claimed any more." in page and "moving &lt;b&gt;" in page
    assert 290 < queue.stats().paused_until - time.time() <= 301
    assert client.post(PAGE, {**form, "seconds": "7"}).status_code == 400
    assert client.post(PAGE, {**form, "reason": "x" * 201}).status_code == 400
    assert "The pause is over." in _press(client, action="resume")
    assert queue.stats().paused_until is None


def test_a_member_that_is_not_ours_can_be_chosen(used):
    """It has no key: the form carries a digest of the member."""
    used.redis.zadd("embed_queue:pending", {b'\xff"<not ours>': 1.0})
    queue.start()
    queue.flush(5)
    client = _client()
    page = client.get(PAGE).content.decode()
    member = re.search(r'name="id" value="(\w+)"', page)
    assert member is not None and "(not ours)" in page
    assert "1 discarded." in _press(client, action="discard", id=member.group(1))
    assert queue.dead_letters() == []


def test_looking_starts_nothing_and_needs_no_key(real_settings):
    """An admin's process that enqueues nothing has no worker, and one connection however often somebody looks."""
    from django.conf import settings

    with override_settings(EMBEDQUEUE={**settings.EMBEDQUEUE, "API_KEY": ""}):
        client, first = _client(), queues.look()
        for _ in range(3):
            assert client.get(PAGE).status_code == 200
        assert queues.made() is None and queues.look() is first


def test_links_to_single_rows_lead_back(dead_letters):
    """There are no rows: whoever edits the address gets the index of the admin and not a fault."""
    client = _client()
    for path in ("1/change/", "1/history/", "1/"):
        assert client.get(PAGE + path, follow=True).redirect_chain[-1][0] == "/admin/"
    assert [client.get(PAGE + path).status_code for path in ("add/", "1/delete/")] == [403, 403]


def test_looking_and_acting_are_permissions(dead_letters):
    """Who may only view gets no buttons and cannot act; strangers get nothing."""
    client = _client("view_queue")
    page = client.get(PAGE).content.decode()
    assert "note:1" in page and "Discard" not in page
    for action in ("discard", "retry", "pause", "resume"):
        form = {"queue": "default", "action": action, "scope": "all", "sure": "1"}
        assert client.post(PAGE, form).status_code == 403
    assert (len(queue.dead_letters()), queue.stats().paused_until) == (2, None)
    assert Client().get(PAGE).status_code == 302
    User.objects.all().delete()
    assert _client("add_user").get(PAGE).status_code == 403


def test_acting_needs_the_csrf_token(dead_letters):
    """A form on another site cannot drop anything."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root"))
    for action in ("discard", "pause"):
        form = {"queue": "default", "action": action, "scope": "all", "sure": "1"}
        assert client.post(PAGE, form).status_code == 403
    assert (len(queue.dead_letters()), queue.stats().paused_until) == (2, None)


def test_the_page_says_when_redis_is_gone(tmp_path):
    """The admin does not break with the queue."""
    with override_settings(EMBEDQUEUE={"REDIS_URL": f"unix://{tmp_path}/no", "PROVIDER": "local"}):
        page = _client().get(PAGE)
    assert page.status_code == 200
    assert "start it, or set EMBEDQUEUE[&quot;REDIS_URL&quot;]." in page.content.decode()
    with override_settings(EMBEDQUEUE={"REDIS_URLL": "x"}):
        User.objects.all().delete()
        assert "did you mean" in _client().get(PAGE).content.decode()


def test_the_index_of_the_admin_leads_to_the_page(dead_letters):
    """And models have no table of ours: makemigrations finds nothing to do."""
    assert PAGE in _client().get("/admin/").content.decode()
    call_command("makemigrations", "embedqueue", check=True, dry_run=True, verbosity=0)
