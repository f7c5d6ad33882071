"""The alerts that ship ask for what there is, and fire when they should."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

pytest.importorskip("prometheus_client", reason='metrics are in the extra "embedqueue[prometheus]"')

from prometheus_client import CollectorRegistry

from embedqueue.metrics import Metrics
from embedqueue.testing import eager_queue
from tests.metrics.test_metrics import names
from tests.parts import PROGRAM_SECONDS

ALERTS = Path(__file__).parents[2] / "docs" / "alerts.yaml"
RULES = Path(__file__).with_name("alerts_promtool.yaml")


def test_alerts_ask_for_what_there_is():
    """Each is complete, and none is silent for a misspelt metric or label."""
    registry = CollectorRegistry()
    eager_queue(observers=[Metrics(registry)])
    labels = {label for family in registry.collect() for sample in family.samples for label in sample.labels}
    (group,) = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    asked = set()
    for rule in group["rules"]:
        assert rule["alert"] and rule["labels"]["severity"] and set(rule["annotations"]) == {"summary", "description"}
        asked |= set(re.findall(r"\bembedqueue_\w+", rule["expr"]))
        assert set(re.findall(r"(\w+)=", rule["expr"].replace("==", ""))) <= labels
    assert "embedqueue_due_age_seconds" in asked
    assert asked <= names(registry)
    assert "alerts.yaml" in (ALERTS.parent / "metrics.md").read_text("utf-8")


@pytest.mark.parametrize("command", [["check", "rules", str(ALERTS)], ["test", "rules", str(RULES)]], ids=" ".join)
def test_alerts_fire_when_they_should(command):
    """Prometheus' own tool takes the file, and made-up series set off the right alerts."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run([promtool, *command], capture_output=True, text=True, timeout=PROGRAM_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
