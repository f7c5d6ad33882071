"""The one logger, ``embedqueue``; records of a queue carry its namespace as an attribute."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

logger = logging.getLogger("embedqueue")


class QueueLog(logging.LoggerAdapter[logging.Logger]):
    """Adds a queue's namespace to its records, beside what ``extra`` gives.

    Args:
        namespace: of the queue.
    """

    def __init__(self, namespace: str) -> None:
        super().__init__(logger, {"namespace": namespace})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Merge: the standard adapter would replace ``extra``."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


Log = logging.Logger | QueueLog
