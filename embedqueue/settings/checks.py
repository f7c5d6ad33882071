"""What may be wrong with a configuration, in sentences that say what to set."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterCrossSlotError,
    ClusterDownError,
    ClusterError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)

from embedqueue.embedders.batch_jobs import require_batch_jobs
from embedqueue.store.door import open_store
from embedqueue.values.errors import ConfigurationError, EmbedQueueError, OptionError
from embedqueue.values.words import READ_CHARS, secrets_of, shown_url, without_secrets

from .redis_url import of_cluster
from .settings import Settings, SettingsError

#: What to do where one node of a cluster is named.
NAME_NODES = "name some of its nodes as redis+cluster://HOST:PORT,HOST:PORT"
#: What a node of a cluster says to a client that knows nothing of clusters.
_OF_CLUSTERS = (MovedError, AskError, ClusterCrossSlotError, ClusterDownError, ClusterError)


def words_of_redis(settings: Settings, error: RedisError) -> str:
    """What an error of Redis says: a server that does not know a command quotes what it was sent, password included."""
    return without_secrets(str(error)[:READ_CHARS], secrets_of(settings.redis_url))


def explain_redis(settings: Settings, error: RedisError) -> str:
    """What an error of Redis means for a user: a sentence that tells what to set."""
    url, name = shown_url(settings.redis_url), settings.spelled("REDIS_URL")
    words = words_of_redis(settings, error)
    if isinstance(error, NoPermissionError) and "eval" in str(error):
        return f"Redis at {url} lets this user run no scripts ({words}): grant what docs/redis-acl.md lists."
    if isinstance(error, _OF_CLUSTERS) and not of_cluster(settings.redis_url):
        return f"Redis at {url} is a node of a Redis Cluster ({words}): {NAME_NODES} in {name}."
    if isinstance(error, ReadOnlyError):
        return f"Redis at {url} is a replica, where nothing can be written ({words}): name its master in {name}."
    if isinstance(error, OutOfMemoryError):
        return f"Redis at {url} is full, so nothing can be enqueued ({words}): raise its maxmemory, or make room."
    if "unknown command" in str(error):
        return (
            f"Redis at {url} does not know a command that every queue needs ({words}): something stands in between, or "
            f"it is no Redis; name Redis itself in {name}."
        )
    if isinstance(error, NoPermissionError):
        return f"Redis at {url} does not let this user near the queue ({words}): grant it the keys and commands."
    if any(sign in str(error) for sign in ("NOAUTH", "Authentication required", "HELLO must be called")):
        return f"Redis at {url} wants a password: write {name} as redis://:PASSWORD@HOST:PORT/0."
    if isinstance(error, AuthenticationError | AuthorizationError):
        return f"Redis at {url} refuses the password ({words}): set user and password in {name}."
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return f"Redis at {url} does not answer ({words}): start it, or set {name}."
    return f"Redis at {url} answers with an error ({words}): look at {name}."


def knock(settings: Settings, client: redis.Redis) -> None:
    """Ask Redis for what every queue needs; a PING may be more than the user may do.

    Raises:
        RedisError: it does not answer or does not let us in.
    """
    client.zcard(f"{settings.option('namespace')}:pending")


def check_redis(settings: Settings) -> list[str]:
    """Whether Redis answers, lets us in and runs a script that may write; a sentence for each problem."""
    client = settings.client()
    store = open_store(client, settings.option("namespace"))
    try:
        knock(settings, client)
        store.rehearse()
    except RedisError as error:
        return [explain_redis(settings, error)]
    except EmbedQueueError as error:  # of another layout
        return [str(error)]
    finally:
        store.close()
        client.close()
    return []


def check_economy(settings: Settings) -> list[str]:
    """Whether the provider has the batch jobs that ``economy`` needs. Of an embedder of one's own nobody knows yet."""
    if not settings.option("economy") or settings.own is not None:
        return []
    try:
        require_batch_jobs(settings.embedder(), settings.model)
    except OptionError as error:
        return [f"{settings.spelled('ECONOMY')} {error.why}"]
    return []


def check_key(settings: Settings) -> list[str]:
    """Whether there is an API key, or what the provider needs instead; a sentence for each problem."""
    if settings.own is not None:  # of whose keys nothing is known
        try:
            settings.embedder()
        except SettingsError as error:
            return [str(error)]
        return []
    if settings.provider == "local":
        if importlib.util.find_spec("wordllama") is not None:
            return []
        return [f'{settings.spelled("PROVIDER")} is "local", which needs wordllama: pip install "embedqueue[local]".']
    if settings.provider == "openai" and settings.base_url is not None:
        return []  # a server of one's own needs none; OpenAI's will say so itself
    headers = {name.lower() for name in settings.told.get("headers", {})}
    if settings.provider == "azure" and headers & {"authorization", "api-key"}:
        return []  # a token of Entra ID
    variables = settings.key_variables
    given = [settings.api_key] if settings.api_key is not None else [os.environ.get(name) for name in variables]
    if any(value and value.strip() for value in given):
        return []
    return [
        f"There is no API key for {settings.provider}: set {settings.spelled('API_KEY')}, "
        f"or {' or '.join(variables)} in the environment."
    ]


def check_call(settings: Settings, vectors: list[Any] | None = None) -> list[str]:
    """Whether one real call to the provider works; a sentence for each problem.

    Args:
        settings: of the queue.
        vectors: gets the vector of the answer, if it is of the right length.
    """
    model, spelled = settings.model, settings.spelled
    try:
        vector = settings.embedder().embed_batch(["embedqueue"], model)[0]
        found = len(vector)
    except ConfigurationError as error:
        if settings.own is not None:
            return [f"No call to {settings.provider} can work: {error}; look at {spelled('EMBEDDER')}."]
        return [
            f"No call to {settings.provider} for {model} can work: {error}; "
            f"look at {spelled('MODEL')}, {spelled('API_KEY')} and {spelled('BASE_URL')}."
        ]
    except Exception as error:  # an application's own embedder may raise whatever it likes
        place = spelled("BASE_URL" if settings.own is None else "EMBEDDER")
        words = str(error) or type(error).__name__
        return [f"A call to {settings.provider} failed ({words}): try again, or look at {place}."]
    if found != (settings.width or found):
        way = f"set {spelled('DIMENSIONS')} to {found}" if settings.own is None else f"give it dimensions = {found}"
        return [f"{model} gives {found} numbers a vector, not {settings.width}: {way}."]
    if vectors is not None:
        vectors.append(vector)
    return []
