"""Batch jobs of OpenAI, and of those who have copied its Files and Batches (docs/half-price.md has the sources)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from embedqueue.embedders import documents
from embedqueue.values.errors import EmbedQueueError, TransientError
from embedqueue.values.vectors import Malformed

from .batch_http import BatchHttp
from .batch_jobs import JobLine, JobSeen, JobStanding, ended_already, ignoring_gone, is_gone, plain_status
from .hosted import HostedEmbedder

#: Words by which a job has failed because too many tokens wait, and where the limit stands.
QUOTA_WORDS = ("token_limit_exceeded", "enqueued token limit", "enqueued_token", "quota")
_QUOTA = re.compile(r"limit:?\s*([\d,]{4,15})", re.I)
#: Jobs of one page of a list, and pages that are looked through.
PAGE, PAGES = 100, 50
#: Seconds by which a provider's clock may differ from that of Redis.
CLOCK_SECONDS = 3600.0


class OpenAIJobs:
    """Batch jobs as OpenAI has them.

    Args:
        embedder: whose key, texts and options they take.
        model: that they ask for.
        http: of that embedder.
        root: the address beside ``/embeddings``.
    """

    max_texts = 50_000  # inputs over all lines (OpenAI's reference of POST /batches)
    key_field: ClassVar[str] = "embedqueue"
    window: ClassVar[str] = "24h"
    endpoint: ClassVar[str] = "/v1/embeddings"
    path: ClassVar[str] = "/batches"
    #: Statuses that end a job. All others, those that nobody has told us of included, go on.
    ends: ClassVar[Mapping[str, JobStanding]] = {
        "completed": "done", "failed": "failed", "expired": "expired", "cancelled": "cancelled",
    }  # fmt: skip

    def __init__(self, embedder: Any, model: str, http: BatchHttp, root: str) -> None:
        self._embedder = embedder
        self._model = model
        self._http = http
        self._root = root

    def _body(self, text: str) -> dict[str, Any]:
        """The body of a call for one text."""
        body: dict[str, Any] = self._embedder.body_of(text, self._model)
        return body

    def _line(self, key: str, text: str) -> dict[str, Any]:
        return {"custom_id": key, "method": "POST", "url": self.endpoint, "body": self._body(text)}

    def upload(self, texts: Mapping[str, str], label: str) -> str:
        """See :class:`BatchJobs`."""
        content = b"\n".join(documents.serialise(self._line(key, text)) for key, text in texts.items()) + b"\n"
        files = {"file": (_file_name(label), content, "application/jsonl")}
        answer, _ = self._http.ask("POST", f"{self._root}/files", data={"purpose": "batch"}, files=files)
        return _named(answer)

    def create(self, file: str, texts: Mapping[str, str], label: str) -> str:
        """See :class:`BatchJobs`."""
        answer, _ = self._http.ask("POST", f"{self._root}{self.path}", self._wanted(file, texts, label))
        return _named(answer)

    def _wanted(self, file: str, texts: Mapping[str, str], label: str) -> dict[str, Any]:
        return {
            "input_file_id": file,
            "endpoint": self.endpoint,
            "completion_window": self.window,
            "metadata": {self.key_field: label},
        }

    def find(self, label: str, since: float) -> str | None:
        """See :class:`BatchJobs`."""
        for row in self._listed(self.path):
            told = row.get("metadata")
            if isinstance(told, dict) and told.get(self.key_field) == label:
                return _named(row)
            if _time(row) < since - CLOCK_SECONDS:  # the newest come first
                return None
        return None

    def _listed(self, path: str, more: str = "") -> Iterator[dict[str, Any]]:
        after = ""
        for _ in range(PAGES):
            answer, _headers = self._http.ask("GET", f"{self._root}{path}?limit={PAGE}{more}{after}")
            rows = [row for row in (answer or {}).get("data") or [] if isinstance(row, dict)]
            yield from rows
            if not rows or not answer.get("has_more"):
                return
            after = f"&after={answer.get('last_id') or _named(rows[-1])}"

    def look(self, job_id: str) -> JobSeen:
        """See :class:`BatchJobs`."""
        try:
            answer, _ = self._http.ask("GET", f"{self._root}{self.path}/{job_id}")
        except EmbedQueueError as error:
            if is_gone(error):
                return JobSeen("gone", "unknown")
            raise
        return self._seen(answer if isinstance(answer, dict) else {})

    def _seen(self, answer: dict[str, Any]) -> JobSeen:
        status = str(answer.get("status") or "")
        told = answer.get("request_counts"), answer.get("usage")
        counts, usage = (found if isinstance(found, dict) else {} for found in told)
        reason = _reason(answer.get("errors"))
        quota = any(word in reason.lower() for word in QUOTA_WORDS)
        limit = _QUOTA.search(reason) if quota else None
        done = counts.get("completed")
        tokens = usage.get("input_tokens") or usage.get("total_tokens")
        return JobSeen(
            self.ends.get(plain_status(status), "waiting"),
            status,
            done if isinstance(done, int) else None,
            self._parts(answer),
            reason,
            quota,
            int(limit[1].replace(",", "")) if limit else None,
            tokens if isinstance(tokens, int) and tokens > 0 else None,
        )

    def _parts(self, answer: dict[str, Any]) -> tuple[str, ...]:
        files = (answer.get("output_file_id"), answer.get("error_file_id"))
        return tuple(file for file in files if isinstance(file, str) and file)  # an empty string was seen

    def results(self, seen: JobSeen, place: tuple[int, int] = (0, 0)) -> Iterator[JobLine]:
        """See :class:`BatchJobs`."""
        first, start = place
        for at, part in enumerate(seen.parts[first:], first):
            for line, end in self._http.lines(self._content(part), start):
                yield self._read(documents.parse(line), (at, end))
            start = 0

    def _content(self, file: str) -> str:
        return f"{self._root}/files/{file}/content"

    def _read(self, line: Any, place: tuple[int, int]) -> JobLine:
        if not isinstance(line, dict):
            return JobLine("", error="a line that is no JSON", place=place)
        key, response, error = line.get("custom_id"), line.get("response"), line.get("error")
        if not isinstance(key, str):
            return JobLine("", error="a line without custom_id", place=place)
        body = response.get("body") if isinstance(response, dict) else None
        status = response.get("status_code") if isinstance(response, dict) else None
        if error or not isinstance(status, int) or status >= 300:
            return JobLine(key, error=_words(error) or f"{status}: {_words(body)}", place=place)
        try:
            vector, tokens = self._embedder.vector_of(body, self._model)
        except (Malformed, KeyError, TypeError, AttributeError) as malformed:
            return JobLine(key, error=f"{type(malformed).__name__}: {malformed}", place=place)
        return JobLine(key, vector, tokens=tokens, place=place)

    def cancel(self, job_id: str) -> None:
        """See :class:`BatchJobs`."""
        with ended_already():
            self._http.ask("POST", f"{self._root}{self.path}/{job_id}/cancel")

    def delete(self, job_id: str, file: str, label: str) -> None:
        """See :class:`BatchJobs`."""
        files = [file] if file else self._files_of(label)
        if job_id:
            files += self.look(job_id).parts
        for one in files:
            with ignoring_gone():
                self._http.ask("DELETE", f"{self._root}/files/{one}")

    def _files_of(self, label: str) -> list[str]:
        name = _file_name(label)
        return [_named(row) for row in self._listed("/files", "&purpose=batch") if row.get("filename") == name]


class VoyageJobs(OpenAIJobs):
    """Batch jobs of Voyage: OpenAI's, but for lines that hold a text alone, and what is alike for all, told once."""

    max_texts = 100_000
    window = "12h"

    def _line(self, key: str, text: str) -> dict[str, Any]:
        return {"custom_id": key, "body": {"input": self._body(text)["input"]}}

    def _wanted(self, file: str, texts: Mapping[str, str], label: str) -> dict[str, Any]:
        params = {name: value for name, value in self._body("").items() if name != "input"}
        return {**super()._wanted(file, texts, label), "request_params": params}


def jobs_http(embedder: HostedEmbedder) -> BatchHttp:
    """The way to an embedder's server, with its key and its limits."""
    return BatchHttp(embedder.all_headers, embedder.http_limits, embedder.refusal_of)


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.-]", "-", label) + ".jsonl"


def _named(answer: Any) -> str:
    name = answer.get("id") if isinstance(answer, dict) else None
    if not isinstance(name, str) or not name:
        raise TransientError("the provider has answered without an id")
    return name


def _time(row: dict[str, Any]) -> float:
    created = row.get("created_at")
    return float(created) if isinstance(created, int | float) else float("inf")


def _reason(errors: Any) -> str:
    rows = errors.get("data") if isinstance(errors, dict) else errors
    return "; ".join(filter(None, (_words(row) for row in rows))) if isinstance(rows, list) else _words(errors)


def _words(error: Any) -> str:
    if isinstance(error, dict):
        inner = error.get("error")
        if isinstance(inner, dict | str):
            return _words(inner)
        return ": ".join(str(error[name]) for name in ("code", "message") if error.get(name))
    return str(error)[:300] if error else ""
