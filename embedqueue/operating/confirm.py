"""Asking before something is lost or spent: only a person at a terminal can say yes, or whoever has given ``--yes``."""

from __future__ import annotations

import sys

from embedqueue.values.errors import EmbedQueueError


def confirm(question: str, *, yes: bool, otherwise: str = "nothing was changed") -> None:
    """Return if the user agrees. The end of standard input is no answer, and what is piped in is none either.

    Args:
        question: what would be done, as a question.
        yes: the user has agreed beforehand.
        otherwise: what is so then where nobody agrees.

    Raises:
        EmbedQueueError: nobody has agreed; the caller must change nothing.
    """
    if yes:
        return
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        raise EmbedQueueError(f"{question} Nobody can be asked here, so {otherwise}: --yes says yes beforehand")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # not among the output, which may go elsewhere
    answer = sys.stdin.readline()
    if not answer:
        print(file=sys.stderr)
    if answer.strip().lower() not in ("y", "yes"):
        raise EmbedQueueError(f"nobody said yes, so {otherwise}; --yes says so beforehand")
