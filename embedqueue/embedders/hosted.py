"""What the embedders behind HTTP have in common: key, limits, one call, and the options that a server may not know."""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedqueue.embedders import documents
from embedqueue.values.errors import (
    ConfigurationError,
    EmbedQueueError,
    OptionTypeError,
    OptionValueError,
    TransientError,
)
from embedqueue.values.options import EMBED_DIMENSIONS
from embedqueue.values.vectors import Malformed, length_of
from embedqueue.values.words import READ_CHARS, SHOWN_CHARS, forms, printable, shown_url, without_secrets

from .answers import OptionRefused, classify
from .faults import read_fault
from .http import Answer, Http, Limits, host_and_port, origin
from .keys import Secret, revealed
from .protocol import RateSeen
from .rates import rates_of
from .roles import Role
from .usage import Usage
from .waits import asked_wait

#: Seconds to connect and seconds of silence that an embedder bears by default.
DEFAULT_TIMEOUT = (5.0, 60.0)
#: Decoded bytes of an answer: 2,048 vectors of 3,072 numbers in base64 are half of it.
DEFAULT_MAX_RESPONSE_BYTES = 64 << 20
#: The whole call may take this many times the read timeout, unless told otherwise.
_DEADLINE_PER_READ = 2

#: What a header may carry: visible ASCII. Anything else is a key with a slip of the hand in it.
_SENDABLE_KEY = re.compile(r"[!-~]+")


class Address(NamedTuple):
    """Where to post, from a base URL as people write it.

    Attributes:
        url: whole; whether it is a good one shows at the first call.
        guessed_path: the part of its path that was guessed, or "".
    """

    url: str
    guessed_path: str


def parted(base_url: Any) -> tuple[str, str, bool]:
    """A base URL in parts.

    Args:
        base_url: as the user gave it.

    Returns:
        The address without a final slash; the query with its mark, or ""; whether the address has a path.

    Raises:
        OptionTypeError: it is no string.
    """
    if not isinstance(base_url, str):
        raise OptionTypeError("base_url", f"must be a string, not {type(base_url).__name__}")
    address, mark, query = base_url.strip().partition("?")
    address = address.rstrip("/")
    return address, mark + query, "/" in address.partition("://")[2]


