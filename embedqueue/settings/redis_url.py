"""What may be wrong with the URL of a Redis, in words that say the right form and show no password."""

from __future__ import annotations

import difflib
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
import redis.connection
from redis.exceptions import RedisError

from embedqueue.store.cluster.lazy import LazyCluster
from embedqueue.values.words import shown_url

_FORMS = "redis://HOST:PORT/0, rediss://... or unix:///PATH"
_CLUSTER_FORM = "redis+cluster://HOST:PORT,HOST:PORT or rediss+cluster://..."
#: What stands at the end of a scheme that names nodes of a cluster.
_CLUSTER = "+cluster"
#: Options by which other clients are asked for TLS, and how redis-py is, by the scheme.
_TLS_OPTIONS = ("ssl", "tls", "usetls")
_TLS = "for TLS write rediss:// instead of redis://, else leave it out"


def client_of(url: str, **options: Any) -> redis.Redis:
    """A new client, which is not connected yet; that of a cluster goes for one, as far as types are concerned.

    Args:
        url: as ``fault_of`` lets it pass.
        options: of ``redis.Redis``; what the URL says wins.
    """
    if not of_cluster(url):
        return redis.Redis.from_url(url, **options)
    nodes = [redis.connection.parse_url(one) for one in _node_urls(url)]  # type: ignore[no-untyped-call]
    told = {name: value for node in nodes for name, value in node.items()}
    secure = told.pop("connection_class", None) is not None
    own = {name: value for name, value in told.items() if name not in ("host", "port", "db")}
    addresses = [(str(node.get("host", "localhost")), int(node.get("port", 6379))) for node in nodes]
    return cast(redis.Redis, LazyCluster(addresses, **(options | own | ({"ssl": True} if secure else {}))))


def of_cluster(url: str) -> bool:
    """Whether an URL names nodes of a cluster."""
    return url.partition(":")[0].lower().endswith(_CLUSTER)


def _node_urls(url: str) -> list[str]:
    """The URL of each node that the URL of a cluster names, as if it were a Redis of its own."""
    scheme, _, rest = url.partition("://")
    place, mark, query = rest.partition("?")
    login, at, hosts = place.rpartition("@")
    hosts, _, _ = hosts.partition("/")
    return [f"{scheme.lower().removesuffix(_CLUSTER)}://{login}{at}{host}/0{mark}{query}" for host in hosts.split(",")]


def fault_of(url: str) -> str | None:
    """What is wrong with an URL, as far as can be seen without connecting.

    Args:
        url: any string.

    Returns:
        Words to be read after the name of the setting; None if nothing is.
    """
    if of_cluster(url):
        database = url.partition("://")[2].partition("?")[0].rpartition("@")[2].partition("/")[2].strip("/")
        if database not in ("", "0"):
            return f"names a database, and a cluster has the database 0 alone: it must be {_CLUSTER_FORM}"
        faults = [fault_of(one) for one in _node_urls(url)]
        fault = next(filter(None, faults), None)
        return fault and fault.replace(_FORMS, _CLUSTER_FORM)
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query)
        redis.connection.parse_url(url.partition("?")[0])  # type: ignore[no-untyped-call]
    except ValueError:  # its words may quote the password
        return f"must be {_FORMS}, not {shown_url(url)!r}"
    database = parts.path.strip("/")
    if parts.scheme != "unix" and database and not database.isdecimal():  # redis-py would take database 0
        return f"names a database that is no number: it must be {_FORMS}"
    for name, value in options:
        fault = _fault_of_option(parts.scheme, name, value)
        if fault is not None:
            return fault
    return None


def _fault_of_option(scheme: str, name: str, value: str) -> str | None:
    """What is wrong with one option of the URL's query; its value is not shown, for it may be a password."""
    try:
        _connection_with(scheme, name, value)
    except TypeError:
        return f"has the option {name!r}, which redis-py does not know for {scheme}://: {_instead_of(scheme, name)}"
    except (ValueError, RedisError):
        right = "none, optional or required" if name == "ssl_cert_reqs" else "what redis-py takes"
        return f"has the option {name!r} with a value that does not work: it must be {right}"
    return None


def _connection_with(scheme: str, name: str, value: str) -> None:
    place = "/redis.sock" if scheme == "unix" else "localhost"
    redis.Redis.from_url(f"{scheme}://{place}?{urlencode({name: value})}").connection_pool.make_connection()


def _instead_of(scheme: str, name: str) -> str:
    if scheme == "redis" and (name.lower() in _TLS_OPTIONS or name.startswith("ssl_")):
        return _TLS
    known = redis.connection.URL_QUERY_ARGUMENT_PARSERS
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"did you mean {near[0]!r}?" if near and near[0] != name else "leave it out"
