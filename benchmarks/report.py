"""Figures as JSON, and a report in markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.bench import label
from benchmarks.figures import Answer, Row, Target, row_table, target_table

_NAMES = {
    "latency_ms": "API latency, ms",
    "think_ms": "pause between requests up to, ms",
    "cpu_s_per_1000": "worker CPU s per 1,000",
    "redis_cpu_s_per_1000": "Redis CPU s per 1,000",
    "calls_per_1000": "API calls per 1,000",
    "sent_per_item": "texts sent per item",
    "peak_mb": "worker peak, MB",
    "p95_ms": "p95",
    "p99_ms": "p99",
    "sent_per_distinct": "per distinct live text",
    "repeats_in_call": "equal texts in one call",
    "stale": "hashes with an older text's vector",
    "window": "window",
    "worker_mb": "worker peak, MB",
    "bytes_per_item": "bytes per item",
    "zset_bytes_per_item": "of them the ZSET",
    "most_ms": "the longest",
    "missing_at_kill": "missing when killed",
    "complete_after_s": "last one came after, s",
    "refused_share": "share refused",
    "claim under": "a claim of 50 under",
    "in_flight": "calls in flight, settled",
    "calls_per_request": "API calls per request",
}


def write(folder: Path, answers: Sequence[Answer], about: dict[str, Any]) -> None:
    """``figures.json`` and ``report.md``; answers of an earlier run to other questions are kept, with what that was."""
    folder.mkdir(parents=True, exist_ok=True)
    kept, head = read(folder), about
    if kept and (rest := kept[0].keys() - {answer.question for answer in answers}):
        head = kept[1]
        for answer in answers:
            answer.about = about
        answers = [kept[0][name] for name in kept[0] if name in rest] + list(answers)
    figures = {
        "about": head,
        "questions": {
            answer.question: {
                "title": answer.title,
                "rows": [row.as_json() for row in answer.rows],
                "targets": [asdict(each) | {"reached": each.reached} for each in answer.targets],
                "notes": answer.notes,
                "about": answer.about,
            }
            for answer in answers
        },
    }
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (folder / "report.md").write_text(markdown(answers, head) + "\n")


def read(folder: Path) -> tuple[dict[str, Answer], dict[str, Any]] | None:
    """The answers that stand there, by question, and about which run; None where there are none."""
    if not (folder / "figures.json").exists():
        return None
    figures = json.loads((folder / "figures.json").read_text())
    answers = {}
    for question, found in figures["questions"].items():
        rows = [Row(*(row[name] for name in ("contender", "at", "unit", "values", "more"))) for row in found["rows"]]
        names = ("what", "measured", "low", "high", "wanted", "sense")
        targets = [Target(*(one[name] for name in names)) for one in found["targets"]]
        answers[question] = Answer(question, found["title"], rows, targets, found["notes"], found.get("about", {}))
    return answers, figures["about"]


def markdown(answers: Sequence[Answer], about: dict[str, Any]) -> str:
    """The report: the machine, every target, every figure."""
    parts = ["# Benchmark results", _about(about)]
    targets = [target for answer in answers for target in answer.targets]
    if targets:
        parts += ["## Targets", target_table(targets)]
    for answer in answers:
        parts.append(f"## {answer.title}")
        if answer.about:
            parts.append(f"Measured in a run of its own: {_about(answer.about)}")
        parts += answer.notes
        for unit in dict.fromkeys(row.unit for row in answer.rows):
            parts.append(row_table([row for row in answer.rows if row.unit == unit], label, _NAMES))
    return "\n\n".join(parts)


def _about(about: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    kind = "A quick run: small and noisy. " if about["quick"] else ""
    return (
        f"{kind}{about['cores']} cores ({about['cpu']}), {about['memory_gb']} GB, {about['system']}; "
        f"Python {about['python']}, Redis {about['redis_server']}; {about['texts_per_call']} texts a call and "
        f"{about['calls_in_flight']} calls in flight for everybody; {about['minutes']} minutes, load "
        f"{about['load_at_end']} at the end. Medians; the spread is that of the repetitions.\n\n{packages}"
    )
