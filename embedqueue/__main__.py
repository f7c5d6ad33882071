"""``embedqueue`` and ``python -m embedqueue``: the demo needs no command-line library, all else the extra ``cli``."""

from __future__ import annotations

import importlib.util
import sys


def main() -> int:
    """Run a command; returns its exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["demo"]:
        from .demo.demo import main as demo

        return demo(arguments[1:])
    if importlib.util.find_spec("click") and importlib.util.find_spec("rich"):
        from .cli import main as cli

        cli()
    print(
        'usage: embedqueue demo [--help]; all other commands need the extra "cli": pip install "embedqueue[cli]"',
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
