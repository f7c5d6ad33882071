"""What stands for a queue in Flask and Django has all that a queue has."""

from __future__ import annotations

import inspect

import pytest

from embedqueue import EmbeddingBatchQueue
from embedqueue.settings.front import Front

PUBLIC = [name for name in vars(EmbeddingBatchQueue) if not name.startswith("_")]


@pytest.mark.parametrize("name", [*PUBLIC, "__enter__", "__exit__"])
def test_every_public_name_of_the_queue(name):
    """By the same name, with the same arguments; a property is a property."""
    ours, theirs = getattr(Front, name), getattr(EmbeddingBatchQueue, name)
    if callable(theirs):
        assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters
    else:
        assert isinstance(ours, property)
