"""``python -m examples.django_notes``: the application with a Redis and a database of its own."""

from __future__ import annotations

import os
import tempfile

from examples.notes import dashboard_password, example_redis, read_port


def main() -> None:
    """Serve until ctrl-C."""
    port = read_port(8000)
    password = dashboard_password()
    os.environ["DJANGO_SETTINGS_MODULE"] = "examples.django_notes.settings"
    with example_redis(), tempfile.TemporaryDirectory(prefix="notes-") as folder:
        os.environ.setdefault("NOTES_DATABASE", f"{folder}/notes.sqlite3")
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        from django.contrib.auth.models import User

        from embedqueue.contrib.django import queues

        if not User.objects.filter(username="admin").exists():
            User.objects.create_superuser("admin", password=password)

        try:
            call_command("runserver", f"127.0.0.1:{port}", use_reloader=False)
        finally:
            queues.reset()  # while its Redis is still there; with one of your own, nothing is to do


if __name__ == "__main__":
    main()
