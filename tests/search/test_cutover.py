"""The change-over of an index's alias, on a Redis that searches, while somebody searches and writes."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("click", reason='the command line is in the extra "embedqueue[cli]"')

from click.testing import CliRunner

from embedqueue import EmbeddingBatchQueue
from embedqueue.cli import cli
from embedqueue.testing import FakeEmbedder
from tests.parts import PATIENCE_SECONDS, in_thread, join

COUNT = 40
WHAT = (
    "--match",
    "doc:*",
    "--text-field",
    "body",
    "--to-field",
    "v2",
    "--model",
    "new",
    "--embedder",
    f"{__name__}.New",
)


class Old(FakeEmbedder):
    def __init__(self) -> None:
        super().__init__(16)


class New(FakeEmbedder):
    def __init__(self) -> None:
        super().__init__(8)


@pytest.fixture
def run(searching, searching_redis, monkeypatch):
    monkeypatch.setenv("EMBEDQUEUE_REDIS_URL", searching_redis.url)
    monkeypatch.setenv("EMBEDQUEUE_EMBEDDER", f"{__name__}.Old")
    monkeypatch.setenv("EMBEDQUEUE_MODEL", "old")

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(cli, ["reembed", *WHAT, *arguments], prog_name="embedqueue")
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    return run


def test_searches_find_every_text_at_every_moment(run, searching):
    """From before the change until after the way back, and to the end: in an old process and in one that knows both."""
    old = EmbeddingBatchQueue(Old(), searching, model="old")
    second = EmbeddingBatchQueue(
        New(), searching, model="new", namespace="embed_queue:v2", embedding_field="v2", worker=False
    )
    both = EmbeddingBatchQueue(Old(), searching, model="old", worker=False, successor=second)
    texts = {f"doc:{i}": f"word{i} of a text" for i in range(COUNT)}
    for key, text in texts.items():
        searching.hset(key, mapping={"body": text, "lang": "en"})
    with old:
        old.create_index("docs-1", "doc:", fields={"lang": "TAG"})
        searching.execute_command("FT.ALIASADD", "docs", "docs-1")
        old.enqueue_many(texts.items())
        old.flush(PATIENCE_SECONDS)
        stop, searched, lost = threading.Event(), threading.Semaphore(0), []

        def search() -> None:
            while not stop.is_set():
                for key, text in list(texts.items())[:10]:
                    for queue in (old, both):
                        found = [hit.redis_key for hit in queue.search(text, 1, index="docs", filter="@lang:{en}")]
                        if found != [key]:
                            lost.append((queue, key, found))
                searched.release()

        searcher = in_thread(search)

        def a_while() -> None:
            for _ in range(3):
                assert searched.acquire(timeout=PATIENCE_SECONDS)

        run("--wait")
        a_while()
        assert "docs names docs-1:v2" in run("--cut-over", "--alias", "docs")
        assert both.search("word7 of a text", 1, index="docs", return_fields=[])[0].redis_key == "doc:7"
        assert len(both.embed_query("x")) == 8
        assert len(old.embed_query("x")) == 16
        a_while()
        run("--roll-back")
        assert len(both.embed_query("x")) == 16
        a_while()
        run("--cut-over", "--alias", "docs")
        a_while()
        stop.set()
        join(searcher)
        assert lost == []
        assert "is the name of the index itself" in run("--cut-over", "--alias", "docs-1", code=1)
    run("--finish", "--yes")
    assert searching.execute_command("FT._LIST") == [b"docs-1:v2"]
    assert both.search("word7 of a text", 1, index="docs")[0].redis_key == "doc:7"
    new = EmbeddingBatchQueue(New(), searching, model="new", embedding_field="v2")
    assert new.search("word8 of a text", 1, index="docs")[0].redis_key == "doc:8"
    for queue in (both, second, new):
        queue.stop()
