"""The line beside a vector."""

from __future__ import annotations

import pytest

from embedqueue.values.provenance import Provenance, parts_of_space, read_provenance, same_space, space

DIGEST = "0123456789abcdef"


def test_a_line_is_read():
    assert read_provenance(f"m/4/- {DIGEST} 7".encode()) == Provenance("m/4/-", DIGEST, 7)


@pytest.mark.parametrize("line", [b"", b"m/4/-", b"\xff/4/- %s 7" % DIGEST.encode(), b"m/4/- %s x" % DIGEST.encode()])
def test_what_somebody_else_has_put_there_is_none(line):
    assert read_provenance(line) is None


@pytest.mark.parametrize("model", ["m", "BAAI/bge-m3", "a/3/b"])
def test_a_space_is_taken_apart_as_it_was_put_together(model):
    """A model's name may have slashes of its own."""
    assert parts_of_space(space(model, 4, "a role")) == (model, "4", "a_role")
    assert parts_of_space(space(model, None, None)) == (model, "0", "-")


@pytest.mark.parametrize("text", ["", "m", "m/4", "m/x/-", "4/-"])
def test_what_is_no_space_has_no_parts(text):
    assert parts_of_space(text) == ("", "", "")


@pytest.mark.parametrize(
    ("other", "same"),
    [("m/4/-", True), ("m/0/-", True), ("m/8/-", False), ("n/4/-", False), ("n/0/-", False), ("m/4/query", False)],
)
def test_a_length_that_is_not_known_yet_makes_no_other_space(other, same):
    assert same_space("m/4/-", other) is same
    assert same_space(other, "m/4/-") is same
