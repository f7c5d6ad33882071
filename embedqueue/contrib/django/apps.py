"""Django's view of the app: its name, its checks, and what follows requests and settings."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.signals import request_started, setting_changed


class EmbedQueueConfig(AppConfig):
    """``embedqueue.contrib.django`` in INSTALLED_APPS."""

    name = "embedqueue.contrib.django"
    label = "embedqueue"
    verbose_name = "Embedding queue"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register checks and signals."""
        from .access import queues
        from .checks import check_services, check_settings

        checks.register(check_settings, "embedqueue")
        checks.register(check_services, "embedqueue", deploy=True)
        request_started.connect(queues.wake, dispatch_uid="embedqueue.wake")
        setting_changed.connect(_setting_changed, dispatch_uid="embedqueue.settings")


def _setting_changed(*, setting: str, **_: Any) -> None:
    """``override_settings(EMBEDQUEUE=...)`` in a test: the next use reads anew."""
    from .access import SETTING, queues

    if setting == SETTING:
        queues.reset()
