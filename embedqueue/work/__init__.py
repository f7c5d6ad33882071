"""When items are claimed, and what becomes of a claim."""
