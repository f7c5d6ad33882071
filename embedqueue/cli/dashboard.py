"""The dashboard, standing alone."""

from __future__ import annotations

import importlib
import ipaddress
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .context import Source, cli, command, price_option

if TYPE_CHECKING:
    from embedqueue.dashboard.guard import Authenticate

DEFAULT_PORT = 8787


@command(cli, "dashboard", "embedqueue dashboard --port 8787 --allow-changes")
@click.option("--host", default="127.0.0.1", show_default=True, help="Any but loopback needs --auth or a password.")
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="0: any free one.")
@click.option("--allow-changes", is_flag=True, help="Let dead letters, queues, runs and jobs be acted on.")
@click.option("--show-texts", is_flag=True, help="Show texts, of items that wait as well as of dead letters.")
@price_option
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its first line lets the user in (HTTP Basic; put TLS in front).",
)
@click.option("--user", default="admin", show_default=True, help="The name that goes with the password.")
@click.option("--auth", metavar="MODULE:FUNCTION", help="Called before each request: true lets it in.")
def dashboard(
    source: Source,
    host: str,
    port: int,
    allow_changes: bool,
    show_texts: bool,
    prices: tuple[tuple[str, float], ...],
    password_file: Path | None,
    user: str,
    auth: str | None,
) -> None:
    """Serve a page with the flow of items, rates, latencies, failures, dead letters and what it costs.

    Without --auth or a password, it prints a link that lets one browser in.
    """
    try:
        from embedqueue.dashboard import dashboard_app
    except ImportError:
        raise click.ClickException(
            'the dashboard is in the extra "dashboard": pip install "embedqueue[dashboard]"'
        ) from None
    authenticate, query = _hook(host, password_file, user, auth)
    app = dashboard_app(
        source.queue(worker=False, history=False),
        authenticate=authenticate,
        allow_changes=allow_changes,
        show_texts=show_texts,
        prices=dict(prices),
    )
    _serve(app, host, port, query)


def _hook(host: str, password_file: Path | None, user: str, auth: str | None) -> tuple[Authenticate, str]:
    """What lets somebody in, and what the link to the page ends with."""
    from embedqueue.dashboard.guard import OneTimeLink, password

    if password_file is not None and auth is not None:
        raise click.UsageError("give --auth or --password-file, not both")
    if password_file is not None:
        lines = password_file.read_text("utf-8").splitlines()
        return password(lines[0].strip() if lines else "", user), ""
    if auth is not None:
        return _imported(auth), ""
    if not _is_loopback(host):
        raise click.UsageError(f"{host} can be reached from other machines: give --password-file, or --auth")
    link = OneTimeLink()
    return link, f"?token={link.token}"


def _is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _imported(path: str) -> Authenticate:
    module, _, name = path.partition(":")
    sys.path.insert(0, "")  # as `python -m` has it
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.UsageError(f"--auth {path}: {error}") from None
    if not callable(found):
        raise click.UsageError(f"--auth {path} is not a function")
    return found  # type: ignore[no-any-return]


def _serve(app: Any, host: str, port: int, query: str) -> None:
    """Until SIGTERM or Ctrl-C. Werkzeug's server is enough for the few who look; many do better with gunicorn."""
    import logging
    import signal

    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a look is no news
    server = make_server(host, port, app, threaded=True)
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"The dashboard is at http://{shown}:{server.server_port}/{query}")
    if query:
        click.echo("That link works once, in one browser.")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.serve_forever()  # until KeyboardInterrupt, which it keeps to itself
    finally:
        signal.signal(signal.SIGTERM, before)
