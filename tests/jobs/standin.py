"""A strict stand-in of the batch APIs of OpenAI, Voyage, Mistral and Gemini, and of their live ones, over real HTTP.

It does by default what their documentation says, and refuses what it does not know. A test makes it misbehave by its
knobs. It counts every text that it would charge for.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from tests.parts import PATIENCE_SECONDS

DIMENSIONS = 16
GEMINI_STATES = {
    "validating": "BATCH_STATE_PENDING",
    "in_progress": "BATCH_STATE_RUNNING",
    "completed": "BATCH_STATE_SUCCEEDED",
    "failed": "BATCH_STATE_FAILED",
    "expired": "BATCH_STATE_EXPIRED",
    "cancelled": "BATCH_STATE_CANCELLED",
}
MISTRAL_STATES = {
    "validating": "QUEUED",
    "in_progress": "RUNNING",
    "completed": "SUCCESS",
    "failed": "FAILED",
    "expired": "TIMEOUT_EXCEEDED",
    "cancelling": "CANCELLATION_REQUESTED",
    "cancelled": "CANCELLED",
}


def vector_of(text: str) -> np.ndarray:
    """The one vector of a text."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
    return np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)


def as_batch(text: str) -> list[float]:
    """The same as a batch gives it: rounded to half precision, as was recorded of OpenAI."""
    return [float(number) for number in vector_of(text).astype(np.float16)]


@dataclass
class File:
    name: str
    content: bytes


@dataclass
class Job:
    id: str
    label: str
    file: str
    lines: list[dict[str, Any]]
    created: float
    status: str = "validating"
    output: str | None = None
    error: str | None = ""
    reason: str = ""
    looks: int = 0
    listed: int = 0
    tokens: int = 0


@dataclass
class Hold:
    """A request that a test holds back: before it is handled, or before its answer goes out."""

    step: str
    arrived: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


