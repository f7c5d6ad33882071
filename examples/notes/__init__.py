"""What both notes applications share: the search index, the page, and the private Redis that they run on."""

from .page import SAMPLES, show
from .serve import example_redis, read_port

__all__ = ["SAMPLES", "example_redis", "read_port", "show"]
