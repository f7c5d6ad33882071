"""The FastAPI application over real HTTP: how many handlers wait, what they answer, and how it ends."""

from __future__ import annotations

import signal
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest
import requests

for _name in ("fastapi", "uvicorn", "a2wsgi"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: make setup")
pytest.importorskip("flask", reason="Flask is not installed: make setup")

from tests.parts import eventually  # noqa: E402
from tests.provider import poison  # noqa: E402
from tests.web.servers import PATIENCE_SECONDS, Running  # noqa: E402

COMMAND = ["-m", "examples.fastapi_notes", "--port", "0"]
#: Handlers that may wait at a time in these tests.
MOST = 3


@pytest.fixture
def site(env, provider):
    """The application, in a process of its own; calls to the provider are answered when the test says so."""
    more = {"NOTES_MAX_WAITING": str(MOST), "NOTES_PATIENCE_SECONDS": "20", "NOTES_PASSWORD": "x"}
    with Running(COMMAND, env | more) as running:
        running.url = running.wait_for(r"running on (http://[\d.:]+)").group(1)
        yield running
        provider.release()


def save(site: Running, text: str) -> requests.Response:
    return requests.post(f"{site.url}/api/notes", json={"text": text}, timeout=PATIENCE_SECONDS)


def test_a_handler_answers_when_the_vector_is_there(site, redis_client, provider):
    """And in words what cannot be: a text that is refused, one that is blank, and a body that is none."""
    answer = save(site, "hello")
    assert (answer.status_code, answer.json()["searchable"]) == (201, True)
    assert redis_client.hexists(answer.json()["key"], "embedding")
    provider.rule = poison("bad", 400)
    answer = save(site, "a bad text")
    assert answer.status_code == 422 and "cannot be embedded" in answer.text
    assert save(site, "  ").status_code == 422
    assert save(site, "x" * 5000).status_code == 422
    assert requests.post(f"{site.url}/api/notes", data=b"{", timeout=PATIENCE_SECONDS).status_code == 422


def test_so_many_wait_and_the_others_are_answered_at_once(site, redis_client, provider):
    """All of them are durable; those that wait get their answer when the provider has one, and share calls."""
    provider.hold()
    with ThreadPoolExecutor(MOST + 1) as pool:
        waiting = [pool.submit(save, site, f"text {at}") for at in range(MOST + 1)]
        (first,), others = wait(waiting, PATIENCE_SECONDS, FIRST_COMPLETED)
        assert first.result().status_code == 202, "nobody else waits"
        eventually(lambda: redis_client.hlen("embed_queue:latest") == MOST + 1, "all of them are there")
        assert save(site, "one more").status_code == 202
        assert not any(one.done() for one in others)
        provider.release()
        assert [one.result(PATIENCE_SECONDS).status_code for one in others] == [201] * MOST
    assert save(site, "and again").status_code == 201, "their places are free again"
    eventually(lambda: redis_client.hlen("embed_queue:latest") == 0, "nothing is lost", seconds=PATIENCE_SECONDS)


def test_the_end_is_not_held_up_by_those_who_wait(site, redis_client, provider):
    """They are answered at once; their items go back, and whoever starts next embeds them."""
    assert save(site, "first").status_code == 201  # it is known from now on that calls take no time
    provider.hold()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(save, site, f"text {at}") for at in range(2)]
        assert provider.wait_for_calls(2, PATIENCE_SECONDS)
        eventually(lambda: redis_client.hlen("embed_queue:latest") == 2, "both wait")
        began = time.monotonic()
        site.send(signal.SIGTERM)
        answers = [one.result(PATIENCE_SECONDS) for one in waiting]
        assert [(one.status_code, one.json()["searchable"]) for one in answers] == [(202, False)] * 2
        assert time.monotonic() - began < 15, "their own patience is 20 s"
    assert site.ended() in (0, -signal.SIGTERM)
    assert "Traceback" not in site.output
    assert redis_client.zcard("embed_queue:inflight") == 0
    assert redis_client.zcard("embed_queue:pending") == 2
