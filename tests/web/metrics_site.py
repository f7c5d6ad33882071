"""The Flask test site with metrics, as docs/metrics.md has them under gunicorn."""

from __future__ import annotations

from embedqueue.metrics import Metrics
from tests.web.flask_site import app

metrics = Metrics()
app.config["EMBEDQUEUE_OBSERVERS"] = [metrics]


@app.get("/metrics")
def show():
    """For Prometheus."""
    kind, body = metrics.exposition()
    return body, {"Content-Type": kind}
