"""Fuzzing led by coverage, with atheris (``pip install atheris``; it has wheels for some Pythons only).

    python -m tests.proof.fuzz answers -max_total_time=60
    python -m tests.proof.fuzz members -max_total_time=60
    python -m tests.proof.fuzz notices -max_total_time=60

What follows on the name is libFuzzer's. A find is an exception that its user would not expect; the input is kept.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["embedqueue"]):
    from embedqueue.embedders import GeminiEmbedder, OpenAIEmbedder, OpenRouterEmbedder
    from embedqueue.embedders.http import Answer
    from embedqueue.futures.notices import named_keys, named_reason
    from embedqueue.values.errors import ConfigurationError, InputRejected, TransientError
    from embedqueue.values.item import NotOurs, decode_member, encode_member

EMBEDDERS = [
    (OpenAIEmbedder("key", dimensions=2), "m"),
    (OpenRouterEmbedder("key", dimensions=2), "m"),
    (GeminiEmbedder("key", dimensions=2), "gemini-embedding-001"),
]
STATUSES = (200, 400, 401, 403, 404, 413, 422, 424, 429, 500, 503)


def answers(data: bytes) -> None:
    """Whatever a provider answers: vectors, or an error that the queue knows how to take."""
    status = STATUSES[data[0] % len(STATUSES)] if data else 200
    for embedder, model in EMBEDDERS:
        embedder._http.post = lambda url, sent: Answer(status, {"retry-after": "1"}, data[1:])
        try:
            rows = embedder.embed_batch(["one", "two"], model)
        except (TransientError, InputRejected, ConfigurationError):
            continue
        assert len(rows) == 2


def members(data: bytes) -> None:
    """Whatever stands in the ZSET: an item that can be written back, or none of ours."""
    try:
        item = decode_member(data)
    except NotOurs:
        return
    again = decode_member(encode_member(item.redis_key, item.text))
    assert (again.redis_key, again.text) == (item.redis_key, item.text)


def notices(data: bytes) -> None:
    """Whatever stands in the stream: keys that Redis can be asked for, and a reason."""
    body = data.decode("utf-8", "replace")
    for key in named_keys(body):
        key.encode()
    assert isinstance(named_reason(body), str)


#: What is fuzzed, and inputs to begin with: the parsers of JSON are in C and lead nobody.
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "answers": (
        answers,
        [
            b'\0{"data":[{"index":0,"embedding":[1,2]},{"index":1,"embedding":"AACAPwAAAEA="}]}',
            b'\0{"embeddings":[{"values":[1,2]},{"values":[3,4]}]}',
            b'\1{"error":{"code":400,"message":"input[1] is too long","status":"INVALID_ARGUMENT","details":[]}}',
            b'\x08{"error":{"details":[{"retryDelay":"3.5s","violations":[{"quotaId":"PerDay"}]}]}}',
            b'\7{"detail":[{"loc":["body","input",1],"msg":"bad","type":"value_error"}]}',
        ],
    ),
    "members": (members, [b'{"redis_key":"doc:1","text":"one"}', b'{"text": "\\ud83d\\ude00", "redis_key": "a"}']),
    "notices": (notices, [b'["doc:1","doc:2"]', b'{"keys":["doc:1"],"reason":"503"}']),
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(__doc__)
    target, seeds = TARGETS[sys.argv[1]]
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for number, seed in enumerate(seeds):
        (folder / str(number)).write_bytes(seed)
    atheris.Setup([sys.argv[0], *sys.argv[2:], str(folder)], target)
    atheris.Fuzz()
