"""Batch jobs of Mistral (docs/half-price.md has the sources)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from .batch_jobs import JobSeen, JobStanding
from .openai_jobs import PAGE, PAGES, OpenAIJobs


class MistralJobs(OpenAIJobs):
    """Batch jobs of Mistral: files and results are OpenAI's, a job has other names, and tells its model once."""

    max_texts = 100_000  # Mistral's documentation also has a million
    path: ClassVar[str] = "/batch/jobs"
    ends: ClassVar[Mapping[str, JobStanding]] = {
        "success": "done", "failed": "failed", "timeout_exceeded": "expired", "cancelled": "cancelled",
    }  # fmt: skip

    def _line(self, key: str, text: str) -> dict[str, Any]:
        return {"custom_id": key, "body": {n: value for n, value in self._body(text).items() if n != "model"}}

    def _wanted(self, file: str, texts: Mapping[str, str], label: str) -> dict[str, Any]:
        return {
            "input_files": [file],
            "endpoint": self.endpoint,
            "model": self._body("")["model"],
            "timeout_hours": 24,
            "metadata": {self.key_field: label},
        }

    def find(self, label: str, since: float) -> str | None:
        """See :class:`BatchJobs`. The whole list is looked through: nothing is known of its order."""
        return super().find(label, 0.0)

    def _listed(self, path: str, more: str = "") -> Iterator[dict[str, Any]]:
        for page in range(PAGES):
            answer, _ = self._http.ask("GET", f"{self._root}{path}?page={page}&page_size={PAGE}{more}")
            rows = (answer or {}).get("data") or []
            yield from (row for row in rows if isinstance(row, dict))
            if len(rows) < PAGE:
                return

    def _seen(self, answer: dict[str, Any]) -> JobSeen:
        told = {
            "output_file_id": answer.get("output_file"),
            "error_file_id": answer.get("error_file"),
            "request_counts": {"completed": answer.get("succeeded_requests")},
        }
        return super()._seen({**answer, **told})
