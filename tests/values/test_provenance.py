"""The line beside a vector."""

from __future__ import annotations

import pytest

from embedqueue.values.provenance import Provenance, read_provenance

DIGEST = "0123456789abcdef"


def test_a_line_is_read():
    assert read_provenance(f"m/4/- {DIGEST} 7".encode()) == Provenance("m/4/-", DIGEST, 7)


@pytest.mark.parametrize("line", [b"", b"m/4/-", b"\xff/4/- %s 7" % DIGEST.encode(), b"m/4/- %s x" % DIGEST.encode()])
def test_what_somebody_else_has_put_there_is_none(line):
    assert read_provenance(line) is None
