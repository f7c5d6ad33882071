"""What may be wrong with the URL of a Redis, in words that say the right form and show no password."""

from __future__ import annotations

import difflib
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
import redis.connection
from redis.exceptions import RedisError

from embedqueue.values.words import shown_url

_FORMS = "redis://HOST:PORT/0, rediss://... or unix:///PATH"
#: Options by which other clients are asked for TLS, and how redis-py is, by the scheme.
_TLS_OPTIONS = ("ssl", "tls", "usetls")
_TLS = "for TLS write rediss:// instead of redis://, else leave it out"


def fault_of(url: str) -> str | None:
    """What is wrong with an URL, as far as can be seen without connecting.

    Args:
        url: any string.

    Returns:
        Words to be read after the name of the setting; None if nothing is.
    """
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
