"""A Django project for the tests; its queue is set up by the environment's EMBEDQUEUE_* variables."""
