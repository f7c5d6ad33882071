"""The dashboard (extra ``dashboard``): a Flask blueprint, and a WSGI application for everything else."""

from .blueprint import dashboard, dashboard_app
from .guard import password

__all__ = ["dashboard", "dashboard_app", "password"]
