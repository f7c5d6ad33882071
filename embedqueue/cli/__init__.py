"""The command line ``embedqueue`` (extra ``cli``); configured by ``EMBEDQUEUE_*``, as in Flask and Django.

Exit codes: 0 done, 1 it did not work out (the reason is on standard error), 2 used wrongly, 130 interrupted.
"""

from . import commands, dashboard, dead, fill, jobs, money, reembed, runs, space, vectors  # noqa: F401 - each registers its own
from .context import cli


def main() -> None:
    """Run a command; ends the process."""
    cli(prog_name="embedqueue")


__all__ = ["cli", "main"]
