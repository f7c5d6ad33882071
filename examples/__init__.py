"""Small applications that use embedqueue. They run from a checkout: ``make example-flask``, ``make example-django``."""
