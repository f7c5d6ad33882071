"""``python -m examples.fastapi_notes``: the application with a Redis of its own."""

from __future__ import annotations

import uvicorn

from examples.notes import dashboard_password, example_redis, read_port

#: Seconds that handlers have when the server is told to end; those that wait for a vector answer at once.
GRACE_SECONDS = 5


def main() -> None:
    """Serve until ctrl-C."""
    port = read_port(8080)
    dashboard_password()
    with example_redis():
        from .app import create_app

        uvicorn.run(create_app(), port=port, access_log=False, timeout_graceful_shutdown=GRACE_SECONDS)


if __name__ == "__main__":
    main()
