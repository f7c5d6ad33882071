"""Notes with Django: texts in its database, vectors in Redis. Run it with ``make example-django``."""
