"""The change-over of an index's alias, on a Redis that searches, while somebody searches and writes."""

from __future__ import annotations

import threading

import pytest
import redis

pytest.importorskip("click", reason='the command line is in the extra "embedqueue[cli]"')

from click.testing import CliRunner

from embedqueue import EmbeddingBatchQueue
from embedqueue.cli import cli
from embedqueue.search.aliases import Aliases
from embedqueue.store.change import Change
from embedqueue.testing import FakeEmbedder
from tests.parts import PATIENCE_SECONDS, in_thread, join

COUNT = 40
#: In a schema, before the length.
VECTOR = "VECTOR FLAT 6 TYPE FLOAT32 DISTANCE_METRIC COSINE DIM"
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
        with pytest.MonkeyPatch.context() as patched:
            find, errors = old._engine.search.find, [redis.ResponseError("of the other index")]
            patched.setattr(old._engine.search, "find", lambda *a: raise_(errors.pop()) if errors else find(*a))
            assert old.search("word7 of a text", 1, index="docs")[0].redis_key == "doc:7", "asked before the way back"
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


def raise_(error):
    raise error


@pytest.fixture
def old(searching):
    """A queue of the first field, in a process that knows no other, and two kinds of hashes, each with its index."""
    texts = {"doc:1": "a text", "doc:2": "another text", "note:1": "a note"}
    for key, text in texts.items():
        searching.hset(key, mapping={"body": text, "lang": "en"})
    with EmbeddingBatchQueue(Old(), searching, model="old") as old:
        for kind in ("doc", "note"):
            old.create_index(f"{kind}s-1", f"{kind}:", fields={"lang": "TAG"})
            searching.execute_command("FT.ALIASADD", f"{kind}s", f"{kind}s-1")
        old.enqueue_many(texts.items())
        old.flush(PATIENCE_SECONDS)
        yield old


def create(client, name: str, schema: str, only: str = "") -> None:
    """An index of one's own over documents, of those that satisfy an expression alone."""
    words = ["FILTER", only] if only else []
    client.execute_command("FT.CREATE", name, "ON", "HASH", "PREFIX", 1, "doc:", *words, "SCHEMA", *schema.split())


def replace_first(client, schema: str, only: str = "") -> None:
    """Another index in the place of the one by which documents are searched."""
    client.execute_command("FT.DROPINDEX", "docs-1")
    create(client, "docs-1", schema, only)
    client.execute_command("FT.ALIASADD", "docs", "docs-1")


def dies(*_: object) -> None:
    """The process is killed here; or Redis goes away, which leaves as much behind."""
    raise redis.ConnectionError("away")


@pytest.fixture
def named_by(searching_redis):
    """Which index an alias names."""
    client = searching_redis.client(protocol=2)
    yield Aliases(client).named_by
    client.close()


CUT_OVER = ("--cut-over", "--alias", "docs")


@pytest.mark.parametrize("then", [CUT_OVER, ("--finish", "--yes")], ids=lambda then: then[0])
@pytest.mark.parametrize("killed", ["on the way", "on the way back"])
def test_the_alias_of_a_cut_over_that_was_killed_is_led_by_the_next_command(
    run, searching, named_by, old, monkeypatch, killed, then
):
    """Between what is read and the alias: else --finish would drop the alias, with the index that it still names."""
    run("--wait")
    if killed == "on the way":
        with monkeypatch.context() as patch:
            patch.setattr(Aliases, "lead", dies)
            run(*CUT_OVER, code=1)
    else:
        run(*CUT_OVER)
        with monkeypatch.context() as patch:
            patch.setattr(Change, "read_from", dies)
            run("--roll-back", code=1)
    assert named_by("docs") == "docs-1"
    run(*then)
    assert named_by("docs") == "docs-1:v2"
    second = EmbeddingBatchQueue(New(), searching, model="new", embedding_field="v2", worker=False)
    assert second.search("a text", 1, index="docs")[0].redis_key == "doc:1"
    second.stop()


def test_an_alias_that_was_led_elsewhere_stays_there(run, searching, named_by, old):
    """To an index of one's own over the second field, after the change-over."""
    run("--wait")
    run(*CUT_OVER)
    with EmbeddingBatchQueue(New(), searching, model="new", embedding_field="v2", worker=False) as new:
        new.create_index("mine", "doc:")
    searching.execute_command("FT.ALIASUPDATE", "docs", "mine")
    searching.execute_command("FT.DROPINDEX", "docs-1:v2")
    run("--finish", "--yes")
    assert named_by("docs") == "mine"


