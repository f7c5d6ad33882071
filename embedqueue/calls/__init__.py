"""Turns texts into vectors, and decides what becomes of calls that fail. Knows no items; only its cache uses Redis."""
