"""One way to configure: names, types, defaults, and errors that say what to write."""

from __future__ import annotations

import dataclasses

import pytest
import tenacity

from embedqueue import GeminiEmbedder, Limits, LocalEmbedder, OpenAIEmbedder, OpenRouterEmbedder
from embedqueue.settings.checks import check_call, check_key, check_redis
from embedqueue.settings.settings import KNOWN, PROVIDERS, Settings, SettingsError, read, read_environment, read_queues
from embedqueue.testing import FakeEmbedder
from embedqueue.values.options import Options


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    """The machine's own keys play no part."""
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENROUTER_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_set_is_a_configuration():
    """Defaults stand for everything."""
    settings = read({})
    assert (settings.redis_url, settings.provider) == ("redis://localhost:6379/0", "gemini")
    assert (settings.model, settings.dimensions, settings.options) == ("google/gemini-embedding-001", 3072, {})


def test_every_option_of_the_queue_is_a_name():
    """Nothing is listed twice: a new option of the queue is a setting at once."""
    for option in dataclasses.fields(Options):
        assert option.name.upper() in KNOWN


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("FLUSH_INTERVAL", "2.5", 2.5),
        ("MAX_BATCH_SIZE", "7", 7),
        ("MAX_PENDING", "none", None),
        ("MAX_PENDING", "100", 100),
        ("CACHE_TTL", "None", None),
        ("CACHE_TTL", "60", 60.0),
        ("MIN_REPLICAS", "2", 2),
        ("REPLICA_PATIENCE", "0.5", 0.5),
        ("FLUSH_ON_WAIT", "false", False),
        ("WORKER", "Yes", True),
        ("NAMESPACE", "notes", "notes"),
        ("IF_MISSING", "skip", "skip"),
        ("VECTOR_TYPE", "Float16", "float16"),
        ("MAX_CONCURRENCY", "auto", "auto"),
        ("MAX_CONCURRENCY", "8", 8),
        ("LIMITS", "auto", "auto"),
        ("LIMITS", "none", None),
        ("LIMITS", "requests_per_minute=600", Limits(requests_per_minute=600)),
        ("LIMITS", "tokens_per_minute=1_000_000, name=openai", Limits(tokens_per_minute=1_000_000, name="openai")),
    ],
)
def test_strings_of_the_environment_become_what_is_due(name, text, value):
    """Variables hold strings; the queue gets numbers, booleans and None."""
    settings = read_environment({f"EMBEDQUEUE_{name}": text, "OTHER": "x"})
    assert settings.options == {name.lower(): value}
    assert type(settings.options[name.lower()]) is type(value)


