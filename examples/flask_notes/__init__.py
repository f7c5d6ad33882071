"""Notes with Flask; all of it lives in Redis. Run it with ``make example-flask``."""
