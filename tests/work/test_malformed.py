"""About a hundred answers that no client should trust: none of them writes, loses or buries anything."""

from __future__ import annotations

import pytest
import tenacity

from embedqueue import BatchFailed, ConfigurationError, OpenAIEmbedder
from tests.inside import FIRST_PAUSE_SECONDS
from tests.parts import ONE_TRY, PATIENCE_SECONDS, GatedEmbedder, eventually, expected, stored
from tests.proof.torture.answers import ACCOUNT, REFUSALS, TRANSIENT, malformed, redirects
from tests.provider import Provider

DIMENSIONS = 16
TEXTS = {f"doc:{i}": f"text {i}" for i in range(3)}
MALFORMED = malformed(len(TEXTS), DIMENSIONS)


@pytest.fixture
def queue(redis_client, provider, make_queue):
    """A queue that tries thrice at once; an answer may have a megabyte."""
    embedder = OpenAIEmbedder(
        "test-key", provider.openai_url, dimensions=DIMENSIONS, timeout=(1, 1), max_response_bytes=1 << 20
    )
    retry = tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())
    return make_queue(redis_client, embedder=embedder, retry=retry, model="any")


def _serve_all(queue, client):
    """All texts, with one call to start with; returns what the futures said before anything was tried again."""
    futures = queue.enqueue_many(TEXTS.items())
    errors = [future.exception(PATIENCE_SECONDS) for future in futures]
    if any(errors):  # the provider paused the queue, which an operator may end
        client.delete("embed_queue:pause")
        client.xadd("embed_queue:events", {"kind": "wake", "by": "", "body": ""})
        queue.flush(PATIENCE_SECONDS)
    for redis_key, text in TEXTS.items():
        assert client.hget(redis_key, "embedding") == stored(text, DIMENSIONS)
    for error, future, text in zip(errors, futures, TEXTS.values(), strict=True):
        assert isinstance(error, BatchFailed) or future.result() == expected(text, DIMENSIONS)
    assert queue.dead_letters() == []
    return errors


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_answer_is_made_up_for_by_the_next(queue, redis_client, provider, answer):
    """Nobody waits longer than for another try; no vector of it is written; no text is a dead letter for it."""
    provider.script(answer)
    assert _serve_all(queue, redis_client) == [None] * len(TEXTS)
    assert set(provider.sent.values()) <= {2, 3}


@pytest.mark.parametrize("name", redirects("http://127.0.0.1:9"))
def test_a_redirect_is_followed_by_nobody(queue, redis_client, provider, name):
    """The key never goes to another host: waiters learn of it, the items stay."""
    with Provider() as elsewhere:
        provider.script(redirects(elsewhere.openai_url + "/embeddings")[name])
        errors = _serve_all(queue, redis_client)
        assert all(isinstance(error, BatchFailed) for error in errors)
        assert elsewhere.calls == []


@pytest.mark.parametrize("name", [*TRANSIENT, *REFUSALS, *ACCOUNT])
def test_no_status_loses_or_buries_what_works_a_moment_later(queue, redis_client, provider, name):
    """Each status of the failure table, once: tried again, halved or paused, and everything is embedded in the end."""
    provider.script((TRANSIENT | REFUSALS | ACCOUNT)[name])
    errors = _serve_all(queue, redis_client)
    assert all(errors) if name in ACCOUNT else not any(errors)


def test_a_wrong_length_is_looked_for_with_one_text_a_time(redis_client, make_queue, monkeypatch):
    """The provider is paid for each. Once it is right, calls are whole again."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)

    class Wide:
        """Promises another length than that of its vectors."""

        dimensions = 8

        def __init__(self) -> None:
            self.sizes: list[int] = []

        def embed_batch(self, texts, model):
            self.sizes.append(len(texts))
            return [expected(text, DIMENSIONS) for text in texts]

    def wake() -> None:
        redis_client.delete("embed_queue:pause")
        redis_client.xadd("embed_queue:events", {"kind": "wake", "by": "", "body": ""})

    embedder = Wide()
    queue = make_queue(start=False, embedder=embedder, retry=ONE_TRY)
    queue.enqueue_many([(f"doc:{i}", f"text {i}") for i in range(20)])
    queue.start()
    eventually(lambda: (queue.stats().pause_reason or "").endswith("or another model"), "paused")
    assert embedder.sizes[0] == 20
    before = len(embedder.sizes)
    wake()
    eventually(lambda: redis_client.get("embed_queue:pause:level") == b"2", "tested, and paused again")
    assert set(embedder.sizes[before:]) == {1}
    embedder.dimensions = DIMENSIONS  # which nothing that was kept speaks against: no vector is written yet
    wake()
    queue.flush(PATIENCE_SECONDS)
    assert max(embedder.sizes[-3:]) >= 18


class NoSuchModel(GatedEmbedder):
    """Knows one model, which has a typing error in the first settings."""

    def embed_batch(self, texts, model):
        if model != "right":
            raise ConfigurationError(f"there is no model {model!r}")
        return super().embed_batch(texts, model)


@pytest.mark.parametrize("wrong", [{"model": "wrong"}, {"vector_type": "float16"}, {"embedding_field": "other"}])
def test_settings_with_which_no_vector_was_ever_written_bind_nobody(redis_client, make_queue, wrong):
    """The next process, with the right ones, embeds what the first has left."""
    first = make_queue(embedder=NoSuchModel(), retry=ONE_TRY, **{"model": "mistyped", **wrong})
    with pytest.raises(BatchFailed, match="no model"):
        first.enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    first.stop()
    redis_client.delete("embed_queue:pause")
    second = make_queue(embedder=NoSuchModel(), model="right")
    assert second.enqueue("doc:2", "more").result(PATIENCE_SECONDS) == expected("more")
    second.flush(PATIENCE_SECONDS)
    assert redis_client.hget("doc:1", "embedding") == stored("text")


def test_of_two_who_differ_whoever_writes_first_decides(redis_client, make_queue):
    """What the other has in hand then is not written, and stays for those who agree."""
    slow, fast = GatedEmbedder(), GatedEmbedder()
    slow.hold()
    late = make_queue(embedder=slow, model="late", flush_interval=0.0)
    held = late.enqueue("doc:1", "text")
    slow.wait_for_calls(1)
    make_queue(embedder=fast, model="first").enqueue("doc:2", "more").result(PATIENCE_SECONDS)
    slow.release()
    with pytest.raises(BatchFailed, match="another"):
        held.result(PATIENCE_SECONDS)
    make_queue(worker=False, model="first").flush(PATIENCE_SECONDS)
    assert redis_client.hget("doc:1", "embedding_of").startswith(b"first/")