class SecretStr:
    """As pydantic's."""

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"FLUSH_INTERVALL": 1}, "did you mean EMBEDQUEUE_FLUSH_INTERVAL?"),
        ({"REDISURL": "x"}, "did you mean EMBEDQUEUE_REDIS_URL?"),
        ({"COFFEE": "x"}, "known are REDIS_URL"),
        ({"MAX_BATCH_SIZE": "many"}, "EMBEDQUEUE_MAX_BATCH_SIZE must be a whole number, not 'many'"),
        ({"MAX_PENDING": "many"}, "EMBEDQUEUE_MAX_PENDING must be a whole number or none"),
        ({"FLUSH_INTERVAL": "soon"}, "EMBEDQUEUE_FLUSH_INTERVAL must be a number"),
        ({"FLUSH_INTERVAL": "-1"}, "EMBEDQUEUE_FLUSH_INTERVAL must be positive"),
        ({"WORKER": "maybe"}, "EMBEDQUEUE_WORKER must be true or false"),
        ({"IF_MISSING": "explode"}, 'EMBEDQUEUE_IF_MISSING must be "create" or "skip"'),
        ({"VECTOR_TYPE": "int8"}, 'EMBEDQUEUE_VECTOR_TYPE must be "float32" or "float16"'),
        ({"LIMITS": "600"}, "EMBEDQUEUE_LIMITS must be NAME=NUMBER, ... with names of requests_per_minute,"),
        ({"LIMITS": "requests_per_minute=0"}, "EMBEDQUEUE_LIMITS must allow at least 1 of requests_per_minute"),
        (
            {"LIMITS": "texts_per_minute=many"},
            "EMBEDQUEUE_LIMITS must have a whole number of texts_per_minute, not 'many'",
        ),
        ({"LIMITS": 600}, "EMBEDQUEUE_LIMITS must be embedqueue.Limits(...)"),
        ({"PROVIDER": "acme"}, "EMBEDQUEUE_PROVIDER must be one of gemini, openrouter, openai, local"),
        ({"REDIS_URL": "localhost"}, "EMBEDQUEUE_REDIS_URL must be redis://"),
        ({"REDIS_URL": 5}, "EMBEDQUEUE_REDIS_URL must be a string"),
        ({"API_KEY": b"hunter2"}, "EMBEDQUEUE_API_KEY must be a string, or hold one as pydantic's SecretStr does"),
        ({"REDIS_URL": "redis://h:port/0"}, "EMBEDQUEUE_REDIS_URL must be redis://"),
        ({"BASE_URL": "ftp://x"}, "EMBEDQUEUE_BASE_URL must begin with http"),
        ({"BASE_URL": "http://["}, "EMBEDQUEUE_BASE_URL must begin with http"),
        ({"PROVIDER": "local", "BASE_URL": "http://x"}, "EMBEDQUEUE_BASE_URL has no meaning"),
        ({"DIMENSIONS": "0"}, "EMBEDQUEUE_DIMENSIONS must be at least 1"),
        ({"DIMENSIONS": "wide"}, "EMBEDQUEUE_DIMENSIONS must be a whole number"),
        ({"PROVIDER": "local", "DIMENSIONS": 100}, "EMBEDQUEUE_DIMENSIONS must be one of (64, 128, 256)"),
        ({"CACHE_TTL": "1e17"}, "EMBEDQUEUE_CACHE_TTL must be at most 100,000,000,000 seconds"),
        ({"LEASE_SECONDS": "1e17"}, "EMBEDQUEUE_LEASE_SECONDS must be ten years at most"),
        ({"RETRY": "often"}, "EMBEDQUEUE_RETRY must be a tenacity policy"),
        ({"NAMESPACE": "{a}"}, "EMBEDQUEUE_NAMESPACE must not hold braces"),
        ({"MODEL": "\ud800"}, "EMBEDQUEUE_MODEL holds a lone surrogate"),
    ],
)
def test_what_cannot_work_is_refused_by_its_name(given, words):
    """A sentence names the setting as its user writes it, and what to write instead."""
    with pytest.raises(SettingsError) as caught:
        read({f"EMBEDQUEUE_{name}": value for name, value in given.items()}, "EMBEDQUEUE_")
    assert words in str(caught.value)


def test_no_secret_is_in_a_refusal_or_a_repr():
    """Passwords and keys stay where they are."""
    settings = read(
        {
            "REDIS_URL": "redis://user:hunter2@h:6379/0",
            "API_KEY": "sk-secret",
            "BASE_URL": "http://u:hunter2@x/v1?key=hunter2",
            "PROVIDER": "openai",
        }
    )
    assert "hunter2" not in repr(settings)
    assert "sk-secret" not in repr(settings)
    for url in (
        "redis://:hunter2@h:no/0",
        "http://:hunter/2@h/0",
        "http://h/0?password=hunter2",
        "redis:/:hunter2@h/0",
    ):
        with pytest.raises(SettingsError) as caught:
            read({"REDIS_URL": url})
        assert "hunter" not in str(caught.value)


def test_what_kubernetes_puts_into_the_environment_is_not_ours():
    """A service called embedqueue gives every pod variables with our prefix."""
    found = {
        "EMBEDQUEUE_SERVICE_HOST": "10.0.0.1",
        "EMBEDQUEUE_SERVICE_PORT": "80",
        "EMBEDQUEUE_SERVICE_PORT_HTTP": "80",
        "EMBEDQUEUE_PORT": "tcp://10.0.0.1:80",
        "EMBEDQUEUE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "EMBEDQUEUE_PORT_80_TCP_ADDR": "10.0.0.1",
        "EMBEDQUEUE_REDIS_PORT": "tcp://10.0.0.1:6379",
        "EMBEDQUEUE_MODEL": "",
        "EMBEDQUEUE_HEALTH": "1",
    }
    assert read_environment(found, ignore=["HEALTH"]) == read({})


@pytest.mark.parametrize(
    ("provider", "kind"),
    [
        ("gemini", GeminiEmbedder),
        ("openrouter", OpenRouterEmbedder),
        ("openai", OpenAIEmbedder),
        ("local", LocalEmbedder),
    ],
)
def test_each_provider_has_its_embedder_and_its_model(provider, kind):
    """A provider's name is enough."""
    settings = read({"PROVIDER": provider.upper()})
    embedder = settings.embedder()
    assert type(embedder) is kind
    assert (settings.model, embedder.dimensions) == PROVIDERS[provider]


def test_a_known_model_brings_its_dimensions():
    """Who names OpenAI's small model need not know how wide its vectors are."""
    assert read({"PROVIDER": "openai", "MODEL": "text-embedding-3-small"}).dimensions == 1536
    assert read({"PROVIDER": "openrouter", "MODEL": "openai/text-embedding-3-small"}).dimensions == 1536
    assert read({"MODEL": "text-embedding-3-small", "DIMENSIONS": "512"}).dimensions == 512


