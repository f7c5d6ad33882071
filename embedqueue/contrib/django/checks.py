"""System checks: settings always, and with ``--deploy`` also Redis, the key and the model."""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.core.checks import CheckMessage, Error

from embedqueue.settings.checks import check_call, check_economy, check_key, check_redis
from embedqueue.settings.settings import SettingsError
from embedqueue.values.sink import Sinks

from .access import load, queues
from .sink import PgVectorSink


def check_settings(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """Whether the settings can work, without asking anybody."""
    try:
        found = load()
    except SettingsError as error:
        return [Error(str(error), id="embedqueue.E001")]
    faults = [fault for settings in found.values() for fault in _check_sink(settings.options.get("sink"))]
    if not _eager():
        words = [problem for settings in found.values() for problem in check_economy(settings)]
        faults += [Error(problem, id="embedqueue.E008") for problem in words]
    return faults + [
        checks.Warning(problem, hint="Nothing is embedded by this process until then.", id="embedqueue.W001")
        for settings in found.values()
        if settings.options.get("worker", True)
        for problem in check_key(settings)
    ]


def _eager() -> bool:
    try:
        return queues.eager
    except ImportError:  # they want fakeredis
        return True


def _check_sink(sink: Any) -> list[CheckMessage]:
    """What a sink says of itself; of several, what each does."""
    parts = sink.sinks if isinstance(sink, Sinks) else [sink]
    return [fault for part in parts if isinstance(part, PgVectorSink) for fault in part.check()]


def check_services(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """Whether Redis and the provider let us in. Makes one real call for each queue; none where the queues are eager."""
    try:
        found = {} if queues.eager else load()
    except SettingsError:
        return []  # E001 says so
    except ImportError as error:  # eager queues want fakeredis
        return [Error(str(error), id="embedqueue.E001")]
    problems: dict[str, str] = {}  # queues share servers: each fault is told once
    for settings in found.values():
        problems |= dict.fromkeys(check_redis(settings), "embedqueue.E002")
        if settings.options.get("worker", True):
            missing = check_key(settings)
            problems |= dict.fromkeys(missing, "embedqueue.E003")
            if not missing:
                problems |= dict.fromkeys(check_call(settings), "embedqueue.E004")
    return [Error(problem, id=name) for problem, name in problems.items()]
