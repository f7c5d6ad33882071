"""Changes the model in the middle of a run, again and again: a rolling deployment, and ``embedqueue space adopt``."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import redis

from embedqueue import EmbeddingBatchQueue
from embedqueue.operating.control import agree
from embedqueue.settings.settings import Settings
from embedqueue.values.provenance import digest as text_digest
from tests.proof.torture.history import read_hashes
from tests.proof.torture.texts import DIMENSIONS, MODELS, space_of, text_of
from tests.provider import Provider

#: Seconds from the first process of another model to ``space adopt``, and from there until the last of the old ones go.
UNTIL_ADOPTED, UNTIL_REPLACED = (1.0, 6.0), (0.5, 4.0)
#: Seconds from then on until another change may begin: the new processes have to come up.
UNTIL_NEXT = (2.0, 10.0)
#: Seconds for which adopting is tried: some fault may just have hit Redis.
ADOPT_SECONDS = 30.0
#: Seconds for which calls are held, at most, so that one is under way when the model changes; a client waits longer.
HOLD_SECONDS = 1.0

Injected = tuple[str, str | None]
#: Does something after so many seconds. What that returns is a fault.
Later = Callable[[float, Callable[[], Injected | None]], None]


class Fleet(Protocol):
    """The processes, as far as a deployment needs them."""

    #: Of every process that is started from now on.
    model: str

    def has_worker(self) -> bool:
        """Whether a worker of that model has come up."""

    def of_other_models(self) -> list[tuple[str, int, str]]:
        """Name, process id and role of those that may be hit and have another model than the next one will."""


class ModelChanges:
    """Changes the model. Each change begins with a worker of another model; somewhat later that one is adopted.

    Until then the new ones claim nothing, and the old ones nothing from then on; these are replaced at last, but for
    the elder, which nothing hits.

    Args:
        redis_url: of the Redis, past all proxies.
        fleet: the processes.
        rng: chooses.
        write: writes a line of a journal.
        provider: the provider.
        look: looks at all hashes.
    """

    def __init__(
        self,
        redis_url: str,
        fleet: Fleet,
        rng: random.Random,
        write: Callable[..., None],
        provider: Provider,
        look: Callable[[], None],
    ) -> None:
        self._redis_url = redis_url
        self._fleet = fleet
        self._rng = rng
        self._write = write
        self._provider = provider
        self._look = look
        self._next_mono = 0.0
        self._ended = False
        self.ruling = MODELS[0]

    def deploy(self, later: Later) -> Injected | None:
        """Have another model come up, unless one is about to."""
        if time.monotonic() < self._next_mono:
            return None
        self._next_mono = float("inf")
        self._fleet.model = self._rng.choice([model for model in MODELS if model != self.ruling])
        for _, pid, _ in [one for one in self._fleet.of_other_models() if one[2] == "worker"][:1]:
            _end(pid)
        later(self._rng.uniform(*UNTIL_ADOPTED), partial(self._adopt, later))
        return "processes with another model come up", None

    def _adopt(self, later: Later) -> Injected | None:
        """With a call under way, if any comes; its vectors must not be written any more. Somebody has to go on then."""
        if not self._fleet.has_worker() and not self._ended:
            later(1.0, partial(self._adopt, later))
            return None
        self._provider.hold()
        try:
            deadline_mono = time.monotonic() + HOLD_SECONDS
            while not self._provider.in_flight and time.monotonic() < deadline_mono:
                time.sleep(0.01)
            self._agree(self._fleet.model)
            self._look()  # what is written from now on is written under the new rule
        finally:
            self._provider.release()
        later(self._rng.uniform(*UNTIL_REPLACED), self._replace)
        return "space adopt", None

    def end(self) -> None:
        """Wait for nobody from now on."""
        self._ended = True

    def _agree(self, model: str) -> None:
        settings = Settings(redis_url=self._redis_url, provider="openai", model=model, dimensions=DIMENSIONS)
        deadline_mono = time.monotonic() + ADOPT_SECONDS
        while True:
            self._write("adopts", model=model)
            try:
                agree(settings)
                break
            except redis.RedisError:
                if time.monotonic() > deadline_mono:
                    raise
                time.sleep(0.1)
        self._write("adopted", model=model)
        self.ruling = model

    def _replace(self) -> Injected:
        for _, pid, _ in self._fleet.of_other_models():
            _end(pid)
        self._next_mono = time.monotonic() + self._rng.uniform(*UNTIL_NEXT)
        return "processes of the old model end", None


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def embed_anew(queue: EmbeddingBatchQueue, client: Any, model: str, lines: Iterable[dict], write: Any) -> None:
    """Have every text in the ruling space, as ``embedqueue verify --fix`` does after a model was adopted.

    Args:
        queue: with a worker of the ruling model; nothing else is at work any more.
        client: of the Redis.
        model: that rules.
        lines: of all journals.
        write: writes a line of a journal: what is enqueued has been asked for once more.
    """
    newest: dict[str, int] = {}
    for line in lines:
        for key, version in line.get("versions", {}).items():
            newest[key] = max(version, newest.get(key, 0))
    texts = {key: text_of(key, version) for key, version in newest.items()}
    hashes = read_hashes(client)
    anew = {}
    for key, text in texts.items():
        _, line, _ = hashes.get(key, ("", "", ()))
        if key not in hashes or (line and line.split()[:2] != [space_of(model), text_digest(text)]):
            anew[key] = newest[key]
    write("try", versions=anew)
    queue.verify(texts.items(), fix=True)
    write("accepted", versions=anew)
