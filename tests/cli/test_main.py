"""``python -m embedqueue`` and ``embedqueue``: what they do with and without the command line's libraries."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import embedqueue


def _module() -> Callable[[], object]:
    # Not runpy.run_module, which cannot run what pytest imports itself: all of a package that has a plugin for it.
    path = Path(embedqueue.__file__).with_name("__main__.py")
    code = compile(path.read_text("utf-8"), path, "exec")
    return lambda: exec(code, {"__name__": "__main__", "__package__": "embedqueue"})


def _script() -> Callable[[], object]:
    [script] = entry_points(group="console_scripts", name="embedqueue")
    main = script.load()
    return lambda: sys.exit(main())


@pytest.fixture(params=[_module, _script])
def main(request, monkeypatch, capsys):
    """Runs either of them with arguments; gives its exit code and what it printed."""

    def main(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["embedqueue", *arguments])
        monkeypatch.delitem(sys.modules, "embedqueue.__main__", raising=False)
        run = request.param()
        with pytest.raises(SystemExit) as ended:
            run()
        return ended.value.code, *capsys.readouterr()

    return main


def test_the_demo_needs_no_command_line_library(main, monkeypatch):
    """Whoever has only the demo's extra can run it."""
    monkeypatch.setitem(sys.modules, "click", None)
    code, printed, _ = main("demo", "--help")
    assert code == 0
    assert "demo" in printed and "--file" in printed


@pytest.mark.parametrize("lacking", ["click", "rich"])
def test_without_the_extra(main, monkeypatch, lacking):
    """A sentence says what to install; used wrongly is 2."""
    monkeypatch.setitem(sys.modules, lacking, None)
    code, printed, errors = main("stats")
    assert (code, printed) == (2, "")
    assert 'pip install "embedqueue[cli]"' in errors


def test_with_the_extra(main):
    """Every other command is the command line's."""
    pytest.importorskip("click", reason='the command line is in the extra "embedqueue[cli]"')
    code, printed, errors = main("--version")
    assert (code, errors) == (0, "")
    assert printed.startswith("embedqueue, version")
