"""Defaults, in one place, and the options of a queue, validated once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, TypeVar, get_args

from tenacity import AsyncRetrying, BaseRetrying

from .budget import Budget, read_prices
from .economy import check_economy, read_poll
from .errors import LONGEST_WAIT_SECONDS, OptionTypeError, OptionValueError
from .limits import Limits
from .observer import BatchReport, CallReport, Observer, RedisReport
from .sink import Sink
from .stats import DeadLetter
from .successor import Successor
from .vectors import VectorType

#: The model of a queue that is given none.
DEFAULT_MODEL = "google/gemini-embedding-001"
#: What google/gemini-embedding-001 gives unless told otherwise (ai.google.dev, models page).
EMBED_DIMENSIONS = 3072
#: Seconds that an item may wait for company before a drain starts: embeddings are rarely urgent.
DEFAULT_FLUSH_INTERVAL = 3600.0
#: Items that wait before a drain starts at once.
DEFAULT_MAX_BATCH_SIZE = 50
#: Texts in one API call: under every hosted provider's limit (Gemini takes 100).
API_BATCH_LIMIT = 50
#: Estimated tokens in one API call: OpenAI takes 300,000, and estimates err.
API_BATCH_TOKENS = 200_000
#: Seconds that Redis can count from now on, with room to spare: to keep something "for ever".
LONGEST_TTL = 1e11
#: Seconds that an item may be given at most: ten years. Scores, which are Unix times less that, stay above 0.
LONGEST_WITHIN = 315_360_000.0
#: What Redis can let expire.
SHORTEST_EXPIRY_SECONDS = 0.001
#: The namespace that prefixes every key of a queue.
DEFAULT_NAMESPACE = "embed_queue"
#: Where items wait; another program may write members to it.
PENDING_ZSET_KEY = f"{DEFAULT_NAMESPACE}:pending"

IfMissing = Literal["create", "skip"]
OnLong = Literal["reject", "truncate"]
OnBatch = Callable[[BatchReport], object]
OnError = Callable[[CallReport | RedisReport], object]
OnDead = Callable[[DeadLetter], object]


def _check(condition: bool, name: str, why: str) -> None:
    if not condition:
        raise OptionValueError(name, why)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything about a queue that is a plain value. Each field is documented at ``EmbeddingBatchQueue``."""

    model: str = DEFAULT_MODEL
    flush_interval: float = DEFAULT_FLUSH_INTERVAL
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE
    embedding_field: str = "embedding"
    provenance_field: str | None = ""
    vector_type: VectorType = "float32"
    namespace: str = DEFAULT_NAMESPACE
    api_batch_limit: int = API_BATCH_LIMIT
    api_batch_tokens: int = API_BATCH_TOKENS
    max_concurrency: int | Literal["auto"] = 4
    lease_seconds: float = 60.0
    max_deliveries: int = 5
    max_pending: int | None = None
    flush_on_wait: bool = True
    wait_linger: float = 0.005
    worker: bool = True
    retry: BaseRetrying | None = None
    cache_ttl: float | None = None
    if_missing: IfMissing = "create"
    max_text_chars: int | None = None
    on_long: OnLong | None = None
    min_replicas: int | None = 0
    replica_patience: float = 10.0
    redis_patience: float = 10.0
    limits: Limits | Literal["auto"] | None = None
    budget: Budget | None = None
    prices: Mapping[str, float] | None = None
    sink: Sink | None = None
    economy: bool = False
    economy_after: float = 21_600.0
    economy_min_texts: int = 10
    economy_max_texts: int = 2000
    economy_deadline: float = 7200.0
    economy_poll: tuple[float, float] = (15.0, 600.0)
    economy_lag: float = 120.0
    economy_promote: bool = True
    successor: Successor | None = None
    history: bool = True
    observers: Sequence[Observer] = ()
    on_batch: OnBatch | None = None
    on_error: OnError | None = None
    on_dead: OnDead | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work, before anything is written.

        Raises:
            TypeError: a value of the wrong type.
            ValueError: a value out of range.
        """
        names = ["model", "embedding_field", "namespace"]
        if self.provenance_field == "":
            object.__setattr__(self, "provenance_field", f"{self.embedding_field}_of")
        elif self.provenance_field is not None:
            names.append("provenance_field")
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, str):
                raise OptionTypeError(name, f"must be a str, not {type(value).__name__}")
            _check(bool(value), name, "must not be empty")
            try:
                value.encode()  # here rather than in the worker
            except UnicodeEncodeError:
                raise OptionValueError(name, "holds a lone surrogate and has no form in UTF-8") from None
        if self.provenance_field == self.embedding_field:
            raise OptionValueError("provenance_field", "must not be the embedding_field")
        for name in (
            "flush_interval",
            "lease_seconds",
            "wait_linger",
            "cache_ttl",
            "replica_patience",
            "redis_patience",
        ):
            self._number(name, optional=name == "cache_ttl")
        for name in ("lease_seconds", "wait_linger"):
            _check(getattr(self, name) <= LONGEST_WITHIN, name, "must be ten years at most")
        _check((self.cache_ttl or 0.0) <= LONGEST_TTL, "cache_ttl", f"must be at most {LONGEST_TTL:,.0f} seconds")
        for name in ("replica_patience", "redis_patience"):
            _check(getattr(self, name) <= LONGEST_WAIT_SECONDS, name, "must be a day at most")
        for name in ("max_batch_size", "api_batch_limit", "api_batch_tokens", "max_deliveries"):
            self._count(name, optional=False)
        if self.max_concurrency != "auto":
            self._count("max_concurrency", optional=False)
        for name in ("max_pending", "max_text_chars"):
            self._count(name, optional=True)
        self._count("min_replicas", optional=True, least=0)
        for name in ("flush_on_wait", "worker", "history"):
            if not isinstance(getattr(self, name), bool):
                raise OptionTypeError(name, f"must be True or False, not {getattr(self, name)!r}")
        if not isinstance(self.budget, Budget | None):
            raise OptionTypeError("budget", f"must be an embedqueue.Budget or None, not {self.budget!r}")
        if self.prices is not None:
            object.__setattr__(self, "prices", read_prices(self.prices))
        if self.sink is not None and (isinstance(self.sink, type) or not isinstance(self.sink, Sink)):
            raise OptionTypeError("sink", f"must be an object with write(rows) or None, not {self.sink!r}")
        object.__setattr__(self, "economy_poll", read_poll(self.economy_poll))
        check_economy(self)
        if self.successor is not None and not (
            isinstance(self.successor, Successor) and self.successor.options.embedding_field != self.embedding_field
        ):
            raise OptionTypeError(
                "successor", f"must be a queue of another embedding_field, or None, not {self.successor!r}"
            )
        if not isinstance(self.retry, BaseRetrying | None) or isinstance(self.retry, AsyncRetrying):
            raise OptionTypeError("retry", "must be a tenacity policy such as tenacity.Retrying(...)")
        self._word("if_missing", get_args(IfMissing))
        self._word("vector_type", get_args(VectorType))
        if self.on_long is not None:
            self._word("on_long", get_args(OnLong))
        if not isinstance(self.limits, Limits | None) and self.limits != "auto":
            raise OptionTypeError("limits", f'must be embedqueue.Limits(...), "auto" or None, not {self.limits!r}')
        _check(not set("{}") & set(self.namespace), "namespace", "must not hold braces: they are a cluster's hash tag")
        for name in ("on_batch", "on_error", "on_dead"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise OptionTypeError(name, f"must be a function or None, not {getattr(self, name)!r}")
        if not isinstance(self.observers, Iterable) or not all(isinstance(one, Observer) for one in self.observers):
            raise OptionTypeError("observers", f"must be a list of embedqueue.Observer, not {self.observers!r}")
        object.__setattr__(self, "observers", tuple(self.observers))

    @property
    def usual_within(self) -> float:
        """Seconds in which what has no ``within`` is due: ``flush_interval``, as far as ``within`` may go."""
        return min(self.flush_interval, LONGEST_WITHIN)

    def _number(self, name: str, *, optional: bool) -> None:
        value = getattr(self, name)
        if optional and value is None:
            return
        if not _is_number(value):
            raise OptionTypeError(name, f"must be a number of seconds, not {value!r}")
        least = 0.0 if name in ("wait_linger", "flush_interval") else SHORTEST_EXPIRY_SECONDS
        _check(math.isfinite(value), name, "must be finite")
        _check(value >= least, name, "must be positive" + (f", at least {least} seconds" if least else ""))

    def _word(self, name: str, words: Sequence[str]) -> None:
        value = getattr(self, name)
        _check(value in words, name, "must be " + " or ".join(f'"{word}"' for word in words) + f", not {value!r}")

    def _count(self, name: str, *, optional: bool, least: int = 1) -> None:
        value = getattr(self, name)
        if optional and value is None:
            return
        if not _is_count(value):
            raise OptionTypeError(name, f"must be a whole number, not {value!r}")
        _check(value >= least, name, f"must be at least {least}")


# Type checkers derive no TypedDict from a dataclass, so the keywords are spelled a second time. A test of the options
# holds both to the same names and types.
class QueueOptions(TypedDict, total=False):
    """The keyword options of a queue, for type checkers; the defaults stand in :class:`Options`."""

    embedding_field: str
    provenance_field: str | None
    vector_type: VectorType
    namespace: str
    api_batch_limit: int
    api_batch_tokens: int
    max_concurrency: int | Literal["auto"]
    lease_seconds: float
    max_deliveries: int
    max_pending: int | None
    flush_on_wait: bool
    wait_linger: float
    worker: bool
    retry: BaseRetrying | None
    cache_ttl: float | None
    if_missing: IfMissing
    max_text_chars: int | None
    on_long: OnLong | None
    min_replicas: int | None
    replica_patience: float
    redis_patience: float
    limits: Limits | Literal["auto"] | None
    budget: Budget | None
    prices: Mapping[str, float] | None
    sink: Sink | None
    economy: bool
    economy_after: float
    economy_min_texts: int
    economy_max_texts: int
    economy_deadline: float
    economy_poll: tuple[float, float]
    economy_lag: float
    economy_promote: bool
    successor: Successor | None
    history: bool
    observers: Sequence[Observer]
    on_batch: OnBatch | None
    on_error: OnError | None
    on_dead: OnDead | None


Init = TypeVar("Init", bound=Callable[..., None])


def spelled_out(init: Init) -> Init:
    """Let ``help()`` and ``inspect`` tell the options by name, with their defaults, instead of ``**options``.

    Args:
        init: takes :class:`QueueOptions`.
    """
    signature = inspect.signature(init)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    options = inspect.signature(Options).parameters
    others = [options[name] for name in QueueOptions.__annotations__]
    init.__signature__ = signature.replace(parameters=[*own, *others])  # type: ignore[attr-defined]
    return init