class HostedEmbedder:
    """An embedder behind an HTTP API. Thread-safe; use it from forked processes as you like.

    Subclasses say where to post, what, and how to read the answer.

    Args:
        api_key: the key; None looks into the environment at the first call, "" sends none.
        url: the address that subclasses make their own from, with what they have guessed of it.
        dimensions: length of the vectors; None: that of the model, known or learned from the first answer.
        timeout: seconds that the server may keep silent, or a pair: seconds to connect, seconds of silence.
        deadline: seconds for a whole call; None means twice the read timeout.
        max_texts: what one call may hold; None means no known limit.
        max_tokens: what one call may hold; None means no known limit.
        max_response_bytes: the largest answer that is read, decoded.
        headers: more headers for every request. They win over ours.
        max_text_tokens: what one text may hold; None means what is known of the model.

    Raises:
        TypeError, ValueError: an option that cannot work; no key or header is shown.
    """

    #: Environment variables that may hold the key, in the order in which they are looked at.
    key_variables: tuple[str, ...] = ()
    #: Whose API it is, as OpenTelemetry names it (``gen_ai.provider.name``).
    provider = ""
    #: Fields of an answer that only a success has.
    success_field = "data"
    #: How long vectors are that are asked for without a length, unless another model is asked for.
    native_dimensions = EMBED_DIMENSIONS
    #: Of which models the length is known, by their names without what stands before a slash.
    model_dimensions: ClassVar[Mapping[str, int]] = {}

    def __init__(
        self,
        api_key: Secret | None,
        url: Address,
        dimensions: int | None,
        timeout: float | tuple[float, float],
        *,
        deadline: float | None,
        max_texts: int | None,
        max_tokens: int | None,
        max_response_bytes: int,
        headers: Mapping[str, Secret] | None,
        max_text_tokens: int | None,
    ) -> None:
        connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        limits = Limits(
            connect_seconds=_positive("timeout", connect),
            read_seconds=_positive("timeout", read),
            deadline_seconds=_positive("deadline", _DEADLINE_PER_READ * read if deadline is None else deadline),
            response_bytes=_count("max_response_bytes", max_response_bytes),
        )
        self._given_dimensions = None if dimensions is None else _count("dimensions", dimensions)
        self._met: str | None = None  # the model that a queue asks for
        self.dimensions: int | None = self._given_dimensions or self.native_dimensions
        self.max_texts = None if max_texts is None else _count("max_texts", max_texts)
        self.max_tokens = None if max_tokens is None else _count("max_tokens", max_tokens)
        self.max_text_tokens = None if max_text_tokens is None else _count("max_text_tokens", max_text_tokens)
        self.task_type: str | None = None
        self._url, self._guessed_path = url.url, url.guessed_path
        self._given_key = None if api_key is None else revealed("api_key", api_key)
        self._key: str | None = None  # set at the first call, by whichever thread is first: all find the same
        self._extra_headers = {name: revealed(f"headers[{name!r}]", value) for name, value in (headers or {}).items()}
        self._http = Http(self._all_headers, limits)
        self._usage = Usage()
        #: Options that the server refused, with what is sent instead; None sends nothing. Single assignments only.
        self._learned: dict[str, Any] = {}
        self._told = threading.local()  # what the last answer of each thread has said beside its vectors

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={shown_url(self._url)!r}, dimensions={self.dimensions})"

    def meet(self, model: str) -> None:
        """Take the length that the vectors of a model are known to have, or learn it, unless one was given.

        Args:
            model: what a queue will ask for.
        """
        if self._given_dimensions is None and model != self._met:
            self._met, self.dimensions = model, self.known_dimensions(model)

    @classmethod
    def known_dimensions(cls, model: str) -> int | None:
        """How long a model's vectors are that are asked for without a length; None where that is not known."""
        return cls.model_dimensions.get(model.rpartition("/")[2])

    @property
    def _asked_dimensions(self) -> int | None:
        """The length to ask for; None for the one that the model gives by itself."""
        asked = self._given_dimensions or (self.known_dimensions(self._met) if self._met else None)
        return None if asked == self.native_dimensions else asked

    @property
    def variant(self) -> str:
        """What decides a vector beside its text, the model, its length and the task: whose server, and what it is told.

        Vectors of one variant are not kept for another, see ``Cache``.
        """
        return self._url

    @property
    def server(self) -> tuple[str, int] | None:
        """Host and port of the server; None for an address that is none."""
        return host_and_port(self._url)

    def close(self) -> None:
        """Close the connections that this process holds. A later call opens new ones."""
        self._http.close()

    def rates_seen(self) -> Sequence[RateSeen]:
        """What the provider has said of its limits with the last answer of this thread."""
        rates: Sequence[RateSeen] = getattr(self._told, "rates", ())
        return rates

    def embed_batch(self, texts: Sequence[str], model: str) -> NDArray[np.float32]:
        """Embed documents in one call.

        Args:
            texts: the texts, none of them blank.
            model: the model's name, with or without its vendor's prefix.

        Returns:
            Float32 array with one row a text, in order, as wide as the provider made them. Rows may hold
            NaN where the provider gave none: check before writing.

        Raises:
            TransientError: the same call may work later.
            InputRejected: a text of the call will never work (``CallTooLarge``: the call, not a text).
            ConfigurationError: nothing will work until somebody acts.
        """
        return self._embed_as(self._document_role(model), texts, model)

    def embed_queries(self, texts: Sequence[str], model: str) -> NDArray[np.float32]:
        """Embed queries in one call; all else is as with :meth:`embed_batch`."""
        return self._embed_as(self._query_role(model), texts, model)

    def role_of_documents(self, model: str) -> str | None:
        """What documents are embedded as with a model, in one word; None if the provider is told of no role."""
        return self._document_role(model).name

    def _embed_as(self, role: Role, texts: Sequence[str], model: str) -> NDArray[np.float32]:
        if isinstance(texts, str):
            raise TypeError("texts must be a sequence of str, not one str")
        texts = list(texts)
        if not texts:
            return np.empty((0, self.dimensions or 0), dtype=np.float32)
        try:
            rows = self._embed(role, texts, model)
        except EmbedQueueError as error:  # servers and proxies say in many places what they were sent
            error.args = (printable(without_secrets(str(error)[:READ_CHARS], self._secrets()))[:SHOWN_CHARS],)
            raise
        if self.dimensions is None:
            self.dimensions = length_of(rows)
        return rows

    # -- what its batch jobs need: see batch_jobs.py -----------------------------------------------------------

    @property
    def http_limits(self) -> Limits:
        """What one call may take."""
        return self._http.limits

    def all_headers(self) -> Mapping[str, str]:
        """The headers of every request, credentials included."""
        return self._all_headers()

    def refusal_of(self, answer: Answer, url: str) -> EmbedQueueError:
        """The error that an answer from 300 on becomes, without secrets."""
        error = self._refusal(answer, url, (), {})
        error.args = (printable(without_secrets(str(error)[:READ_CHARS], self._secrets()))[:SHOWN_CHARS],)
        return error

    def body_of(self, text: str, model: str) -> Any:
        """The body of a call for one document, with what the server was found not to know left out."""
        role = self._document_role(model)
        wanted = {name: self._learned.get(name, value) for name, value in self._options(model, role).items()}
        options = {name: value for name, value in wanted.items() if value is not None}
        return self._body(role, [role.prefix + text], model, options)

    def vector_of(self, document: Any, model: str) -> tuple[NDArray[np.float32], int | None]:
        """The one vector of such a call's answer, and what it was charged, where that is said."""
        return self._rows(document, 1, model)[0], self._charged(document)

    def take_tokens(self) -> int | None:
        """The tokens that calls of this thread were charged since it asked last; see :class:`TokenMeter`."""
        return self._usage.take()

    def _embed(self, role: Role, texts: list[str], model: str) -> NDArray[np.float32]:
        wanted = self._options(model, role)
        options = {name: self._learned.get(name, value) for name, value in wanted.items()}
        while True:
            try:
                asked = {name: value for name, value in options.items() if value is not None}
                rows = self._call(role, texts, model, asked)
            except OptionRefused as refused:
                name = refused.option
                options[name] = self._instead_of(name, options[name])
            else:
                break
        # only what a success proves is remembered: a refusal may have been about something else
        self._learned.update((name, options[name]) for name in wanted if options[name] != wanted[name])
        return rows

    def _document_role(self, model: str) -> Role:
        raise NotImplementedError

    def _query_role(self, model: str) -> Role:
        raise NotImplementedError

    def _options(self, model: str, role: Role) -> dict[str, Any]:
        """The options for ``model`` that a server may refuse to know, by the name that goes over the wire."""
        raise NotImplementedError

    def _address(self, model: str) -> str:
        raise NotImplementedError

    def _body(self, role: Role, texts: Sequence[str], model: str, options: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def _rows(self, document: Any, count: int, model: str) -> NDArray[np.float32]:
        raise NotImplementedError

    def _charged(self, document: Any) -> int | None:
        """The tokens that an answer says were charged; None where it does not."""
        raise NotImplementedError

    def _auth(self, key: str) -> dict[str, str]:
        raise NotImplementedError

    def _needs_key(self) -> bool:
        return True

    def _is_success(self, document: Any) -> bool:
        """Whether the body of an answer below 300 holds vectors."""
        return isinstance(document, dict) and not document.get("error") and self.success_field in document

    def _instead_of(self, name: str, value: Any) -> Any:
        """What to send instead of a refused option: nothing, unless there is something weaker."""
        return None

    def _call(self, role: Role, texts: list[str], model: str, options: Mapping[str, Any]) -> NDArray[np.float32]:
        # first: it says so where the model's name has no form in UTF-8
        body = self._serialised(role, texts, model, options)
        url = self._address(model)
        self._told.rates = ()
        answer = self._http.post(url, body)
        self._told.rates = rates_of(answer.headers, None, time.time())
        if answer.status >= 300:
            raise self._refusal(answer, url, texts, options)
        document = documents.parse(answer.body)
        if not self._is_success(document):
            # perhaps a refusal under HTTP 200: OpenRouter sends them when its upstream had started
            refusal = self._refusal(answer, url, texts, options)
            unexplained = isinstance(document, dict) and not document.get("error")
            if unexplained and self._chose_encoding(options) and getattr(refusal, "status", None) == answer.status:
                raise OptionRefused(str(refusal), "encoding_format")
            raise refusal
        self._usage.add(self._charged(document))
        try:
            return self._rows(document, len(texts), model)
        except Malformed as error:
            malformed, encoded = f"{origin(url)}: {error}", error.encoded
        if encoded and self._chose_encoding(options):
            raise OptionRefused(malformed, "encoding_format")
        raise TransientError(malformed, status=answer.status, suspect_input=True)

    def _secrets(self) -> Iterator[str]:
        """All that we send and that nobody else may read, in the forms in which it may come back."""
        for value in (self._key or "", *self._extra_headers.values()):
            yield from forms(str(value))
        yield from self._http.secrets(self._url)

    def _chose_encoding(self, options: Mapping[str, Any]) -> bool:
        """Whether we asked for an encoding on our own account, which a malformed answer may come from."""
        return False

    def _refusal(self, answer: Answer, url: str, texts: Sequence[str], options: Mapping[str, Any]) -> EmbedQueueError:
        fault = read_fault(answer.status, answer.body)
        fault.hide(self._secrets(), texts)
        headers = answer.headers
        self._told.rates = rates_of(headers, fault, time.time())
        return classify(
            fault,
            origin=origin(url),
            count=len(texts),
            wait_seconds=asked_wait(headers, fault.message, fault.retry_delay, time.time()),
            should_retry=headers.get("x-should-retry", "").strip().lower(),
            options=frozenset(options),
            asked=self._asked(url),
        )

    def _asked(self, url: str) -> str:
        """Which address was asked, and what of it nobody has given."""
        if not self._guessed_path:
            return f"{shown_url(url)} was asked"
        return f"{shown_url(url)} was asked, where {self._guessed_path} is a guess: give base_url with its path"

    def _serialised(self, role: Role, texts: Sequence[str], model: str, options: Mapping[str, Any]) -> bytes:
        body = self._body(role, [role.prefix + text for text in texts] if role.prefix else texts, model, options)
        try:
            return documents.serialise(body)
        except ValueError:
            pass  # told below: the error holds the body
        documents.check_sendable(texts)
        raise ConfigurationError("the model's name or an option cannot be sent as JSON")

    def _all_headers(self) -> dict[str, str]:
        """Asked by the session of each thread, once: the key is read at the first call, not before."""
        if self._key is None:
            self._key = self._find_key()
        auth = self._auth(self._key) if self._key else {}
        return {"Content-Type": "application/json", "Accept": "application/json"} | auth | self._extra_headers

    def _find_key(self) -> str:
        candidates = [self._given_key] if self._given_key is not None else map(os.environ.get, self.key_variables)
        key = next((found.strip() for found in candidates if found and found.strip()), "")
        if not key and self._needs_key():
            names = " or ".join(self.key_variables)
            raise ConfigurationError(f"no API key: set {names}, or give {type(self).__name__} an api_key")
        if key and not _SENDABLE_KEY.fullmatch(key):
            del key, candidates  # whoever reports errors shows the locals of this frame
            raise ConfigurationError("the API key holds characters that no header can carry (a space or line break?)")
        return key


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OptionTypeError(name, f"must be a number of seconds, not {value!r}")
    if not (value > 0 and math.isfinite(value)):
        raise OptionValueError(name, f"must be a positive number of seconds, not {value!r}")
    return float(value)


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise OptionTypeError(name, f"must be a whole number, not {value!r}")
    if value < 1:
        raise OptionValueError(name, f"must be at least 1, not {value!r}")
    return value
