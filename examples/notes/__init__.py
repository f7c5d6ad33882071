"""What both notes applications share: the search index, the page, and the private Redis that they run on."""

from .page import SAMPLES, show
from .search import nearest
from .serve import dashboard_password, example_redis, read_port
from .store import RedisNotes

__all__ = ["SAMPLES", "RedisNotes", "dashboard_password", "example_redis", "nearest", "read_port", "show"]
