"""What one contender is told about the world; travels to child processes through the environment."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass

_VARIABLE = "EMBEDQUEUE_BENCHMARK"
#: Texts in one API call, for everybody.
CALL_TEXTS = 50
#: API calls in flight, for everybody who can have more than one.
CALLS = 8
#: The field that receives the vector, for everybody.
FIELD = "embedding"
MODEL = "text-embedding-3-large"


@dataclass(frozen=True)
class Settings:
    """One contender's part of the world.

    Attributes:
        redis_port: of the benchmark's own Redis, on loopback.
        db: its database there: workers of several contenders stand by at a time.
        api_url: base URL of the embedding server, with its /v1.
        dimensions: of the vectors.
        calls: API calls in flight.
        impatient: set the time-outs by which a package notices a dead worker as short as it allows.
        options: of the queue, for embedqueue; its namespace and min_replicas, for the limit as well.
    """

    redis_port: int
    db: int
    api_url: str
    dimensions: int
    calls: int = CALLS
    impatient: bool = False
    options: dict[str, object] = dataclasses.field(default_factory=dict)

    @property
    def redis_url(self) -> str:
        """The same as an URL, for the packages that want one."""
        return f"redis://127.0.0.1:{self.redis_port}/{self.db}"

    def export(self) -> None:
        """Leave them where modules that a package imports by name will find them."""
        os.environ[_VARIABLE] = json.dumps(dataclasses.asdict(self))


def from_environment() -> Settings:
    """The settings that the harness gave this process."""
    return Settings(**json.loads(os.environ[_VARIABLE]))
