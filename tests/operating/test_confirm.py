"""Only a person at a terminal can say yes, or ``--yes`` beforehand."""

from __future__ import annotations

import io
import os
import sys

import pytest

from embedqueue import EmbedQueueError, InputRejected
from embedqueue.operating.confirm import confirm
from embedqueue.operating.letters import discard
from embedqueue.testing import FakeEmbedder, eager_queue


@pytest.fixture
def terminal(monkeypatch):
    """Has a terminal for standard input at which this was typed."""
    master, slave = os.openpty()
    with open(master, "wb", buffering=0) as keyboard, open(slave) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield keyboard.write


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stdin", [io.StringIO("y\n"), io.StringIO(""), closed(), None])
def test_without_a_terminal_nobody_says_yes(monkeypatch, stdin):
    """Whatever is piped in, or nothing; the sentence names the option that does."""
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(EmbedQueueError, match="Go on\\? .* nothing was changed: --yes"):
        confirm("Go on?", yes=False)
    confirm("Go on?", yes=True)


@pytest.mark.parametrize("words", [b"n\n", b"\n", b"yesterday\n", b"\x04"])
def test_at_a_terminal_all_but_yes_is_no(terminal, words, capsys):
    """Also Ctrl-D, which is the end of what is typed."""
    terminal(words)
    with pytest.raises(EmbedQueueError, match="nothing was changed; --yes"):
        confirm("Go on?", yes=False)
    assert capsys.readouterr().err.startswith("Go on? [y/N] ")


@pytest.mark.parametrize("words", [b"y\n", b" Yes \n"])
def test_at_a_terminal_yes_is_yes(terminal, words):
    terminal(words)
    confirm("Go on?", yes=False)


def test_letters_are_dropped_when_somebody_at_the_terminal_says_so(terminal, capsys):
    """It asks once, with the number; it asks nobody where there is nothing to drop, or where each key was named."""
    queue = eager_queue(FakeEmbedder(rule=lambda texts: None if texts == ["ok"] else InputRejected("no")))
    queue.enqueue_many([(f"doc:{i}", f"text {i}") for i in range(3)])
    terminal(b"n\ny\n")
    with pytest.raises(EmbedQueueError, match="nothing was changed"):
        discard(queue, [], None, True, False)
    assert queue.stats().dead == 3
    assert discard(queue, ["doc:0"], None, False, False) == "1 discarded"
    assert discard(queue, [], None, True, False) == "2 discarded"
    assert discard(queue, [], "no", False, False) == discard(queue, [], None, True, False) == "0 discarded"
    asked = capsys.readouterr().err
    assert asked.count("[y/N]") == 2 and "Drop 3 dead letters" in asked and "Drop 2 dead letters" in asked
