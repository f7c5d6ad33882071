"""What a vector is of: its space, which is model, dimensions and role, and a digest of its text.

Beside each vector stands one line of text, ``SPACE DIGEST STAMP``, so that others may read it and an index can hold it.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

#: What a router puts before a model's name. Other names with a slash are whole, such as ``BAAI/bge-m3``.
_ROUTERS = ("google", "openai", "mistralai", "voyage", "voyageai", "cohere", "models")
#: What a router puts behind it: the same model, sold otherwise.
SUFFIXES = (":batch", ":free")
#: A space; look.lua takes it apart alike.
_SPACE = re.compile(r"(.*)/([0-9]+)/([^/]*)", re.DOTALL)
#: The line as embedqueue writes it; the scripts read it alike.
_LINE = re.compile(rb"(\S+) ([0-9a-f]{16}) (\d{1,16})")


class Provenance(NamedTuple):
    """What a vector is of.

    Attributes:
        space: model, dimensions and role.
        digest: of its text.
        stamp: of the item by which it was written; 0 where it was labelled afterwards.
    """

    space: str
    digest: str
    stamp: int


def read_provenance(line: bytes) -> Provenance | None:
    """Read the line beside a vector; None where it is not one of ours."""
    found = _LINE.fullmatch(line)
    try:
        return found and Provenance(found[1].decode(), found[2].decode(), int(found[3]))
    except UnicodeDecodeError:
        return None


def model_name(model: str) -> str:
    """The name of a model without what a router adds to it, and without blanks.

    Args:
        model: as users write it.
    """
    name = "_".join(model.split())
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    prefix, slash, rest = name.partition("/")
    return rest if slash and rest and prefix in _ROUTERS else name


def space(model: str, dimensions: int | None, role: str | None) -> str:
    """The space of vectors, ``MODEL/DIMENSIONS/ROLE``, to be read from the right.

    Args:
        model: as users write it.
        dimensions: length of the vectors.
        role: of documents, where the embedder has one; may be a prefix of their texts.
    """
    return f"{model_name(model)}/{dimensions or 0}/{'_'.join((role or '').replace('/', '_').split()) or '-'}"


class SpaceParts(NamedTuple):
    """What :func:`space` has put together; each is "" where a text is no space.

    Attributes:
        model: its name.
        dimensions: length of the vectors.
        role: of documents.
    """

    model: str
    dimensions: str
    role: str


def parts_of_space(space: str) -> SpaceParts:
    """Take a space apart, from the right: a model's name may have slashes."""
    found = _SPACE.fullmatch(space)
    return SpaceParts(*found.groups() if found else ("", "", ""))


def same_space(one: str, other: str) -> bool:
    """Whether two spaces are one, as far as is known: a length of 0 has yet to be learned."""
    first, second = parts_of_space(one), parts_of_space(other)
    if "0" in (first.dimensions, second.dimensions):
        second = second._replace(dimensions=first.dimensions)
    return first == second


def line(space: str, text: str) -> str:
    """What stands beside a vector of a text whose item is not known."""
    return f"{space} {digest(text)} 0"


def digest(text: str) -> str:
    """The digest of a text as it was enqueued: BLAKE2b of its UTF-8, 8 bytes, as 16 hexadecimal digits."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
