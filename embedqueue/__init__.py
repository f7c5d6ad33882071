"""embedqueue: the durable embedding queue for synchronous Python."""

from typing import TYPE_CHECKING

from embedqueue.futures.future import EmbeddingFuture

from . import embedders
from .backlog.filler import Verified
from .embedders import Embedder, QueryEmbedder, TokenMeter
from .queue import EmbeddingBatchQueue
from .search import SearchHit
from .values.budget import Budget
from .values.errors import (
    BatchFailed,
    CallTooLarge,
    ConfigurationError,
    EmbedQueueError,
    InputRejected,
    ItemRejected,
    NotReplicated,
    QueueFull,
    QueueStopped,
    TransientError,
)
from .values.limits import LimitLeft, Limits
from .values.observer import BatchReport, CallReport, Observer, RedisReport, ReleaseReport, SavingReport
from .values.options import (
    API_BATCH_LIMIT,
    API_BATCH_TOKENS,
    DEFAULT_FLUSH_INTERVAL,
    DEFAULT_MAX_BATCH_SIZE,
    EMBED_DIMENSIONS,
    PENDING_ZSET_KEY,
)
from .values.runs import Run
from .values.sink import Sink, SinkRow, Sinks
from .values.stats import DeadLetter, LiveWorker, QueueStats

if TYPE_CHECKING:
    from .embedders import GeminiEmbedder, LocalEmbedder, OpenAIEmbedder, OpenRouterEmbedder
else:

    def __getattr__(name):
        """An embedder, imported when it is asked for."""
        if name not in ("GeminiEmbedder", "LocalEmbedder", "OpenAIEmbedder", "OpenRouterEmbedder"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(embedders, name)
        return found


__version__ = "0.1.0"

__all__ = [
    # the queue
    "EmbeddingBatchQueue",
    "EmbeddingFuture",
    "Budget",
    "QueueStats",
    "DeadLetter",
    "Verified",
    "LiveWorker",
    "Run",
    "SearchHit",
    "Limits",
    "LimitLeft",
    # embedders
    "Embedder",
    "QueryEmbedder",
    "TokenMeter",
    "GeminiEmbedder",
    "OpenRouterEmbedder",
    "OpenAIEmbedder",
    "LocalEmbedder",
    # where vectors go beside the hashes
    "Sink",
    "SinkRow",
    "Sinks",
    # errors that users meet
    "EmbedQueueError",
    "BatchFailed",
    "ItemRejected",
    "QueueFull",
    "NotReplicated",
    "QueueStopped",
    # errors that embedders raise
    "TransientError",
    "InputRejected",
    "CallTooLarge",
    "ConfigurationError",
    # watching it
    "Observer",
    "BatchReport",
    "CallReport",
    "ReleaseReport",
    "SavingReport",
    "RedisReport",
    # constants
    "EMBED_DIMENSIONS",
    "DEFAULT_FLUSH_INTERVAL",
    "DEFAULT_MAX_BATCH_SIZE",
    "API_BATCH_LIMIT",
    "API_BATCH_TOKENS",
    "PENDING_ZSET_KEY",
    # the version, which the package's metadata takes from here
    "__version__",
]
