"""On what it was measured: versions and the machine, but nobody's name for it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import redis

from benchmarks import contenders
from benchmarks.settings import CALL_TEXTS, CALLS


def about(client: redis.Redis, *, quick: bool) -> dict[str, Any]:
    """Everything that the figures depend on."""
    packages = set()
    for name in contenders.MODULES:
        try:
            packages.update(contenders.load(name).PACKAGES)
        except ImportError:
            continue
    return {
        "quick": quick,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "load_at_end": round(os.getloadavg()[0], 1),
        "redis_server": client.info("server")["redis_version"],
        "calls_in_flight": CALLS,
        "texts_per_call": CALL_TEXTS,
        "packages": {name: version for name in sorted(packages) if (version := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
