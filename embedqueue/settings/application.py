"""The queues of one application, whatever its framework: made at first use, in each process, whatever forks."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from embedqueue.embedders import Embedder
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.log import logger
from embedqueue.values.threads import start

from .checks import check_economy, check_key, explain_redis, knock, words_of_redis
from .eager import Eager
from .settings import Settings, SettingsError

#: What no queue is named.
DEFAULT = "default"
#: Seconds after which a request starts the queues again that the first one could not start.
AGAIN_SECONDS = 10.0


class Queues(Mapping[str, EmbeddingBatchQueue]):
    """An application's queues by name. A queue is made and started when it is first asked for. Thread-safe.

    Args:
        load: reads the application's settings. Called at first use, so that errors come there and not at import.
        tested: whether the application's tests are under way, as far as its framework tells. Then the queues are eager,
            and nothing reaches the Redis of the settings, unless the setting ``EAGER`` of the default queue says so.
    """

    def __init__(self, load: Callable[[], dict[str, Settings]], tested: Callable[[], bool] = lambda: False) -> None:
        self._load = load
        self._tested = tested
        self._given: Eager | None = None  # of eagerly()
        self._woken = 0  # the process that had its first request
        self._again_mono = math.inf  # from when on a request is taken for the first one again
        self._forget()
        os.register_at_fork(after_in_child=_weakly(self))

    def _forget(self) -> None:
        self._lock = threading.RLock()  # guards what follows; a signal's handler may use a queue while we make it
        self._settings: dict[str, Settings] | None = None
        self._queues: dict[str, EmbeddingBatchQueue] = {}
        self._onlookers: dict[str, EmbeddingBatchQueue] = {}
        self._clients: dict[str, Redis] = {}
        self._reached: set[str] = set()  # names of queues whose Redis has answered
        self._eager: Eager | None = None  # known once the settings were read, as the next
        self._misfits: dict[str, str] = {}  # by name, why a queue cannot be made

    def _forked(self) -> None:
        """Another thread may have held the lock when the process forked. The queues themselves survive forks."""
        self._lock = threading.RLock()

    # -- settings ----------------------------------------------------------------------------------------------

    @property
    def all_settings(self) -> dict[str, Settings]:
        """The settings of each queue.

        Raises:
            SettingsError: they cannot work.
        """
        with self._lock:
            return self._read()

    @property
    def eager(self) -> bool:
        """Whether they are those of tests: then nothing may reach the Redis and the provider of the settings."""
        self._begin_tests()
        with self._lock:
            self._read()
            return self._eager is not None

    def others(self, name: str) -> dict[str, Settings]:
        """The settings of all queues but one, by name."""
        return {other: settings for other, settings in self.all_settings.items() if other != name}

    def settings(self, name: str = DEFAULT) -> Settings:
        """The settings of one queue.

        Raises:
            SettingsError: there is no such queue, or its settings cannot work.
        """
        self._begin_tests()
        with self._lock:
            return self._of(name)

    def _read(self) -> dict[str, Settings]:
        if self._settings is None:
            settings, eager = self._load(), self._given
            wanted = settings[DEFAULT].eager
            if eager is None and (self._tested() if wanted is None else wanted):
                eager = Eager(None, None)  # raises without fakeredis: nothing is kept, so that each use does
            self._misfits = {}
            if eager is None:  # in tests there are no batch jobs
                found = ((name, check_economy(one)) for name, one in settings.items())
                self._misfits = {name: words[0] for name, words in found if words}
            self._settings, self._eager = settings, eager
        return self._settings

    def _begin_tests(self) -> None:
        """Forget what was read before tests began, as where an application looks at a queue while it is set up."""
        settings = self._settings
        if settings is not None and self._eager is None and settings[DEFAULT].eager is None and self._tested():
            self.reset()

    def _of(self, name: str) -> Settings:
        found = self._read()
        if name not in found:
            raise SettingsError(f"there is no queue {name!r}; there are {', '.join(sorted(found))}")
        if name in self._misfits:
            raise SettingsError(self._misfits[name])
        return found[name]

    # -- queues ------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> EmbeddingBatchQueue:
        """The queue, started.

        Raises:
            SettingsError: its settings cannot work, or it has no API key.
        """
        self._begin_tests()
        queue = self._queues.get(name)
        if queue is None:
            self._greet(name)
            with self._lock:
                queue = self._queues.get(name)
                if queue is None:
                    made = self._make(name)
                    queue = self._queues.setdefault(name, made)
                    if queue is not made:  # such a handler has
                        made.stop()
        return queue

    def __iter__(self) -> Iterator[str]:
        """Names."""
        return iter(self.all_settings)

    def __contains__(self, name: object) -> bool:
        """Whether there is a queue of this name; none is made."""
        return name in self.all_settings

    def __len__(self) -> int:
        """How many queues there are."""
        return len(self.all_settings)

    def wake(self, *_: object, **__: object) -> None:
        """Start the queues at the first request of a process, whatever it is: what was left shall not wait for more.

        In a thread, for no request shall wait for Redis or fail because of it. Before it, what watches a queue is told
        of it, for this request may be a scrape of metrics. Later calls do nothing, but that where some could not be
        started, because Redis was away, a request tries again after a while.
        """
        if self._woken != os.getpid() or time.monotonic() >= self._again_mono:
            self._woken, self._again_mono = os.getpid(), math.inf
            self._each(lambda settings: bool(settings.options.get("observers")), self.look)
            try:
                start(threading.Thread(target=self._use_all, name="embedqueue-first-request", daemon=True))
            except RuntimeError:  # no more threads
                self._again_mono = time.monotonic() + AGAIN_SECONDS

    def _use_all(self) -> None:
        if not self._each(lambda settings: bool(settings.options.get("worker", True)), self.__getitem__):
            self._again_mono = time.monotonic() + AGAIN_SECONDS

    def _each(self, which: Callable[[Settings], bool], use: Callable[[str], object]) -> bool:
        """Use the queues of these settings; returns whether all could be used."""
        try:
            found = self.all_settings
        except Exception as error:
            self._tell(error)
            return False
        well = True
        for name, settings in found.items():
            try:
                if self._eager is None and which(settings):
                    use(name)
            except Exception as error:  # which keeps no other from being used
                self._tell(error)
                well = False
        return well

    @staticmethod
    def _tell(error: Exception) -> None:
        """The first use raises the same to whoever can act."""
        logger.info("embedqueue: a queue was not started at the first request: %s", error)

    def _greet(self, name: str) -> None:
        """One look before the first use, outside of the lock: many threads may find Redis down, none waits for another.

        Raises:
            SettingsError: there is no API key.
            RedisError: with a note that tells what to set.
        """
        settings = self.settings(name)
        if self._eager is None and settings.options.get("worker", True):
            missing = check_key(settings)
            if missing:
                raise SettingsError(missing[0])
            _warn_of_uwsgi()
        self.redis(name)

    def _make(self, name: str) -> EmbeddingBatchQueue:
        settings = self._of(name)
        if self._eager is not None:
            return self._eager.queue(settings).start()
        return settings.queue(redis=self._client(name)).start(quietly=True)

    def made(self, name: str = DEFAULT) -> EmbeddingBatchQueue | None:
        """The queue if it was used already."""
        return self._queues.get(name)

    def idle(self, name: str = DEFAULT, **overrides: Any) -> EmbeddingBatchQueue:
        """A queue of one's own that is not started: to look at, or to start with other options."""
        self._begin_tests()
        with self._lock:
            settings = self._of(name)
            if self._eager is not None:
                return self._eager.queue(settings, **overrides)
            return settings.queue(redis=self._client(name), **overrides)

    def look(self, name: str = DEFAULT) -> EmbeddingBatchQueue:
        """The queue for looking at it and for its dead letters: nothing is started, no key is needed.

        Raises:
            SettingsError: there is no such queue, or its settings cannot work.
        """
        self._begin_tests()
        with self._lock:
            found = self._queues.get(name) or self._onlookers.get(name)
            if found is None:
                settings = self._of(name)
                if self._eager is not None:
                    found = self._onlookers[name] = self._eager.queue(settings).start()
                else:
                    found = self._onlookers[name] = settings.queue(redis=self._client(name), worker=False)
            return found

    def redis(self, name: str = DEFAULT) -> Redis:
        """The client of a queue, for reading hashes.

        Raises:
            RedisError: at the first use, with a note that tells what to set.
        """
        self._begin_tests()
        with self._lock:
            settings, client = self._of(name), self._client(name)
        if name not in self._reached:
            try:
                knock(settings, client)
            except RedisError as error:
                error.add_note(f"embedqueue: {explain_redis(settings, error)}")
                error.args = (words_of_redis(settings, error),)
                raise
            self._reached.add(name)
        return client

    def _client(self, name: str) -> Redis:
        if self._eager is not None:
            return self._eager.redis
        if name not in self._clients:
            self._clients[name] = self._of(name).client()
        return self._clients[name]

    def reset(self) -> None:
        """Stop every queue and forget all settings: the next use reads them anew."""
        with self._lock:
            queues = [*self._queues.values(), *self._onlookers.values()]
        for queue in queues:
            queue.stop()
        self._forget()

    @contextlib.contextmanager
    def eagerly(self, embedder: Embedder | None = None, redis: Redis | None = None) -> Iterator[Eager]:
        """Within the ``with``, every enqueue is finished when it returns, offline. For an application's own tests.

        Args:
            embedder: instead of one that needs no network and no model.
            redis: a client instead of a fake Redis of this block's own.
        """
        self.reset()
        self._given = Eager(embedder, redis)
        try:
            yield self._given
        finally:
            self._given = None
            self.reset()


def _weakly(queues: Queues) -> Callable[[], None]:
    """A hook that does not keep an application alive: nothing unregisters hooks of forks."""
    reference = weakref.ref(queues)

    def forked() -> None:
        found = reference()
        if found is not None:
            found._forked()

    return forked


def _warn_of_uwsgi() -> None:
    """What must be set under uWSGI: without threads nothing is embedded, and it tells no Python that it has forked."""
    uwsgi = sys.modules.get("uwsgi")
    given = getattr(uwsgi, "opt", None)
    if uwsgi is None or given is None:
        return
    options = {name.decode() if isinstance(name, bytes) else name for name in given}
    if not {"enable-threads", "threads"} & options:
        logger.warning("embedqueue: uWSGI runs without threads, so nothing is embedded here: set enable-threads = true")
    if uwsgi.worker_id() == 0 and "py-call-uwsgi-fork-hooks" not in options:  # in the master: it will fork
        logger.warning(
            "embedqueue: a queue is used before uWSGI forks, and will hang after it: "
            "set lazy-apps = true, or py-call-uwsgi-fork-hooks = true"
        )
