"""The pages for operators: what they point to is there, and what they show works."""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from embedqueue.operating.run import DEFAULT_GRACE_SECONDS

DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_lead_somewhere(page):
    """Every file that a page links to is there."""
    text = (DOCS / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)[)#]", text):
        assert (DOCS / target).exists(), target


def worker_lines() -> list[tuple[str, list[str]]]:
    """The worker's command in each recipe, in words."""
    found = [
        ("deploy.md", line) for line in re.findall(r"^command=\S*/(embedqueue .*)$", _read("deploy.md"), re.MULTILINE)
    ]
    found += [
        ("systemd", line)
        for line in re.findall(r"^ExecStart=\S*/(embedqueue .*)$", _read("deploy/embedqueue.service"), re.M)
    ]
    found += [("compose", line) for line in re.findall(r'exec (embedqueue [^"]*)"', _read("deploy/compose.yaml"))]
    words = re.search(r'command: \["embedqueue", (.*)\]', _read("deploy/kubernetes.yaml")).group(1)
    found.append(("kubernetes", "embedqueue " + words.replace('"', "").replace(",", "")))
    return [(name, shlex.split(line)[1:]) for name, line in found]


def _read(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def test_the_workers_of_the_recipes_start_with_options_that_there_are():
    """systemd, compose, Kubernetes, supervisor."""
    pytest.importorskip("click", reason='the command line is in the extra "embedqueue[cli]"')
    from tests.docs.test_command_line import check

    lines = worker_lines()
    assert len(lines) == 4
    for name, words in lines:
        assert check(words) == ("worker",), name


def test_supervisors_wait_longer_than_a_worker_may_take():
    """Else they kill what would have ended by itself."""
    waits = re.findall(
        r"(?:TimeoutStopSec=|stop_grace_period: |terminationGracePeriodSeconds: |stopwaitsecs=)(\d+)",
        "".join(
            map(_read, ("deploy/embedqueue.service", "deploy/compose.yaml", "deploy/kubernetes.yaml", "deploy.md"))
        ),
    )
    assert len(waits) == 4
    assert all(int(seconds) > DEFAULT_GRACE_SECONDS for seconds in waits)


def test_the_picture_is_for_everybody():
    """It has words for those who cannot see it, and colours for dark and light."""
    picture = ElementTree.parse(DOCS / "how-it-works.svg").getroot()
    assert picture.find(f"{SVG}title").text and len(picture.find(f"{SVG}desc").text) > 100
    style = picture.find(f"{SVG}style").text
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    classes = {word for element in picture.iter() for word in element.get("class", "").split()}
    for name in classes:
        assert re.search(rf"\.{name}\b", light), name
        assert re.search(rf"\.{name}\b", dark), name


@pytest.mark.parametrize("page, heading", [("how-it-works.md", "## Keys in Redis"), ("design.md", "## 3. What stands")])
def test_the_pages_name_every_key(page, heading):
    """None is a secret."""
    from embedqueue.store.keys import Keys

    table = _read(page).partition(heading)[2].partition("\n## ")[0]
    named = {name.split(":DIGEST")[0] for name in re.findall(r"`(embed_queue:[a-z:]+)", table)}
    there = {value for value in vars(Keys("embed_queue")).values() if isinstance(value, str)} - {"embed_queue"}
    for name in there:
        assert any(each == name or (name.endswith(":") and each.startswith(name)) for each in named), name
