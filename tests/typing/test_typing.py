"""Type checkers know the public API: what users write passes in strict mode, and what cannot work is refused.

Every line that ends with a comment ``# refused ...`` must have an error, and no other line may.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")
pytest.importorskip("django", reason="Django is not installed: pip install embedqueue[django]")

pytestmark = [pytest.mark.types, pytest.mark.timeout(180)]  # a type checker computes for ten seconds, longer when busy

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
FILES = [*sorted(FOLDER.glob("*_user.py")), FOLDER / "wrong_uses.py"]

Lines = set[tuple[str, int]]


def marked() -> Lines:
    """Where an error must be."""
    return {
        (file.name, number)
        for file in FILES
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if re.search(r"  # refused\b", line)
    }


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert done.returncode == 1, done.stdout + done.stderr  # it ran, and found errors
    return done.stdout


def test_mypy():
    pytest.importorskip("mypy", reason="mypy is not installed: make setup")
    # as if embedqueue were installed: our own configuration is not the users'
    options = ["--strict", "--config-file=", "--follow-imports=silent", "--cache-dir=.mypy_cache/users"]
    told = run("mypy", *options, *(str(file.relative_to(ROOT)) for file in FILES))
    found = {(Path(name).name, int(line)) for name, line in re.findall(r"(?m)^(\S+?):(\d+): error:", told)}
    assert found == marked(), told


def test_pyright():
    """Its open fork, which brings its own Node.js, in the mode that is the original's strict one."""
    pytest.importorskip("basedpyright", reason="basedpyright is not installed: make setup")
    told = run("basedpyright", "--outputjson", "--project", str(FOLDER), "--pythonpath", sys.executable)
    report = json.loads(told)
    assert report["summary"]["filesAnalyzed"] == len(FILES)
    found = {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"]
        for one in report["generalDiagnostics"]
        if one["severity"] == "error"
    }
    assert found.keys() == marked(), found
