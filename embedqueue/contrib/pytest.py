"""The plugin for pytest: it keeps freezegun from our clocks, and does nothing else before a project asks for it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest

from embedqueue.testing import EagerQueue, FakeEmbedder, fake_redis


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the setting ``embedqueue_eager`` of pytest's own configuration file."""
    parser.addini("embedqueue_eager", "the queues of applications are eager: offline, on a fake Redis", "bool", False)


def pytest_configure(config: pytest.Config) -> None:
    """Set ``EMBEDQUEUE_EAGER``, if the project wants it and nobody has set it, and keep freezegun from our clocks."""
    if config.getini("embedqueue_eager"):
        os.environ.setdefault("EMBEDQUEUE_EAGER", "1")
    if importlib.util.find_spec("freezegun") is not None:
        import freezegun  # type: ignore[import-not-found,import-untyped,unused-ignore]

        freezegun.configure(extend_ignore_list=["embedqueue"])  # a thread that waits for a frozen clock waits for ever


@pytest.fixture
def eager_queue() -> Iterator[EagerQueue]:
    """A queue on a fake Redis of its own: each item is finished when ``enqueue`` returns. Vectors have 8 numbers."""
    with EagerQueue(FakeEmbedder(8), fake_redis()) as queue:
        yield queue
