"""Whatever a provider answers: vectors of the right shape, or an error that the queue knows how to take."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedqueue.embedders import GeminiEmbedder, OpenAIEmbedder, OpenRouterEmbedder
from embedqueue.embedders.http import Answer
from embedqueue.values.errors import ConfigurationError, InputRejected, TransientError

TEXTS = ["first text", "second text"]
NUMBERS = st.one_of(st.floats(), st.integers(), st.just(1e400), st.none(), st.text(max_size=3), st.booleans())
VECTORS = st.one_of(
    st.lists(NUMBERS, max_size=5),
    st.lists(st.floats(width=32), max_size=4).map(
        lambda row: base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
    ),
    st.text(max_size=12),
    st.none(),
)
ROWS = st.fixed_dictionaries(
    {}, optional={"index": st.integers(-1, 3) | NUMBERS, "embedding": VECTORS, "values": VECTORS, "object": NUMBERS}
)
JSON = st.recursive(
    NUMBERS | ROWS | VECTORS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "data",
                    "embeddings",
                    "embedding",
                    "error",
                    "code",
                    "message",
                    "details",
                    "status",
                    "raw",
                    "metadata",
                    "detail",
                    "msg",
                    "loc",
                    "type",
                    "reason",
                    "retryDelay",
                    "violations",
                    "quotaId",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),  # fmt: skip
    max_leaves=12,
)
BODIES = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda document: json.dumps(document).encode()),
    st.tuples(JSON, st.integers(0, 200)).map(lambda pair: json.dumps(pair[0]).encode()[: pair[1]]),
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "x-should-retry", "content-type", "x-ratelimit-reset-requests"]),
    st.text(max_size=12) | st.sampled_from(["1", "-1", "1e400", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "true"]),
)
STATUSES = st.sampled_from([200, 201, 204, 400, 401, 403, 404, 408, 413, 422, 424, 429, 500, 503, 529, 999])


@pytest.mark.parametrize("kind", [OpenAIEmbedder, OpenRouterEmbedder, GeminiEmbedder])
def test_whatever_a_provider_answers(kind: Any) -> None:
    subject = kind("key", dimensions=4)
    model = "gemini-embedding-001" if kind is GeminiEmbedder else "m"

    @given(status=STATUSES, headers=HEADERS, body=BODIES)
    @example(status=200, headers={}, body=b"[" * 100_000)
    @example(status=400, headers={}, body=b'{"error":' * 5000 + b"1" + b"}" * 5000)
    @example(status=200, headers={}, body=b'{"data": [{"embedding": [1' + b"0" * 5000 + b"]}]}")
    @example(status=422, headers={}, body=b'{"detail": [{"msg": "x", "loc": [' + b"[" * 999 + b"]" * 999 + b"]}]}")
    @example(status=200, headers={}, body=b'{"error": {"code": ' + b"[" * 999 + b"]" * 999 + b"}}")
    @example(status=413, headers={}, body=b'{"message": "at most ' + b"9" * 4090 + b' bytes"}')
    @example(status=400, headers={}, body=b'{"message": "input[' + b"9" * 5000 + b']"}')
    @example(status=400, headers={}, body=b'{"param": "input[' + b"9" * 5000 + b']"}')
    @example(status=429, headers={"retry-after": "9" * 400}, body=b"{}")
    @example(status=200, headers={}, body=b'{"error": {"code": 1' + b"0" * 5000 + b"}}")
    def run(status: int, headers: dict[str, str], body: bytes) -> None:
        subject._http.post = lambda url, sent: Answer(status, headers, body)
        try:
            rows = subject.embed_batch(TEXTS, model)
        except TransientError as error:
            assert error.retry_after is None or 0 <= error.retry_after < 1e9
        except (InputRejected, ConfigurationError) as error:
            assert len(str(error)) < 1000
        else:
            assert isinstance(rows, np.ndarray)
            assert rows.dtype == np.float32
            assert rows.ndim == 2
            assert len(rows) == len(TEXTS)

    run()
