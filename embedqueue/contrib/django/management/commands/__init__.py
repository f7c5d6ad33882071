"""``manage.py embedqueue``."""