class StandIn:
    """The server. Its knobs may be changed at any time.

    Attributes:
        looks: a job ends at this look at it; None: when the test says so.
        ending: in what it ends.
        lines: changes the lines of a result before they are written: takes and returns (output, errors).
        hidden_lists: lists that do not show a job yet.
        hidden_looks: looks that answer 404.
        refuse: status, words and times, by step.
        drop: steps of which the answer never goes out, by how often.
        folded: answers are gzip.
        stall_download: of the download of this number, the first half comes, then "middle" may be held.
        break_after: bytes after which the next downloads break, one for each.
        ranges: whether a part of a file can be asked for.
        charged: texts of jobs that were accepted.
        live: texts of live calls.
        cancelling: looks at a cancelled job for which it is still being cancelled; then it has what it had done.
    """

    def __init__(self) -> None:
        self.looks: int | None = 2
        self.ending = "completed"
        self.cancelling = 0
        self.reason = ""
        self.lines: Callable[[list[Any], list[Any]], tuple[list[Any], list[Any]]] = lambda out, err: (out, err)
        self.hidden_lists = self.hidden_looks = 0
        self.refuse: dict[str, list[tuple[int, str]]] = {}
        self.drop: Counter[str] = Counter()
        self.folded = False
        self.ranges = True
        self.break_after: list[int] = []
        self.status_word: Callable[[str], str] = lambda word: word
        self.live_vector: Callable[[str], np.ndarray] = vector_of
        self.batch_vector: Callable[[str], list[float]] = as_batch
        self.charged: Counter[str] = Counter()
        self.live: Counter[str] = Counter()
        self.files: dict[str, File] = {}
        self.jobs: dict[str, Job] = {}
        self.requests: list[str] = []
        self.holds: list[Hold] = []
        self.null_output = False
        self.downloads = 0
        self.stall_download: int | None = None
        self.empty_error: str | None = ""
        self.lock = threading.RLock()
        self.count = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.server.handle_error = lambda request, address: None  # clients that vanish are a part of the tests
        self.server.stand_in = self
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def stop(self) -> None:
        for hold in self.holds:
            hold.go_on.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(PATIENCE_SECONDS)

    def hold(self, step: str) -> Hold:
        """Hold the next request of a step: "create" before it is handled, "create done" before its answer goes out."""
        hold = Hold(step)
        with self.lock:
            self.holds.append(hold)
        return hold

    def held(self, step: str) -> None:
        with self.lock:
            hold = next((one for one in self.holds if one.step == step and not one.arrived.is_set()), None)
            if hold is not None:
                hold.arrived.set()
        if hold is not None:
            hold.go_on.wait(PATIENCE_SECONDS)

    def named(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def job(self) -> Job:
        """The last one."""
        return list(self.jobs.values())[-1]

    def finish(self, job: Job, ending: str) -> None:
        """End a job, with what it has done until then."""
        out, err = [], []
        for line in job.lines:
            text = text_of(line)
            out.append((line["key"], {"text": text, "vector": self.batch_vector(text), "tokens": len(text) // 4 + 1}))
        out, err = self.lines(out, err)
        if isinstance(job, GeminiJob):  # which has one file for both
            out, err = [*out, *err], []
        job.status, job.reason = ending, self.reason
        job.tokens = sum(done["tokens"] for _, done in out if isinstance(done, dict))
        if ending == "failed":
            return
        if not (self.null_output or (ending == "expired" and not out)):
            job.output = self.named(f"{job.files}out-")
            self.files[job.output] = File("out", job.render(out))
        job.error = self.empty_error
        if err and isinstance(job, OpenAIJob):
            job.error = self.named(f"{job.files}err-")
            self.files[job.error] = File("err", job.render(err))


class OpenAIJob(Job):
    files = "file-"

    def render(self, rows: list[Any]) -> bytes:
        lines = []
        for key, done in rows:
            if isinstance(done, dict):
                body = {
                    "object": "list",
                    "data": [{"object": "embedding", "index": 0, "embedding": done["vector"]}],
                    "model": "m",
                    "usage": {"prompt_tokens": done["tokens"], "total_tokens": done["tokens"]},
                }
                response, error = {"status_code": 200, "request_id": "r", "body": body}, None
            elif isinstance(done, int):
                response = {"status_code": done, "body": {"error": {"message": f"answered {done}"}}}
                error = None
            else:
                response, error = None, {"code": done, "message": f"this line has {done}"}
            lines.append(json.dumps({"id": "b", "custom_id": key, "response": response, "error": error}))
        return "".join(line + "\n" for line in lines).encode()

    def seen(self, word: str) -> dict[str, Any]:
        validating = self.status == "validating"
        done = len(self.lines) if self.status == "completed" else 0
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": "/v1/embeddings",
            "input_file_id": self.file,
            "completion_window": "24h",
            "status": word,
            "created_at": int(self.created),
            "output_file_id": self.output,
            "error_file_id": self.error,
            "metadata": {"embedqueue": self.label},
            "request_counts": {"total": 0 if validating else len(self.lines), "completed": done, "failed": 0},
            "usage": {"input_tokens": self.tokens},
            "errors": {"object": "list", "data": [{"code": self.reason, "message": self.reason}]}
            if self.reason
            else None,
        }


class MistralJob(OpenAIJob):
    def seen(self, word: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "batch",
            "input_files": [self.file],
            "metadata": {"embedqueue": self.label},
            "endpoint": "/v1/embeddings",
            "model": "codestral-embed",
            "output_file": self.output,
            "error_file": self.error or None,
            "errors": [{"message": self.reason, "count": 1}] if self.reason else [],
            "status": MISTRAL_STATES.get(word, word),
            "created_at": int(self.created),
            "total_requests": len(self.lines),
            "completed_requests": len(self.lines) if self.output else 0,
            "succeeded_requests": len(self.lines) if self.output else 0,
            "failed_requests": 0,
        }


class GeminiJob(Job):
    files = "files/"

    def render(self, rows: list[Any]) -> bytes:
        lines = []
        for key, done in rows:
            if isinstance(done, dict):
                response = {"embedding": {"values": done["vector"]}, "tokenCount": str(done["tokens"])}
                lines.append(json.dumps({"key": key, "response": response}))
            else:
                lines.append(json.dumps({"key": key, "error": {"code": done, "message": f"error {done}"}}))
        return "".join(line + "\n" for line in lines).encode()

    def seen(self, word: str) -> dict[str, Any]:
        metadata = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.EmbedContentBatch",
            "name": self.id,
            "displayName": self.label,
            "model": "models/m",
            "createTime": "2026-11-01T00:00:00Z",
            "batchStats": {"requestCount": str(len(self.lines))},
            "state": GEMINI_STATES.get(word, word),
        }
        found: dict[str, Any] = {"name": self.id, "metadata": metadata}
        if self.output:
            metadata["output"] = {"responsesFile": self.output}
            found |= {"done": True, "response": {"responsesFile": self.output}}
        if self.reason:
            found["error"] = {"code": 8, "message": self.reason}
        return found


def text_of(line: dict[str, Any]) -> str:
    found = line["body"]["input"] if "body" in line else line["request"]["content"]["parts"][0]["text"]
    return found[0] if isinstance(found, list) else found


class _Refused(Exception):
    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def _need(condition: Any, words: str, status: int = 400) -> None:
    if not condition:
        raise _Refused(status, words)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_DELETE = do_GET

    def _serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        stand_in: StandIn = self.server.stand_in
        self.it = stand_in
        headers: dict[str, str] = {}
        try:
            step, handle = self._step(self.command, parts.path)
            with stand_in.lock:
                stand_in.requests.append(step)
            stand_in.held(step)
            with stand_in.lock:
                if stand_in.refuse.get(step):
                    raise _Refused(*stand_in.refuse[step].pop(0))
                answer = handle()
                dropped = stand_in.drop[step] > 0
                stand_in.drop[step] -= dropped
            stand_in.held(f"{step} done")
            if dropped:
                self.close_connection = True
                return
            status = 200
            if isinstance(answer, tuple):
                answer, headers = answer
        except _Refused as refused:
            status = refused.status
            answer = {"error": {"message": str(refused), "code": refused.status}}
        if isinstance(answer, bytes):
            self._send_file(answer)
            return
        self._send(status, json.dumps(answer).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        if self.it.folded and "gzip" in self.headers.get("accept-encoding", ""):
            body, headers = gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, content: bytes) -> None:
        start = re.match(r"bytes=(\d+)-$", self.headers.get("range", ""))
        status = 200
        if start and self.it.ranges:
            if int(start[1]) >= len(content):
                self._send(416, b"", {})
                return
            content, status = content[int(start[1]) :], 206
        with self.it.lock:
            self.it.downloads += 1
            stalls = self.it.downloads == self.it.stall_download
            cut = self.it.break_after.pop(0) if self.it.break_after else None
        folded = self.it.folded and "gzip" in self.headers.get("accept-encoding", "")
        body = gzip.compress(content) if folded else content
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if folded:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if stalls:
            self.wfile.write(body[: len(body) // 2])
            self.it.held("middle")
            body = body[len(body) // 2 :]
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True

    # -- which step it is --------------------------------------------------------------------------------------

    def _step(self, method: str, path: str) -> tuple[str, Callable[[], Any]]:
        if path.startswith(("/v1beta/", "/upload/v1beta/")):
            return self._gemini_step(method, path)
        _need(self.headers.get("authorization") == "Bearer key", "wrong key", 401)
        if (method, path) == ("POST", "/v1/embeddings"):
            return "live", self._openai_live
        if (method, path) == ("POST", "/v1/files"):
            return "upload", self._openai_upload
        if (method, path) == ("POST", "/v1/batches"):
            return "create", self._openai_create
        if (method, path) == ("GET", "/v1/batches"):
            return "list", self._openai_list
        if (method, path) == ("GET", "/v1/files"):
            return "list files", self._openai_files
        if (method, path) == ("POST", "/v1/batch/jobs"):
            return "create", self._mistral_create
        if (method, path) == ("GET", "/v1/batch/jobs"):
            return "list", self._mistral_list
        if found := re.fullmatch(r"/v1/batch(?:es|/jobs)/([^/]+)(/cancel)?", path):
            _need(found[1] in self.it.jobs, "no such batch", 404)
            job = self.it.jobs[found[1]]
            return ("cancel", lambda: self._cancel(job)) if found[2] else ("look", lambda: self._look(job))
        if found := re.fullmatch(r"/v1/files/([^/]+)(/content)?", path):
            return self._file_step(method, found[1], bool(found[2]))
        raise _Refused(404, f"no such endpoint: {method} {path}")

    def _file_step(self, method: str, name: str, content: bool) -> tuple[str, Callable[[], Any]]:
        _need(name in self.it.files, "no such file", 404)
        if method == "DELETE":
            return "delete", lambda: [self.it.files.pop(name), {}][1]
        _need(content and method == "GET", "not found", 404)
        return "download", lambda: self.it.files[name].content

    # -- OpenAI ------------------------------------------------------------------------------------------------

    def _openai_live(self) -> Any:
        document = json.loads(self.body)
        rows = []
        for index, text in enumerate(document["input"]):
            self.it.live[text] += 1
            vector = self.it.live_vector(text).astype("<f4")
            stored = base64.b64encode(vector.tobytes()).decode()
            encoded = stored if document.get("encoding_format") == "base64" else [float(one) for one in vector]
            rows.append({"object": "embedding", "index": index, "embedding": encoded})
        return {"object": "list", "data": rows, "model": document["model"], "usage": {"total_tokens": len(rows)}}

    def _openai_upload(self) -> Any:
        kind = self.headers.get("content-type", "")
        _need(kind.startswith("multipart/form-data; boundary="), "no multipart")
        parts = self.body.split(b"--" + kind.partition("boundary=")[2].encode())
        fields = {}
        for part in parts[1:-1]:
            head, _, value = part.partition(b"\r\n\r\n")
            fields[re.search(rb'name="([^"]+)"', head)[1].decode()] = (head, value[:-2])
        _need(fields["purpose"][1] == b"batch", "wrong purpose")
        head, content = fields["file"]
        name = self.it.named("file-")
        filename = re.search(rb'filename="([^"]+)"', head)[1].decode()
        self.it.files[name] = File(filename, content)
        return {"id": name, "object": "file", "bytes": len(content), "filename": filename, "purpose": "batch"}

    def _openai_create(self) -> Any:
        wanted = json.loads(self.body)
        params = wanted.pop("request_params", None)
        if params is not None:
            return self._voyage_create(wanted, params)
        _need(set(wanted) == {"input_file_id", "endpoint", "completion_window", "metadata"}, f"fields {set(wanted)}")
        _need(wanted["endpoint"] == "/v1/embeddings" and wanted["completion_window"] == "24h", "wrong window")
        _need(wanted["input_file_id"] in self.it.files, "no such file", 404)
        _need(all(len(one) <= 512 for one in wanted["metadata"].values()), "metadata too long")
        lines = [json.loads(line) for line in self.it.files[wanted["input_file_id"]].content.splitlines()]
        for line in lines:
            _need(set(line) == {"custom_id", "method", "url", "body"}, "fields of a line")
            _need((line["method"], line["url"]) == ("POST", "/v1/embeddings"), "url of a line")
            _need(line["body"]["dimensions"] == DIMENSIONS, "dimensions")
            line["key"] = line["custom_id"]
        return self._created(OpenAIJob, "batch_", wanted["metadata"]["embedqueue"], wanted["input_file_id"], lines)

    def _voyage_create(self, wanted: dict[str, Any], params: dict[str, Any]) -> Any:
        _need(set(wanted) == {"input_file_id", "endpoint", "completion_window", "metadata"}, f"fields {set(wanted)}")
        _need(wanted["endpoint"] == "/v1/embeddings" and wanted["completion_window"] == "12h", "wrong window")
        _need(params["model"] == "voyage-4" and params["input_type"] == "document", f"params {params}")
        _need(params["output_dimension"] == DIMENSIONS and "input" not in params, f"params {params}")
        _need(wanted["input_file_id"] in self.it.files, "Input file not found", 404)
        lines = [json.loads(line) for line in self.it.files[wanted["input_file_id"]].content.splitlines()]
        for line in lines:
            _need(set(line) == {"custom_id", "body"} and set(line["body"]) == {"input"}, "fields of a line")
            line["key"] = line["custom_id"]
        return self._created(OpenAIJob, "batch_", wanted["metadata"]["embedqueue"], wanted["input_file_id"], lines)

    def _mistral_create(self) -> Any:
        wanted = json.loads(self.body)
        fields = {"input_files", "endpoint", "model", "timeout_hours", "metadata"}
        _need(set(wanted) == fields, f"fields {set(wanted)}", 422)
        _need((wanted["endpoint"], wanted["model"]) == ("/v1/embeddings", "codestral-embed"), "endpoint or model", 422)
        [file] = wanted["input_files"]
        _need(file in self.it.files, "no such file", 404)
        lines = [json.loads(line) for line in self.it.files[file].content.splitlines()]
        for line in lines:
            body = line["body"]
            _need(set(line) == {"custom_id", "body"} and "model" not in body, "fields of a line", 422)
            _need(body["output_dimension"] == DIMENSIONS, "output_dimension", 422)
            _need(body.get("encoding_format", "float") == "float", "encoding_format", 422)
            line["key"] = line["custom_id"]
        return self._created(MistralJob, "job-", wanted["metadata"]["embedqueue"], file, lines)

    def _mistral_list(self) -> Any:
        _need(set(self.query) == {"page", "page_size"}, f"query {self.query}", 422)
        page, size = int(self.query["page"]), int(self.query["page_size"])
        jobs = list(reversed(self._shown_jobs()))  # the oldest first: the worst that its order may be
        rows = [job.seen(job.status) for job in jobs[page * size :][:size]]
        return {"object": "list", "data": rows, "total": len(jobs)}

    def _created(self, kind: type[Job], prefix: str, label: str, file: str, lines: list[dict[str, Any]]) -> Any:
        _need(len({line["key"] for line in lines}) == len(lines), "a key twice")
        job = kind(self.it.named(prefix), label, file, lines, time.time())
        self.it.jobs[job.id] = job
        self.it.charged.update(text_of(line) for line in lines)
        return job.seen(self.it.status_word(job.status))

    def _openai_list(self) -> Any:
        jobs = self._shown_jobs()
        return {"object": "list", "data": [job.seen(job.status) for job in jobs], "has_more": False}

    def _shown_jobs(self) -> list[Job]:
        if self.it.hidden_lists > 0:
            self.it.hidden_lists -= 1
            return []
        return list(reversed(self.it.jobs.values()))

    def _openai_files(self) -> Any:
        rows = [{"id": name, "filename": file.name, "purpose": "batch"} for name, file in self.it.files.items()]
        return {"object": "list", "data": rows, "has_more": False}

    def _cancel(self, job: Job) -> Any:
        _need(job.status in ("validating", "in_progress"), "it has ended", 409)
        job.status, job.looks = "cancelling" if self.it.cancelling else "cancelled", 0
        return job.seen("cancelling")

    def _look(self, job: Job) -> Any:
        if self.it.hidden_looks > 0:
            self.it.hidden_looks -= 1
            raise _Refused(404, "no such batch yet")
        job.looks += 1
        if job.status in ("validating", "in_progress"):
            job.status = "in_progress"
            if self.it.looks is not None and job.looks >= self.it.looks:
                self.it.finish(job, self.it.ending)
        elif job.status == "cancelling" and 0 < self.it.cancelling < job.looks:
            self.it.finish(job, "cancelled")
        return job.seen(self.it.status_word(job.status))

    # -- Gemini ------------------------------------------------------------------------------------------------

    def _gemini_step(self, method: str, path: str) -> tuple[str, Callable[[], Any]]:
        if path.startswith("/upload/v1beta/session/"):
            return "upload", lambda: self._gemini_upload(path.rpartition("/")[2])
        _need(self.headers.get("x-goog-api-key") == "key", "wrong key", 401)
        if (method, path) == ("POST", "/upload/v1beta/files"):
            return "begin upload", self._gemini_begin
        if method == "POST" and path.endswith(":batchEmbedContents"):
            return "live", self._gemini_live
        if method == "POST" and path.endswith(":asyncBatchEmbedContent"):
            return "create", self._gemini_create
        if (method, path) == ("GET", "/v1beta/batches"):
            return "list", lambda: {"operations": [job.seen(job.status) for job in self._shown_jobs()]}
        if (method, path) == ("GET", "/v1beta/files"):
            return "list files", lambda: {
                "files": [{"name": name, "displayName": file.name} for name, file in self.it.files.items()]
            }
        if found := re.fullmatch(r"/v1beta/(batches/[^/:]+)(:cancel)?", path):
            _need(found[1] in self.it.jobs, "no such batch", 404)
            job = self.it.jobs[found[1]]
            if method == "DELETE":
                return "delete", dict
            return ("cancel", lambda: self._cancel(job)) if found[2] else ("look", lambda: self._look(job))
        if found := re.fullmatch(r"/v1beta/(files/[^/:]+)(:download)?", path):
            _need(not found[2] or self.query.get("alt") == "media", "alt=media is missing")
            hidden = f"You do not have permission to access the File {found[1]} or it may not exist."
            _need(method != "DELETE" or found[1] in self.it.files, hidden, 403)
            return self._file_step(method, found[1], bool(found[2]))
        raise _Refused(404, f"no such endpoint: {method} {path}")

    def _gemini_begin(self) -> Any:
        _need(self.headers.get("x-goog-upload-protocol") == "resumable", "no protocol")
        _need(self.headers.get("x-goog-upload-command") == "start", "no command")
        name = self.it.named("files/f")
        self.it.files[name] = File(json.loads(self.body)["file"]["displayName"], b"")
        return {}, {"X-Goog-Upload-URL": f"{self.it.url}/upload/v1beta/session/{name.rpartition('/')[2]}"}

    def _gemini_upload(self, name: str) -> Any:
        _need(self.headers.get("x-goog-upload-command") == "upload, finalize", "no command")
        self.it.files[f"files/{name}"].content = self.body
        return {"file": {"name": f"files/{name}", "state": "ACTIVE"}}

    def _gemini_live(self) -> Any:
        rows = []
        for request in json.loads(self.body)["requests"]:
            text = request["content"]["parts"][0]["text"]
            self.it.live[text] += 1
            rows.append({"values": [float(one) for one in self.it.live_vector(text)]})
        return {"embeddings": rows}

    def _gemini_create(self) -> Any:
        batch = json.loads(self.body)["batch"]
        _need(set(batch) == {"displayName", "inputConfig"}, "fields")
        file = batch["inputConfig"]["file_name"]
        _need(file in self.it.files, "no such file", 404)
        lines = [json.loads(line) for line in self.it.files[file].content.splitlines()]
        for line in lines:
            _need(set(line) == {"key", "request"}, "fields of a line")
            _need(set(line["request"]) <= {"content", "taskType", "outputDimensionality"}, f"fields {line['request']}")
            _need(line["request"]["outputDimensionality"] == DIMENSIONS, "dimensions")
        return self._created(GeminiJob, "batches/b", batch["displayName"], file, lines)