def test_a_queue_is_made_but_not_started(fake_redis):
    """Overrides win over settings; nothing is connected and no thread runs."""
    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(2))
    settings = read({"PROVIDER": "local", "NAMESPACE": "n", "MAX_BATCH_SIZE": 3, "RETRY": policy})
    queue = settings.queue(redis=fake_redis, namespace="m")
    assert repr(queue) == "<EmbeddingBatchQueue 'm' model='wordllama' not started>"


def test_the_url_of_redis_wins_over_our_timeouts():
    """A hanging Redis must not hold a request for ever, unless the URL wants it."""
    assert read({}).client().connection_pool.connection_kwargs["socket_timeout"] == 10
    client = read({"REDIS_URL": "redis://h/3?socket_timeout=1"}).client()
    assert client.connection_pool.connection_kwargs["socket_timeout"] == 1


def test_named_queues_inherit_and_have_a_namespace_of_their_own():
    """A queue of another model must not share the first one's keys."""
    queues = read_queues(
        {
            "REDIS_URL": "redis://h/1",
            "API_KEY": "k",
            "QUEUES": {"images": {"MODEL": "m"}, "offline": {"PROVIDER": "local"}},
        },
        environ={"EMBEDQUEUE_MAX_BATCH_SIZE": "9", "EMBEDQUEUE_REDIS_URL": "redis://h/2"},
    )
    assert set(queues) == {"default", "images", "offline"}
    images, offline = queues["images"], queues["offline"]
    assert (images.redis_url, images.api_key, images.model) == ("redis://h/1", "k", "m")
    assert images.options == {"namespace": "embed_queue_images", "max_batch_size": 9}
    assert (offline.provider, offline.model, offline.dimensions, offline.api_key) == ("local", "wordllama", 256, None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"QUEUES": ["a"]}, "QUEUES must be a dictionary of dictionaries"),
        ({"QUEUES": {"a": 1}}, "QUEUES must be a dictionary of dictionaries"),
        ({"QUEUES": {"default": {}}}, "must not name a queue"),
        ({"QUEUES": {"a": {"MODELL": 1}}}, 'did you mean QUEUES["a"]["MODEL"]?'),
        ({"QUEUES": {"a": {"MAX_PENDING": 0}}}, 'QUEUES["a"]["MAX_PENDING"] must be at least 1'),
    ],
)
def test_a_named_queue_is_refused_by_its_whole_name(given, words):
    """The sentence says in which queue the fault is."""
    with pytest.raises(SettingsError) as caught:
        read_queues(given, environ={})
    assert words in str(caught.value)


def test_a_missing_key_is_a_sentence_that_names_both_ways(monkeypatch):
    """The provider's own variable serves where API_KEY is not set."""
    settings = read_environment({"EMBEDQUEUE_PROVIDER": "gemini"})
    (problem,) = check_key(settings)
    assert problem.startswith("There is no API key for gemini: set EMBEDQUEUE_API_KEY, or GEMINI_API_KEY or GOOGLE_API")
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    assert check_key(settings) == []
    assert check_key(Settings(provider="openai", base_url="http://h")) == []


def test_secrets_may_be_kept_in_objects():
    """As pydantic-settings gives them; no repr shows them."""
    settings = read({"API_KEY": SecretStr(" sk-1 "), "REDIS_URL": SecretStr("redis://:hunter2@h/1 ")})
    assert (settings.api_key, settings.redis_url) == (" sk-1 ", "redis://:hunter2@h/1")
    assert check_key(settings) == []
    assert "sk-1" not in repr(settings) and "hunter2" not in repr(settings)


def test_no_redis_is_a_sentence_that_names_the_setting(tmp_path):
    """Nobody listens there."""
    settings = read({"REDIS_URL": f"unix://{tmp_path}/none.sock", "PROVIDER": "local"}, spelling='EMBEDQUEUE["{}"]')
    (problem,) = check_redis(settings)
    assert problem.startswith("Redis at unix://")
    assert problem.endswith('start it, or set EMBEDQUEUE["REDIS_URL"].')


def test_a_real_call_tells_of_key_and_dimensions(provider):
    """A wrong key, and a model with other dimensions, are told before anything is enqueued."""
    base = {"PROVIDER": "openai", "BASE_URL": provider.openai_url, "API_KEY": "test-key", "DIMENSIONS": 16}
    assert check_call(read(base)) == []
    (problem,) = check_call(read({**base, "API_KEY": "hunter2"}))
    assert "No call to openai" in problem
    assert "API_KEY" in problem
    assert "hunter2" not in problem
    provider.settings.refused_options = ["dimensions"]
    (problem,) = check_call(read(base))
    assert problem.endswith("gives 3072 numbers a vector, not 16: set DIMENSIONS to 3072.")


