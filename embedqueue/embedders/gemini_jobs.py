"""Batch jobs of Gemini's own API: ``asyncBatchEmbedContent`` (docs/half-price.md has the sources).

Texts go in a file, whatever their number: a result that stands in the answer itself comes twice in it, and large ones
never come. Where a result stands there all the same, it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from embedqueue.embedders import documents
from embedqueue.values.errors import EmbedQueueError, TransientError
from embedqueue.values.vectors import Malformed

from .batch_http import BatchHttp
from .batch_jobs import JobLine, JobSeen, JobStanding, ended_already, ignoring_gone, is_gone, plain_status
from .http import host_and_port

_ENDS: Mapping[str, JobStanding] = {
    "succeeded": "done", "partially_succeeded": "done", "failed": "failed", "expired": "expired",
    "cancelled": "cancelled",
}  # fmt: skip
#: google.rpc.Code of RESOURCE_EXHAUSTED.
_EXHAUSTED = 8
PAGE, PAGES = 100, 50
#: Where results stand, by the names that were seen; the name of the one that stands in the answer is the last.
_INLINE = ("inlinedResponses", "inlinedEmbedContentResponses")
#: Name of the part of a result that stands in the answer itself.
_HERE = "the answer"
#: Longer numbers count nothing.
_COUNT_DIGITS = 15


class GeminiJobs:
    """Batch jobs of Gemini.

    Args:
        embedder: whose key, texts and options they take.
        model: its name as a resource, ``models/NAME``.
        http: of that embedder.
        root: the address of the API, with its version.
    """

    max_texts = 50_000

    def __init__(self, embedder: Any, model: str, http: BatchHttp, root: str) -> None:
        self._embedder = embedder
        self._model = model
        self._http = http
        self._root = root
        host, _, version = root.rpartition("/")
        self._upload = f"{host}/upload/{version}"

    def _line(self, key: str, text: str) -> dict[str, Any]:
        [request] = self._embedder.body_of(text, self._model)["requests"]
        return {"key": key, "request": {name: value for name, value in request.items() if name != "model"}}

    def upload(self, texts: Mapping[str, str], label: str) -> str:
        """See :class:`BatchJobs`."""
        content = b"\n".join(documents.serialise(self._line(key, text)) for key, text in texts.items()) + b"\n"
        begin = {
            "X-Goog-Upload-Protocol": "resumable",
            "X-Goog-Upload-Command": "start",
            "X-Goog-Upload-Header-Content-Length": str(len(content)),
            "X-Goog-Upload-Header-Content-Type": "application/jsonl",
        }
        named = {"file": {"displayName": label}}
        _, headers = self._http.ask("POST", f"{self._upload}/files", named, headers=begin)
        url = headers.get("x-goog-upload-url")
        if not url:
            raise TransientError("the provider has not said where the file goes")
        end = {"X-Goog-Upload-Offset": "0", "X-Goog-Upload-Command": "upload, finalize"}
        # The address is a permission by itself, and need not be of this host: another one gets no key.
        ours = host_and_port(url) == host_and_port(self._root)
        answer, _ = self._http.ask("POST", url, data=content, headers=end, credentials=ours)
        return _named(answer.get("file") if isinstance(answer, dict) else None)

    def create(self, file: str, texts: Mapping[str, str], label: str) -> str:
        """See :class:`BatchJobs`."""
        batch = {"displayName": label, "inputConfig": {"file_name": file}}
        url = f"{self._root}/{quote(self._model)}:asyncBatchEmbedContent"
        answer, _ = self._http.ask("POST", url, {"batch": batch})
        return _named(answer)

    def find(self, label: str, since: float) -> str | None:
        """See :class:`BatchJobs`. The whole list is looked through: nothing is known of its order."""
        for row in self._listed("batches", "operations"):
            if _batch(row).get("displayName") == label:
                return _named(row)
        return None

    def _listed(self, what: str, rows: str) -> Iterator[dict[str, Any]]:
        page = ""
        for _ in range(PAGES):
            answer, _headers = self._http.ask("GET", f"{self._root}/{what}?pageSize={PAGE}{page}")
            found = answer if isinstance(answer, dict) else {}
            yield from (row for row in found.get(rows) or found.get(what) or [] if isinstance(row, dict))
            if not found.get("nextPageToken"):
                return
            page = f"&pageToken={quote(found['nextPageToken'])}"

    def look(self, job_id: str) -> JobSeen:
        """See :class:`BatchJobs`."""
        try:
            answer, _ = self._http.ask("GET", f"{self._root}/{job_id}")
        except EmbedQueueError as error:
            if is_gone(error):
                return JobSeen("gone", "unknown")
            raise
        answer = answer if isinstance(answer, dict) else {}
        batch = _batch(answer)
        status = str(batch.get("state") or "")
        output = _output(answer)
        file = output.get("responsesFile") or output.get("responses_file")
        said = answer.get("error") or batch.get("error") or {}
        fault = said if isinstance(said, dict) else {"message": str(said)}
        stats = batch.get("batchStats")
        return JobSeen(
            _ENDS.get(plain_status(status), "waiting"),
            status,
            _count(stats.get("successfulRequestCount")) if isinstance(stats, dict) else None,
            (file,) if isinstance(file, str) and file else (_HERE,) if _inline(output) else (),
            str(fault.get("message") or "")[:300],
            fault.get("code") in (_EXHAUSTED, 429) or "quota" in str(fault.get("message")).lower(),
            document=output if not file else None,
        )

    def results(self, seen: JobSeen, place: tuple[int, int] = (0, 0)) -> Iterator[JobLine]:
        """See :class:`BatchJobs`."""
        if place[0] or not seen.parts:
            return
        if seen.parts == (_HERE,):
            for row in _inline(seen.document or {}):
                yield self._read(row, (0, 0))
            return
        for line, end in self._http.lines(f"{self._root}/{seen.parts[0]}:download?alt=media", place[1]):
            yield self._read(documents.parse(line), (0, end))

    def _read(self, line: Any, place: tuple[int, int]) -> JobLine:
        if not isinstance(line, dict):
            return JobLine("", error="a line that is no JSON", place=place)
        metadata = line.get("metadata")
        key = line.get("key") or (metadata.get("key") if isinstance(metadata, dict) else None)
        if not isinstance(key, str):
            return JobLine("", error="a line without key", place=place)
        response, error = line.get("response"), line.get("error")
        if error or not isinstance(response, dict):
            said = error if isinstance(error, dict) else {}
            return JobLine(key, error=f"{said.get('code')}: {str(said.get('message'))[:300]}", place=place)
        answer = {"embeddings": [response.get("embedding")]}
        try:
            vector, _ = self._embedder.vector_of(answer, self._model)
        except (Malformed, KeyError, TypeError, AttributeError) as malformed:
            return JobLine(key, error=f"{type(malformed).__name__}: {malformed}", place=place)
        return JobLine(key, vector, tokens=_count(response.get("tokenCount")), place=place)

    def cancel(self, job_id: str) -> None:
        """See :class:`BatchJobs`."""
        with ended_already():
            self._http.ask("POST", f"{self._root}/{job_id}:cancel", {})

    def delete(self, job_id: str, file: str, label: str) -> None:
        """See :class:`BatchJobs`."""
        names = [file] if file else [
            _named(row) for row in self._listed("files", "files") if row.get("displayName") == label
        ]  # fmt: skip
        if job_id:
            names += [part for part in self.look(job_id).parts if part != _HERE]
            names.append(job_id)
        for name in names:
            with ignoring_gone():
                self._http.ask("DELETE", f"{self._root}/{name}")


def _count(value: Any) -> int | None:
    """A number, which Google's JSON writes as a string as well; None where it is none that could be."""
    digits = str(value) if isinstance(value, int | str) else ""
    return int(digits) if digits.isdecimal() and len(digits) <= _COUNT_DIGITS else None


def _named(answer: Any) -> str:
    name = answer.get("name") if isinstance(answer, dict) else None
    if not isinstance(name, str) or not name:
        raise TransientError("the provider has answered without a name")
    return name


def _batch(answer: dict[str, Any]) -> dict[str, Any]:
    """The job in an answer: in an operation around it, or as it is."""
    inner = answer.get("metadata")
    return inner if isinstance(inner, dict) and inner else answer


def _output(answer: dict[str, Any]) -> dict[str, Any]:
    for place in (_batch(answer).get("output"), answer.get("response"), answer.get("output"), answer.get("dest")):
        if isinstance(place, dict) and place:
            return place
    return {}


def _inline(output: dict[str, Any]) -> list[Any]:
    for name in _INLINE:
        rows = output.get(name)
        rows = rows.get("inlinedResponses") if isinstance(rows, dict) else rows
        if isinstance(rows, list) and rows:
            return rows
    return []