def test_two_indexes_over_one_field(run, searching, named_by, old):
    """Each alias is led to an index of its own hashes; both are led back, and both old indexes go in the end."""
    everything = ("--match", "*")
    run("--wait", *everything)
    for alias in ("docs", "notes"):
        assert f"{alias} names {alias}-1:v2" in run("--cut-over", "--alias", alias, *everything)
        assert "is read already" in run("--cut-over", "--alias", alias, *everything)
    second = EmbeddingBatchQueue(New(), searching, model="new", namespace="embed_queue:v2", embedding_field="v2")
    both = EmbeddingBatchQueue(Old(), searching, model="old", worker=False, successor=second)
    for queue in (old, both):
        assert {hit.redis_key for hit in queue.search("a text", 5, index="docs")} == {"doc:1", "doc:2"}
        assert [hit.redis_key for hit in queue.search("a text", 5, index="notes")] == ["note:1"]
    run("--roll-back", *everything)
    assert [named_by(alias) for alias in ("docs", "notes")] == ["docs-1", "notes-1"]
    for alias in ("docs", "notes"):
        run("--cut-over", "--alias", alias, *everything)
    both.stop()
    second.stop()
    run("--finish", "--yes", *everything)
    assert sorted(searching.execute_command("FT._LIST")) == [b"docs-1:v2", b"notes-1:v2"]
    assert [named_by(alias) for alias in ("docs", "notes")] == ["docs-1:v2", "notes-1:v2"]


def test_an_index_that_lacks_a_field_to_filter_by_is_not_taken(run, searching, old):
    """One of one's own that has it is."""
    run("--wait")
    with EmbeddingBatchQueue(New(), searching, model="new", embedding_field="v2", worker=False) as new:
        new.create_index("plain", "doc:")
        assert "docs names docs-1:v2" in run(*CUT_OVER)
        run("--roll-back")
        searching.execute_command("FT.DROPINDEX", "docs-1:v2")
        new.create_index("mine", "doc:", fields={"lang": "TAG", "body": "TEXT"})
        assert "docs names mine" in run(*CUT_OVER)


def test_an_index_over_both_fields_serves_both(run, searching, named_by, old):
    """It is not dropped in the end, and the alias with it."""
    run("--wait")
    replace_first(searching, f"embedding {VECTOR} 16 v2 {VECTOR} 8")
    assert "docs names docs-1." in run(*CUT_OVER)
    run("--finish", "--yes")
    assert named_by("docs") == "docs-1"


def test_the_new_index_holds_the_same_hashes_under_the_same_names(run, searching, old):
    """Not those that the old one leaves out; one over vectors of another length is not taken for it."""
    searching.hset("doc:3", mapping={"body": "a third text", "lang": "de"})
    old.enqueue("doc:3", "a third text").result(PATIENCE_SECONDS)
    run("--wait")
    only = '@language=="en"'
    replace_first(searching, f"embedding {VECTOR} 16 lang AS language TAG", only)
    create(searching, "other", f"v2 {VECTOR} 4 lang AS language TAG", only)
    assert "docs names docs-1:v2" in run(*CUT_OVER)
    with EmbeddingBatchQueue(New(), searching, model="new", embedding_field="v2", worker=False) as new:
        found = [new.search("a third text", 10, index="docs", filter=f"@language:{{{one}}}") for one in ("en", "de")]
    assert [sorted(hit.redis_key for hit in hits) for hits in found] == [["doc:1", "doc:2"], []]


def test_an_index_over_vectors_of_a_third_field_is_not_made_anew_by_guesses(run, searching, old):
    """Nothing has changed; one of one's own is taken."""
    run("--wait")
    replace_first(searching, f"embedding {VECTOR} 16 third {VECTOR} 4")
    assert "vectors of 'third' as well" in run(*CUT_OVER, code=1)
    assert len(old.embed_query("x")) == 16
    create(searching, "mine", f"v2 {VECTOR} 8 third {VECTOR} 4")
    assert "docs names mine" in run(*CUT_OVER)


def test_an_index_of_an_earlier_try_with_other_names_is_not_taken_silently(run, searching, old):
    """It would not find by the names that are asked for."""
    run("--wait")
    replace_first(searching, f"embedding {VECTOR} 16 lang AS language TAG")
    with EmbeddingBatchQueue(New(), searching, model="new", embedding_field="v2", worker=False) as new:
        new.create_index("docs-1:v2", "doc:", algorithm="flat", fields={"lang": "TAG"})
    assert "drop it (FT.DROPINDEX docs-1:v2)" in run(*CUT_OVER, code=1)
    searching.execute_command("FT.DROPINDEX", "docs-1:v2")
    assert "docs names docs-1:v2" in run(*CUT_OVER)


def test_a_filter_by_the_field_that_goes_is_not_copied(run, searching, old):
    """At the end, no hash would be in the new index. One of one's own is taken whose filter is by the new field."""
    run("--wait")
    replace_first(searching, f"embedding {VECTOR} 16 lang TAG", "exists(@embedding)")
    create(searching, "german", f"v2 {VECTOR} 8 lang TAG", '@lang=="de"')
    create(searching, "both", f"v2 {VECTOR} 8 embedding {VECTOR} 16 lang TAG", "exists(@embedding)")
    assert "which goes at --finish" in run(*CUT_OVER, code=1)
    create(searching, "mine", f"v2 {VECTOR} 8 lang TAG", 'startswith(@v2_of, "new/")')
    assert "docs names mine" in run(*CUT_OVER)
    run("--finish", "--yes")
    with EmbeddingBatchQueue(New(), searching, model="new", embedding_field="v2", worker=False) as new:
        assert sorted(hit.redis_key for hit in new.search("a text", 10, index="docs")) == ["doc:1", "doc:2"]
