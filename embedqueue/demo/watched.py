"""The demo's dashboard: the pages that ``embedqueue dashboard`` serves, on loopback, behind a link for one browser."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from embedqueue.queue import EmbeddingBatchQueue

#: Seconds that the end of the server is waited for.
ENDING_SECONDS = 5.0


@contextlib.contextmanager
def watched(queue: EmbeddingBatchQueue, port: int = 0) -> Iterator[None]:
    """Within the ``with``, the queue can be watched; a printed line says where. Nothing where Flask is missing.

    Args:
        queue: to look at.
        port: of loopback; 0 for a free one.
    """
    try:
        from werkzeug.serving import make_server

        from embedqueue.dashboard import dashboard_app
        from embedqueue.dashboard.guard import OneTimeLink
    except ImportError:
        yield
        return
    link = OneTimeLink()
    app = dashboard_app(queue, authenticate=link, allow_changes=True, show_texts=True)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a look is no news
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, name="dashboard", daemon=True)
    thread.start()
    print(f"Watch: http://127.0.0.1:{server.server_port}/?token={link.token} (once, in one browser)", flush=True)
    try:
        yield
    finally:
        server.shutdown()
        thread.join(ENDING_SECONDS)
        server.server_close()
