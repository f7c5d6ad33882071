"""A Redis URL that cannot work is told in a sentence, with the right form and without its password."""

from __future__ import annotations

import pytest

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
