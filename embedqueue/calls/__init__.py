"""Texts to vectors, and what becomes of a call that fails. Knows no items and no Redis but the cache's."""
