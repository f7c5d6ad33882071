"""Finds the hashes whose vectors are nearest to a query's: an index in Redis, and the searches through it."""

from .definition import define
from .hits import SearchHit
from .search import Search

__all__ = ["Search", "SearchHit", "define"]
