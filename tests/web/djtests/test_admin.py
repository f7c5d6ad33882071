"""The admin's page: who may look, who may act, and what it says when something is wrong."""

from __future__ import annotations

import html
import re

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client, override_settings

from embedqueue.contrib.django import queue, queues
from embedqueue.contrib.django.testing import eager
from embedqueue.values.errors import InputRejected

PAGE = "/admin/embedqueue/queue/"


class Picky:
    """Refuses what is bad."""

    dimensions = 4

    def embed_batch(self, texts, model):
        """See Embedder."""
        if any("bad" in text for text in texts):
            raise InputRejected("refused <here>")
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


def test_dead_letters_are_put_back(dead_letters):
    """The chosen ones, or all."""
    client = _client()
    told = client.post(PAGE, {"queue": "default", "action": "retry", "key": ["note:2"]}, follow=True)
    assert "1 put back into the queue." in told.content.decode()
    told = client.post(PAGE, {"queue": "default", "action": "retry"}, follow=True)
    assert "No dead letter was chosen." in told.content.decode()
    told = client.post(PAGE, {"queue": "default", "action": "retry", "key": "x", "member": "not hex"}, follow=True)
    assert "No dead letter was chosen." in told.content.decode()
    told = client.post(PAGE, {"queue": "nothing", "action": "retry", "scope": "all"}, follow=True)
    assert "There is no queue" in told.content.decode()


@pytest.mark.parametrize(
    ("form", "count", "left"), [({"key": ["note:2"]}, 1, ["note:1"]), ({"scope": "all"}, 2, [])], ids=["chosen", "all"]
)
def test_discarding_asks_first(dead_letters, form, count, left):
    """A page says how many; only its button discards, and what was chosen goes along."""
    client = _client()
    asked = client.post(PAGE, {"queue": "default", "action": "discard", **form}).content.decode()
    assert f"{count} dead letter" in asked and len(queue.dead_letters()) == 2
    told = client.post(PAGE, {**_fields(asked), "sure": "1"}, follow=True)
    assert f"{count} discarded." in told.content.decode()
    assert [letter.redis_key for letter in queue.dead_letters()] == left


def test_a_member_that_is_not_ours_can_be_chosen(used):
    """It has no key: the form carries the member as it stands."""
    used.redis.zadd("embed_queue:pending", {b'\xff"<not ours>': 1.0})
    queue.start()
    queue.flush(5)
    client = _client()
    page = client.get(PAGE).content.decode()
    member = re.search(r'name="member" value="(\w+)"', page)
    assert member is not None and "(not ours)" in page
    form = {"queue": "default", "action": "discard", "sure": "1", "member": member.group(1)}
    assert "1 discarded." in client.post(PAGE, form, follow=True).content.decode()
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
    assert client.post(PAGE, {"queue": "default", "action": "discard", "scope": "all", "sure": "1"}).status_code == 403
    assert len(queue.dead_letters()) == 2
    assert Client().get(PAGE).status_code == 302
    User.objects.all().delete()
    assert _client("add_user").get(PAGE).status_code == 403


def test_acting_needs_the_csrf_token(dead_letters):
    """A form on another site cannot drop anything."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root"))
    assert client.post(PAGE, {"queue": "default", "action": "discard", "scope": "all", "sure": "1"}).status_code == 403
    assert len(queue.dead_letters()) == 2


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
