"""The other limit of draining: a plain loop of bare ``requests``, one call at a time."""

from __future__ import annotations

from benchmarks.contenders import limit_requests
from benchmarks.settings import Settings

LABEL = "loop of bare requests (limit)"
PACKAGES = limit_requests.PACKAGES
Producer = limit_requests.Producer


def work(settings: Settings) -> None:
    """Do what comes, one call after the other."""
    limit_requests.work(settings, threads=1)
