"""``python -m embedqueue``: the demo, which needs no command-line library, and everything else through the cli."""

from __future__ import annotations

import importlib
import importlib.util
import sys


def main() -> int:
    """Run a command; returns its exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["demo"]:
        from .demo import main as demo

        return demo(arguments[1:])
    if importlib.util.find_spec("embedqueue.cli") and importlib.util.find_spec("click"):
        cli = importlib.import_module("embedqueue.cli")
        return int(cli.main() or 0)
    print('usage: python -m embedqueue demo [--help]   (other commands need "embedqueue[cli]")', file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
