"""The pages that the code cites are there, and say what the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import embedqueue

ROOT = Path(__file__).parents[2]
DESIGN = (ROOT / "docs" / "design.md").read_text("utf-8")
NAMES = DESIGN.partition("## 2. Public names")[2].partition("\n## 3.")[0]
FOLDERS = ("embedqueue", "tests", "examples", "benchmarks", "docs")
CITING = sorted(
    path
    for path in (*ROOT.glob("*.*"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*")))
    if path.suffix in (".py", ".lua", ".md", ".toml", ".cfg")
)


def test_every_public_name_stands_in_the_design():
    """The names of the package, and all that a queue has without an underscore."""
    queue = [name for name in vars(embedqueue.EmbeddingBatchQueue) if not name.startswith("_")]
    for name in (*embedqueue.__all__, *queue):
        assert re.search(rf"`(\w+\.)?{re.escape(name)}[`(]", NAMES), name


@pytest.mark.parametrize("folder", ["", *FOLDERS])
def test_every_cited_page_and_heading_is_there(folder):
    """Whoever has only this tree can follow each citation."""
    paths = [path for path in CITING if path.relative_to(ROOT).parts[:-1][:1] == ((folder,) if folder else ())]
    assert paths
    for path in paths:
        text = path.read_text("utf-8")
        for page, _, heading, _, section in re.findall(
            r'\b(docs/[\w/-]+\.md|[A-Z]{4,}\.md)\b(, "(([\w ]+))")?(?:,? \(?section (\d+))?', text
        ):
            if "NNNN" in page:  # any record
                continue
            cited = ROOT / page
            assert cited.exists(), f"{path}: {page}"
            for found in filter(None, (heading, f"{section}." if section else "")):
                assert f"\n## {found}" in cited.read_text("utf-8"), f"{path}: {page}, {found}"


def test_every_decision_has_a_number_of_its_own():
    """The name of a record and its heading have the same one, which no other has."""
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert len({path.name[:4] for path in records}) == len(records)
    for path in records:
        assert path.read_text("utf-8").startswith(f"# {int(path.name[:4])}. "), path.name
