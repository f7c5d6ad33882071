"""``python -m examples.flask_notes``: the application with a Redis of its own."""

from __future__ import annotations

from examples.notes import dashboard_password, example_redis, read_port


def main() -> None:
    """Serve until ctrl-C."""
    port = read_port(5000)
    dashboard_password()
    with example_redis():
        from .app import app, embeddings

        try:
            app.run(port=port, threaded=True)
        finally:
            with app.app_context():
                embeddings.queues.reset()  # while its Redis is still there; with one of your own, nothing is to do


if __name__ == "__main__":
    main()
