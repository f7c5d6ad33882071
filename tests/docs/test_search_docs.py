"""The code of the page on searching runs, one block after another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from embedqueue.demo.localredis import LocalRedis, find_search_module, find_server
from embedqueue.testing import FakeEmbedder
from tests.parts import eventually

PAGE = Path(__file__).parents[2] / "docs" / "search.md"


@pytest.mark.skipif(None in (find_server(), find_search_module()), reason="no Redis with search: embedqueue[demo]")
def test_the_code_of_the_page_runs(monkeypatch, capsys):
    """On a Redis with search; the provider's embedder is a fake one."""
    monkeypatch.setattr("embedqueue.GeminiEmbedder", lambda: FakeEmbedder(3072))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert len(blocks) == 4
    with LocalRedis(search=True, appendonly=False) as server:
        names: dict[str, object] = {"client": server.client()}
        exec(blocks[0].replace("redis.Redis()", "client"), names)
        queue = names["queue"]
        try:
            queue.flush(10)
            search = blocks[0].rpartition("\n\n")[2]  # once more: now there is a vector
            eventually(lambda: (exec(search, names), capsys.readouterr().out)[1], "it is found")
            exec(search, names)
            assert re.fullmatch(r"0\.\d\d doc:1 The cat sleeps on the sofa\.\n", capsys.readouterr().out)
            for block in blocks[1:]:
                exec(block, names)
        finally:
            queue.stop()
    assert (names["e5"].role_of_documents("e5"), names["voyage"].dimensions) == ("passage: ", 1024)


def test_links_from_the_page_and_to_it():
    """Whoever reads about the queue finds the searches."""
    root = PAGE.parents[1]
    assert "docs/search.md" in (root / "README.md").read_text("utf-8")
    for other in re.findall(r"\]\(([\w.]+)\)", PAGE.read_text("utf-8")):
        assert (PAGE.parent / other).exists()
