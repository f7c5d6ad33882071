"""The core's only way to Redis: one method a move, each one script, each atomic."""
