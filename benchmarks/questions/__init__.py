"""One file a question; each has ``TITLE`` and ``run(bench) -> Answer``."""

from __future__ import annotations

import importlib
from types import ModuleType

#: In the order in which they are asked.
NAMES = (
    "enqueue", "bulk", "drain", "wait", "growth", "cost", "processes", "lost", "adaptive", "scripts", "blocks",
    "replicas", "imports", "limits",
)  # fmt: skip
#: Those that are asked only when they are named: they take much time or memory.
WHEN_NAMED = ("millions",)


def load(name: str) -> ModuleType:
    """The module of a question."""
    return importlib.import_module(f"{__name__}.{name}")
