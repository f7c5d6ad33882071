"""A Redis URL that cannot work is told in a sentence, with the right form and without its password."""

from __future__ import annotations

import pytest
import redis

from embedqueue.settings.checks import explain_redis
from embedqueue.settings.settings import SettingsError, read

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h/0?ssl=true", "'ssl', which redis-py does not know for redis://: for TLS write rediss://"),
        ("redis://h/0?ssl_cert_reqs=none", "'ssl_cert_reqs', which .* for TLS write rediss://"),
        ("rediss://h/0?ssl=true", "'ssl', which redis-py does not know for rediss://: leave it out"),
        ("redis://h/0?family=0", "'family', which redis-py does not know for redis://: leave it out"),
        ("redis://h/0?socket_timout=3", "'socket_timout', .* did you mean 'socket_timeout'?"),
        ("unix:///s?socket_keepalive=1", "'socket_keepalive', .* for unix://: leave it out"),
        ("redis://h/0?socket_timeout=abc", "'socket_timeout' with a value that does not work"),
        ("rediss://h/0?ssl_cert_reqs=CERT_NONE", "'ssl_cert_reqs' with .* must be none, optional or required"),
        (f"redis://:{PASSWORD}@h/0?protocol=3&no={PASSWORD}", "has the option 'no'"),
        ("redis://h/cache", "names a database that is no number: it must be redis://HOST:PORT/0"),
        ("redis+cluster://h:1,h:2/3", "names a database, and a cluster has the database 0 alone"),
        ("redis+cluster://h:1,h:no", "must be redis.cluster://HOST:PORT,HOST:PORT"),
        ("redis+cluster://h:1,[h", "must be redis.cluster://HOST:PORT,HOST:PORT"),
        ("redis+cluster://h:1?ssl=true", "'ssl', which redis-py does not know for redis://"),
        (f"redis://:{PASSWORD}#tail@h/0", "must be redis://HOST:PORT/0, rediss://... or unix:///PATH, not 'redis:"),
        (f"redis://:pa?{PASSWORD}@h/0", "must be redis://HOST:PORT/0"),
        ("redis://[h/0", "must be redis://HOST:PORT/0"),
    ],
)
def test_what_is_wrong_is_told(url, words):
    with pytest.raises(SettingsError, match=f"^EMBEDQUEUE_REDIS_URL .*{words}") as caught:
        read({"REDIS_URL": url}, spelling="EMBEDQUEUE_{}")
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://user:p%40ss@[::1]:6379/3?health_check_interval=5&protocol=3&decode_responses=true&client_name=x",
        "rediss://h:1/0?ssl_cert_reqs=none&ssl_check_hostname=false",
        "unix:///run/redis.sock?db=2&password=secret",
        "redis://h/?db=3&socket_keepalive=true&max_connections=4&retry_on_timeout=yes",
    ],
)
def test_what_redis_py_takes_is_taken(url):
    """Every option of its own, by each of its three ways."""
    assert read({"REDIS_URL": url}).client().connection_pool.make_connection()


@pytest.mark.parametrize(
    ("url", "addresses", "options"),
    [
        ("redis+cluster://h:1,i:2", [("h", 1), ("i", 2)], {}),
        ("redis+cluster://user:p%40ss@h:1,i/0?socket_timeout=3", [("h", 1), ("i", 6379)], {"username": "user"}),
        ("rediss+cluster://h:1?ssl_check_hostname=false", [("h", 1)], {"ssl": True, "ssl_check_hostname": False}),
    ],
)
def test_a_cluster_is_named_by_some_of_its_nodes(url, addresses, options):
    """And nobody is asked for the others before it is used."""
    client = read({"REDIS_URL": url}).client()
    assert isinstance(client, redis.RedisCluster)
    assert client.addresses == addresses
    made = client.node_client().connection_pool.make_connection()
    assert (made.host, made.port) == addresses[0]
    assert options.items() <= client._options.items()


def test_a_cluster_that_is_away_is_told_of_at_the_first_use():
    client = read({"REDIS_URL": "redis+cluster://127.0.0.1:1"}).client()
    with pytest.raises(redis.ConnectionError):
        client.get("key")
    with pytest.raises(redis.ConnectionError):  # and again
        client.get("key")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{PASSWORD}@h",
        f"redis+cluster://user:{PASSWORD}@h:1,i:2",
        f"rediss+cluster://h:1,i:2?password={PASSWORD}",
        f"unix:///s?password={PASSWORD}",
    ],
)
def test_a_password_that_a_server_quotes_is_not_told(url):
    """As those do that do not know HELLO, which carries it."""
    error = redis.ResponseError(f"unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `{PASSWORD}`, ")
    said = explain_redis(read({"REDIS_URL": url}), error)
    assert "unknown command `HELLO`" in said
    assert PASSWORD not in said
