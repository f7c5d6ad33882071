"""What batch jobs need of HTTP beside one POST: other methods, files, and results of any size, line by line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests
import urllib3

from embedqueue.embedders import documents
from embedqueue.values.errors import ConfigurationError, EmbedQueueError, TransientError

from .http import Answer, Http, Limits, failure_of, origin, read_answer, redirected, unfolded
from .wire import start_clock

#: Seconds that one result may take to come: gigabytes over a slow line.
DOWNLOAD_SECONDS = 3600.0
#: Bytes of a result that are asked for at once, and of one line at most: 60 kB are 3,072 numbers.
_STEP_BYTES = 1 << 16
MOST_LINE_BYTES = 16 << 20
#: Times in a row that a download goes on where it broke without having brought a line.
RESUMES = 3


class BatchHttp(Http):
    """Requests of any method, and answers that are streamed. Thread-safe and fork-safe.

    Args:
        headers: as with :class:`Http`.
        limits: as with :class:`Http`.
        refusal: makes the error of an answer from 300 on, which an URL has given.
    """

    def __init__(
        self,
        headers: Callable[[], Mapping[str, str]],
        limits: Limits,
        refusal: Callable[[Answer, str], EmbedQueueError],
    ) -> None:
        super().__init__(headers, limits)
        self._refusal = refusal

    def ask(self, method: str, url: str, body: Any = None, **more: Any) -> tuple[Any, Mapping[str, str]]:
        """Send JSON, or what ``more`` says, and read JSON.

        Args:
            method: of HTTP.
            url: where to.
            body: a document; None for none.
            more: ``data``, ``files`` and ``headers`` as requests takes them; and ``credentials=False``, which sends
                neither the key nor any other header of the embedder's.

        Returns:
            The document, or None where the answer is empty; and the headers of the answer.

        Raises:
            TransientError, InputRejected, ConfigurationError: as the embedder's own calls.
        """
        if body is not None:
            more["data"] = documents.serialise(body)
        line = self._line(url)
        answer = self._exchange(line, self._request(line.session, method, url, **more), url)
        if answer.status >= 300:
            raise self._refusal(answer, url)
        document = documents.parse(answer.body) if answer.body.strip() else None
        if document is documents.BROKEN:
            raise TransientError(f"{origin(url)} answered with what is no JSON", status=answer.status)
        return document, answer.headers

    def _request(
        self,
        session: requests.Session,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        credentials: bool = True,
        **more: Any,
    ) -> requests.PreparedRequest:
        known = self._headers() if credentials else {}
        own = {name: value for name, value in known.items() if "files" not in more or name != "Content-Type"}
        all_headers = {"Accept-Encoding": "gzip", **own, **(headers or {})}
        fault = ""
        try:
            request = session.prepare_request(requests.Request(method, url, headers=all_headers, **more))
            request.headers.update(own)  # credentials in the URL are for servers without a key
            return request
        except ValueError as error:
            fault = type(error).__name__
        raise ConfigurationError(f"no request can be made to {origin(url)}: {fault}")

    def lines(self, url: str, start: int = 0) -> Iterator[tuple[bytes, int]]:
        """The lines of a result, in bounded memory. A download that breaks goes on where it was.

        Args:
            url: of the result.
            start: bytes of it, unfolded, that are known already.

        Yields:
            A line, and the byte behind it.

        Raises:
            TransientError: it broke again and again.
            InputRejected, ConfigurationError: the provider refuses it.
        """
        at, failures = start, 0
        while True:
            try:
                with self._opened(url, at) as steps:
                    rest = b""
                    for step in steps:
                        *whole, rest = (rest + step).split(b"\n") if b"\n" in step else [rest + step]
                        for line in whole:
                            at, failures = at + len(line) + 1, 0
                            if line.strip():
                                yield line, at
                        if len(rest) > MOST_LINE_BYTES:
                            raise ConfigurationError(f"a line of the result of {origin(url)} has no end")
                    if rest.strip() and documents.parse(rest) is documents.BROKEN:
                        raise TransientError(f"the result of {origin(url)} ends in the midst of a line")
                    if rest.strip():
                        yield rest, at + len(rest)
                    return
            except TransientError as error:
                failures += 1
                if failures > RESUMES or error.status is not None:
                    raise

    @contextlib.contextmanager
    def _opened(self, url: str, start: int) -> Iterator[Iterator[bytes]]:
        """The body of a result from a byte on, in steps."""
        line = self._line(url)
        # Bytes are counted as they are unfolded, so a part is asked for as it stands.
        part = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"} if start else {}
        request = self._request(line.session, "GET", url, part)
        start_clock(self.limits.read_seconds, DOWNLOAD_SECONDS, 1 << 50)
        response = None
        failure: EmbedQueueError | None = None
        try:
            response = self._send(line, request)
            if response.status_code == 416:  # there is nothing behind that byte
                yield iter(())
                return
            if not 200 <= response.status_code < 300:
                answer = read_answer(response, self.limits.response_bytes)
                refused = redirected(url, answer) if answer.status < 400 else self._refusal(answer, url)
                raise refused
            yield _skipping(_steps(response), 0 if response.status_code == 206 else start)
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            failure = failure_of(error, url, reached=response is not None)
        finally:
            if response is not None:
                response.close()
        if failure is not None:
            raise failure


def _steps(response: requests.Response) -> Iterator[bytes]:
    received = response.raw.stream(_STEP_BYTES, decode_content=False)
    folded = response.headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip")
    return unfolded(received) if folded else received


def _skipping(steps: Iterator[bytes], count: int) -> Iterator[bytes]:
    for step in steps:
        yield step[count:]
        count = max(0, count - len(step))