def test_a_successor():
    """The queue of the second field has the first one's settings, but for what differs; named queues have none."""
    own = {
        "NAMESPACE": "q",
        "API_KEY": "k",
        "PROVIDER": "openai",
        "SINK": None,
        "SUCCESSOR": "EMBEDDING_FIELD=v2 MODEL=new",
    }
    first = read(own)
    assert first.successor == {"EMBEDDING_FIELD": "v2", "MODEL": "new"}
    second = first.second(**first.successor)
    assert (second.model, second.api_key, second.provider) == ("new", "k", "openai")
    assert (second.option("namespace"), second.option("embedding_field")) == ("q:v2", "v2")
    assert second.option("provenance_field") == "v2_of"
    other = first.second(EMBEDDING_FIELD="v2", PROVIDER="gemini")
    assert (other.provider, other.api_key) == ("gemini", None), "another provider has another key"
    embedder = FakeEmbedder(4)
    assert read({"EMBEDDER": embedder}).second(EMBEDDING_FIELD="v2").embedder() is embedder, "it has no path"
    queue = first.queue()
    assert queue.options.successor.options.model == "new"
    assert read_queues({**own, "QUEUES": {"b": {}}}, environ={})["b"].successor is None
    for wrong in ("MODEL=new", "EMBEDDING_FIELD=v2 MODLE=x", 7):
        with pytest.raises(SettingsError, match="SUCCESSOR"):
            read({"SUCCESSOR": wrong})
    for field in ("", "two words", "cache", "a:b"):
        with pytest.raises(SettingsError, match="second field"):
            first.second(EMBEDDING_FIELD=field)


def test_what_a_successors_settings_may_hold():
    """Blanks and commas, as passwords and JSON do."""
    headers = '{"X-Org":"acme", "X-Api-Key":"hunter2"}'
    given = f"EMBEDDING_FIELD=v2, REDIS_URL=redis://:tops,ecret@h:6379/0\n HEADERS={headers}\r\n\tMODEL=new\r\n"
    assert read({"SUCCESSOR": given}).successor == {
        "EMBEDDING_FIELD": "v2",
        "REDIS_URL": "redis://:tops,ecret@h:6379/0",
        "HEADERS": headers,
        "MODEL": "new",
    }


@pytest.mark.parametrize(
    "given",
    ["v2 API_KEY=hunter2", "EMBEDDING_FIELD=v2 api_key=hunter2", "hunter2=, EMBEDDING_FIELD=v2", f"{'A' * 50}=hunter2"],
)
def test_no_part_of_a_successor_that_may_be_secret_is_shown(given):
    """A word that is in a wrong place, or not in capital letters, may be a part of a password."""
    with pytest.raises(SettingsError, match="^SUCCESSOR holds a word that is no NAME=VALUE$"):
        read({"SUCCESSOR": given})


def test_an_applications_provider_gets_no_key_of_another():
    """That of the environment is for the provider that is named there; where none is, for whichever is named."""
    environ = {"EMBEDQUEUE_API_KEY": "theirs", "EMBEDQUEUE_MODEL": "m", "EMBEDQUEUE_NAMESPACE": "n"}
    other = read_queues({"PROVIDER": "gemini"}, environ=environ | {"EMBEDQUEUE_PROVIDER": "openai"})["default"]
    assert (other.api_key, other.model, other.options["namespace"]) == (None, PROVIDERS["gemini"][0], "n")
    same = read_queues({"PROVIDER": "gemini"}, environ=environ)["default"]
    assert (same.api_key, same.model) == ("theirs", "m")


@pytest.mark.parametrize("name", ["BUDGET", "LIMITS", "MAX_PENDING"])
def test_none_is_a_word_for_what_may_be_none(name):
    assert read({"PROVIDER": "local", name: "none"}).option(name.lower()) is None


@pytest.mark.parametrize(
    ("theirs", "ours"), [("openai", " OpenAI "), ("gemini", None), ("gemini", ""), (" GEMINI", "gemini")]
)
def test_one_provider_in_two_spellings_is_one(theirs, ours):
    environ = {"EMBEDQUEUE_PROVIDER": theirs, "EMBEDQUEUE_API_KEY": "k", "EMBEDQUEUE_DIMENSIONS": "256"}
    found = read_queues({"PROVIDER": ours}, environ=environ)["default"]
    assert (found.api_key, found.dimensions) == ("k", 256)
