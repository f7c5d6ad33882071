"""The README says what the code does."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import embedqueue
from embedqueue.values.options import Options

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_every_option_stands_in_the_table_with_its_default():
    """Options and their defaults are documented, all of them, and nothing that is none."""
    table = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", README, flags=re.MULTILINE))
    defaults = {field.name: field.default for field in fields(Options)}
    assert set(table) == set(defaults)
    for name, written in table.items():
        assert ast.literal_eval(written.strip().strip("`")) == defaults[name], name


def test_code_blocks_are_python_and_name_what_exists():
    """Whatever the README imports from embedqueue is there."""
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "embedqueue":
                assert all(hasattr(embedqueue, alias.name) for alias in node.names)


def test_files_that_the_readme_points_to_exist():
    """No dead pointers to tests, docs or decisions; and they are whole, for the package index shows them."""
    assert re.findall(r"\]\((?!https://)", README) == []
    links = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", README, re.MULTILINE))
    for url in [*links.values(), *re.findall(r"\]\((\S+)\)", README)]:
        assert (ROOT / re.fullmatch(r"https://\S+/main/(\S+)", url)[1]).exists(), url
    text = re.sub(r"```.*?```|`[^`]*`|^\[[^\]]+\]: \S+$", "", README, flags=re.DOTALL | re.MULTILINE)
    used = {label or name for name, label in re.findall(r"(?<!\])\[([^\[\]]+)\](?:\[([^\]]+)\]|(?!\())", text)}
    assert used == set(links)
    for path in re.findall(r"`((?:tests|docs|examples|benchmarks)/[\w./-]*)`", README):
        assert (ROOT / path).exists(), path


def test_the_make_targets_of_the_readme_exist():
    """The two commands are in the Makefile."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make ([\w-]+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
