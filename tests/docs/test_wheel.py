"""What is released is all that is needed: a wheel, and a source distribution, as built from this tree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import embedqueue
from tests.parts import PROGRAM_SECONDS

ROOT = Path(__file__).parents[2]
LOAD = """
import sys; sys.path.insert(0, sys.argv[1])
import embedqueue.store.scripts
assert embedqueue.__file__.startswith(sys.argv[1]), embedqueue.__file__
for name in embedqueue.store.scripts.SCRIPTS: embedqueue.store.scripts.script_text(name)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The files of a wheel that was built from a copy of this tree."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "embedqueue", source / "embedqueue", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(out), str(source)]
    subprocess.run(command, check=True, timeout=PROGRAM_SECONDS, capture_output=True)
    with zipfile.ZipFile(next(out.glob("embedqueue-*.whl"))) as wheel:
        wheel.extractall(out / "installed")
    return out / "installed"


def test_the_wheel_holds_every_file(installed):
    """Scripts, templates and the type marker come along, not only Python."""
    ours = {path for path in (ROOT / "embedqueue").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    there = {path.relative_to(installed) for path in (installed / "embedqueue").rglob("*") if path.is_file()}
    assert {path.relative_to(ROOT) for path in ours} - there == set()


def test_the_version_is_that_of_the_package(installed):
    """It is written down once; ``embedqueue.__version__`` needs no installed metadata."""
    (metadata,) = installed.glob("embedqueue-*.dist-info/METADATA")
    assert f"\nVersion: {embedqueue.__version__}\n" in metadata.read_text("utf-8")


def test_the_wheel_works(installed):
    """It is imported, and finds its scripts."""
    subprocess.run([sys.executable, "-c", LOAD, str(installed)], check=True, timeout=PROGRAM_SECONDS, cwd=installed)


def test_the_source_distribution_holds_tests_and_pages(tmp_path):
    """Whoever packages embedqueue builds and tests from it; the index takes it, and its description is readable."""
    pytest.importorskip("build", reason="build is not installed: make setup")
    pytest.importorskip("twine", reason="twine is not installed: make setup")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, timeout=PROGRAM_SECONDS, capture_output=True)
    (built,) = tmp_path.glob("embedqueue-*.tar.gz")
    with tarfile.open(built) as archive:
        there = {name.partition("/")[2] for name in archive.getnames()}
    folders = (".ci", "benchmarks", "docs", "embedqueue", "examples", "tests")
    ours = {path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()}
    ours |= {Path(name) for name in ("Makefile", "CHANGELOG.md", "SECURITY.md", "mkdocs.yml", "pyproject.toml")}
    wanted = {str(path) for path in ours if "__pycache__" not in path.parts and not path.name.startswith(".")}
    assert wanted - there == set()
    check = [sys.executable, "-m", "twine", "check", "--strict", str(built)]
    subprocess.run(check, check=True, timeout=PROGRAM_SECONDS, capture_output=True)


def test_extras_are_for_users(installed):
    """Nothing that only development needs is offered to those who install."""
    (metadata,) = installed.glob("embedqueue-*.dist-info/METADATA")
    extras = set(re.findall(r"^Provides-Extra: (\S+)$", metadata.read_text("utf-8"), re.MULTILINE))
    assert {"fast", "cli", "flask", "django"} <= extras
    assert extras & {"dev", "test", "tests", "bench", "docs", "examples"} == set()


@pytest.mark.parametrize("group", ["examples", "test", "bench", "dev", "docs"])
def test_every_group_is_made_of_requirements(group, installed):
    """As ``make`` hands them to any pip; the extras that they name exist."""
    printed = subprocess.run(
        [ROOT / ".ci" / "group", group], check=True, timeout=PROGRAM_SECONDS, capture_output=True, text=True
    )
    (metadata,) = installed.glob("embedqueue-*.dist-info/METADATA")
    extras = set(re.findall(r"^Provides-Extra: (\S+)$", metadata.read_text("utf-8"), re.MULTILINE))
    for line in printed.stdout.splitlines():
        name, _, asked = re.fullmatch(r"([\w.-]+)(\[([\w,-]+)\])?.*", line).groups()
        assert name != "embedqueue" or set(asked.split(",")) <= extras, line
