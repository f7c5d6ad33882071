"""Notes with FastAPI, whose handlers await vectors; all of it lives in Redis. Run it with ``make example-fastapi``."""
