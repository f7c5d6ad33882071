"""What is installed is all that is needed: a wheel, as built from this tree, by itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import embedqueue

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
    subprocess.run(command, check=True, timeout=50, capture_output=True)
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
    subprocess.run([sys.executable, "-c", LOAD, str(installed)], check=True, timeout=30, cwd=installed)
