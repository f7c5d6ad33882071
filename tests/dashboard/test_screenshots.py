"""The pictures of the docs are taken by a command, and each is shown somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("flask", reason='the dashboard is in the extra "embedqueue[dashboard]"')

from tests.dashboard import screenshots  # noqa: E402

DOCS = Path(__file__).parents[2] / "docs"


def test_a_picture_is_taken(tmp_path):
    """Where there is a Chromium."""
    reason = screenshots.missing()
    if reason is not None:
        pytest.skip(reason)
    [file] = screenshots.take(tmp_path, {"dashboard-items"})
    assert file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 10_000


def test_without_a_browser_the_command_says_so(tmp_path, monkeypatch, capsys):
    """And is no failure."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("sys.argv", ["screenshots", "--folder", str(tmp_path)])
    screenshots.main()
    assert "No pictures are taken: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_every_picture_is_in_the_docs():
    """And every picture that the page shows is taken by the command."""
    page = (DOCS / "dashboard.md").read_text("utf-8")
    for name, *_ in screenshots.PICTURES:
        assert f"({name}.png)" in page
        assert (DOCS / f"{name}.png").is_file()
