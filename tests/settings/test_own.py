"""Settings that name objects by their paths, and what more an embedder is told by settings."""

from __future__ import annotations

import json

import pytest

from embedqueue import ConfigurationError
from embedqueue.embedders import AzureOpenAIEmbedder, CohereEmbedder, MistralEmbedder, VoyageEmbedder
from embedqueue.settings.checks import check_call, check_key
from embedqueue.settings.settings import PROVIDERS, SettingsError, read, read_environment, read_queues
from tests.parts import PATIENCE_SECONDS
from tests.provider import Provider
from tests.settings import own

HERE = "tests.settings.own"


@pytest.mark.parametrize("path", [f"{HERE}.Mine", f"{HERE}:Mine", f"{HERE}.build", f"{HERE}:Holder.Inner"])
def test_a_class_or_a_function_is_called_once(path):
    """At its first use, not when settings are read with a model; settings give the same embedder from then on."""
    own.made.clear()
    settings = read_environment({"EMBEDQUEUE_EMBEDDER": path, "EMBEDQUEUE_MODEL": "mine"})
    assert own.made == []
    embedder = settings.embedder()
    assert own.made == [embedder]
    assert settings.embedder() is embedder
    assert (settings.width, settings.model, settings.provider) == (4, "mine", path)


@pytest.mark.parametrize("given", [f"{HERE}.thing", own.thing])
def test_an_object_is_taken_as_it_is(given):
    """By its path, or itself where settings are Python."""
    assert read({"EMBEDDER": given}).embedder() is own.thing


def test_classes_and_functions_may_be_given_themselves():
    """In Flask and Django settings are Python."""
    assert type(read({"EMBEDDER": own.Mine}).embedder()) is own.Mine
    assert type(read({"EMBEDDER": own.build}).embedder()) is own.Mine


def test_an_embedder_of_ones_own_works_a_queue(redis_client):
    """It needs no key; its length and its model's name are learned from it."""
    settings = read({"EMBEDDER": f"{HERE}.learns"})
    assert (settings.model, settings.width, check_key(settings), check_call(settings)) == ("learning", None, [], [])
    assert settings.width == 2
    with settings.queue(redis=redis_client) as queue:
        assert queue.enqueue("doc:1", "x").result(PATIENCE_SECONDS) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"EMBEDDER": "Mine"}, r'EMBEDQUEUE_EMBEDDER must be a path such as "myapp.embedders.Mine", not \'Mine\''),
        ({"EMBEDDER": "a b.c"}, "EMBEDQUEUE_EMBEDDER must be a path"),
        ({"EMBEDDER": "no_such_package.Mine"}, "EMBEDQUEUE_EMBEDDER names .*no_such_package cannot be imported"),
        ({"EMBEDDER": f"{HERE}.Yours"}, f"EMBEDQUEUE_EMBEDDER names .*{HERE} has no Yours"),
        ({"EMBEDDER": f"{HERE}.Mine", "PROVIDER": "openai"}, "EMBEDQUEUE_PROVIDER has no meaning beside"),
        ({"EMBEDDER": f"{HERE}.Mine", "API_KEY": "sk-secret"}, "EMBEDQUEUE_API_KEY has no meaning beside"),
        ({"EMBEDDER": f"{HERE}.Mine", "DIMENSIONS": 7}, "EMBEDQUEUE_DIMENSIONS has no meaning beside"),
        ({"TASK_TYPE": "CLUSTERING", "PROVIDER": "openai"}, 'EMBEDQUEUE_TASK_TYPE has no meaning where .*"openai"'),
        ({"BODY": "{}"}, 'EMBEDQUEUE_BODY has no meaning where the provider is "gemini"'),
        ({"HEADERS": "sk-secret"}, "EMBEDQUEUE_HEADERS must be names and values, in JSON"),
        ({"HEADERS": '["sk-secret"]'}, "EMBEDQUEUE_HEADERS must be names and values"),
        ({"HEADERS": {"x": b"sk-secret"}}, "EMBEDQUEUE_HEADERS.* must be a string"),
        ({"QUERY_ROLE": "{sk-secret", "PROVIDER": "openai"}, "EMBEDQUEUE_QUERY_ROLE must be names and values"),
        ({"TIMEOUT": "soon"}, "EMBEDQUEUE_TIMEOUT must be a positive number of seconds"),
        ({"TIMEOUT": "1,2,3"}, "EMBEDQUEUE_TIMEOUT must be"),
        ({"TIMEOUT": -1}, "EMBEDQUEUE_TIMEOUT must be"),
        ({"PROVIDER": "azure"}, "EMBEDQUEUE_BASE_URL must name the resource: give it, or set AZURE_OPENAI_ENDPOINT"),
        ({"ON_BATCH": "nowhere"}, "EMBEDQUEUE_ON_BATCH must be a path"),
        ({"ON_DEAD": f"{HERE}.told"}, "EMBEDQUEUE_ON_DEAD must be a function"),
        ({"OBSERVERS": f"{HERE}.Counts,{HERE}.Nobody"}, "EMBEDQUEUE_OBSERVERS names .*has no Nobody"),
        ({"OBSERVERS": f"{HERE}.fails"}, "EMBEDQUEUE_OBSERVERS names .*could not be made .*no weights here"),
        ({"OBSERVERS": f"{HERE}.Mine"}, "EMBEDQUEUE_OBSERVERS must be a list of embedqueue.Observer"),
        ({"OBSERVERS": 7}, "EMBEDQUEUE_OBSERVERS must be a list of embedqueue.Observer"),
    ],
)
def test_what_cannot_work_is_a_sentence_that_names_the_setting(given, words, monkeypatch):
    """At once, and without the value where that may be a secret."""
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with pytest.raises(SettingsError, match=words) as refused:
        read(given, spelling="EMBEDQUEUE_{}")
    assert "sk-secret" not in str(refused.value)


@pytest.mark.parametrize(("path", "why"), [("fails", "RuntimeError: no weights here"), ("told", "is no embedder")])
def test_an_embedder_that_cannot_be_made_is_told_where_it_is_needed(path, why):
    """By the check, before the first request; whoever only reads settings is not bothered."""
    settings = read_environment({"EMBEDQUEUE_EMBEDDER": f"{HERE}.{path}"})
    [sentence] = check_key(settings)
    assert sentence.startswith("EMBEDQUEUE_EMBEDDER names")
    assert why in sentence
    with pytest.raises(SettingsError, match="EMBEDQUEUE_EMBEDDER"):
        settings.embedder()


def test_a_failing_call_of_ones_own_is_told_with_its_setting():
    """Whatever it raises."""
    settings = read({"EMBEDDER": own.Mine})
    settings.embedder().fail_with(KeyError("oops"))
    [sentence] = check_call(settings)
    assert "oops" in sentence
    assert "look at EMBEDDER" in sentence
    settings.embedder().fail_with(ConfigurationError("no such model"))
    [sentence] = check_call(settings)
    assert sentence.endswith("can work: no such model; look at EMBEDDER.")
    assert repr(settings.own) == f"{HERE}.Mine"


@pytest.mark.parametrize("observers", [f"{HERE}.Counts, {HERE}:counts", [own.Counts(), f"{HERE}.counts"]])
def test_observers_and_functions_are_found_by_path(observers):
    """A class is called, an object is taken; a function is not called: it is the function."""
    options = read({"ON_BATCH": f"{HERE}.on_batch", "ON_ERROR": "none", "OBSERVERS": observers}).options
    assert (options["on_batch"], options["on_error"]) == (own.on_batch, None)
    assert [type(one) for one in options["observers"]] == [own.Counts, own.Counts]
    assert options["observers"][1] is own.counts


@pytest.mark.parametrize("as_json", [True, False])
def test_what_an_embedder_is_told_reaches_the_provider(provider: Provider, as_json):
    """Headers, fields, roles with their blanks: JSON in the environment, mappings in Python."""
    told = {"HEADERS": {"X-Team": "search"}, "BODY": {"user": "u7"}}
    given = {
        "PROVIDER": "openai",
        "API_KEY": "test-key",
        "BASE_URL": provider.openai_url,
        "DOCUMENT_ROLE": "passage: ",
        "QUERY_ROLE": '{"user": "q"}',
        "TIMEOUT": "3",
        **({name: json.dumps(value) for name, value in told.items()} if as_json else told),
    }
    settings = read(given)
    embedder = settings.embedder()
    embedder.embed_batch(["x"], "m")
    embedder.embed_queries(["x"], "m")
    first, second = provider.calls
    assert (first.headers["x-team"], first.document["user"], first.texts) == ("search", "u7", ["passage: x"])
    assert (second.document["user"], second.texts) == ("q", ["x"])
    assert "u7" not in repr(settings)
    assert "search" not in repr(settings)


@pytest.mark.parametrize(("given", "seconds"), [("7", 7.0), ("5, 60", (5.0, 60.0)), ([5, 60], (5.0, 60.0)), (2.5, 2.5)])
def test_a_timeout_is_a_number_or_two(given, seconds):
    """Seconds to connect and of silence."""
    assert read({"TIMEOUT": given}).told == {"timeout": seconds}


@pytest.mark.parametrize(("given", "task"), [("CLUSTERING", "CLUSTERING"), ("none", None)])
def test_geminis_task_is_set(given, task):
    """Or none is sent."""
    assert read({"TASK_TYPE": given}).embedder().task_type == task


@pytest.mark.parametrize(
    ("provider", "kind"),
    [
        ("azure", AzureOpenAIEmbedder),
        ("voyage", VoyageEmbedder),
        ("cohere", CohereEmbedder),
        ("mistral", MistralEmbedder),
    ],
)
def test_the_vendors_have_names(provider, kind, monkeypatch):
    """A name is enough, as with the others; the missing key is told by its variable."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com")
    for variable in kind.key_variables:
        monkeypatch.delenv(variable, raising=False)
    settings = read({"PROVIDER": provider})
    embedder = settings.embedder()
    assert type(embedder) is kind
    assert (settings.model, embedder.dimensions) == PROVIDERS[provider]
    assert kind.key_variables[0] in check_key(settings)[0]


def test_a_known_model_of_a_vendor_brings_its_dimensions():
    """As OpenAI's do."""
    assert read({"PROVIDER": "cohere", "MODEL": "embed-english-light-v3.0"}).dimensions == 384


def test_a_queue_of_another_embedder_inherits_nothing_of_the_providers():
    """Keys, models and lengths are of one embedder."""
    shared = {"PROVIDER": "openai", "API_KEY": "k", "MODEL": "m", "BODY": {"user": "u"}, "CACHE_TTL": 60}
    queues = {"mine": {"EMBEDDER": f"{HERE}.Mine"}, "voyage": {"PROVIDER": "voyage"}}
    found = read_queues(shared | {"QUEUES": queues}, environ={})
    assert found["mine"].width == 4
    assert found["mine"].options["cache_ttl"] == 60
    assert (found["voyage"].api_key, found["voyage"].model, found["voyage"].told) == (None, "voyage-4", {})


def test_an_applications_embedder_wins_over_the_environments_provider():
    """And the other way round."""
    environ = {"EMBEDQUEUE_PROVIDER": "openai", "EMBEDQUEUE_API_KEY": "k", "EMBEDQUEUE_NAMESPACE": "n"}
    found = read_queues({"EMBEDDER": f"{HERE}.Mine"}, environ=environ)["default"]
    assert (found.width, found.options["namespace"]) == (4, "n")
    found = read_queues({"PROVIDER": "local"}, environ={"EMBEDQUEUE_EMBEDDER": f"{HERE}.Mine"})["default"]
    assert found.provider == "local"
    assert read_environment(environ, own={"EMBEDDER": f"{HERE}.Mine"}).width == 4


@pytest.mark.parametrize("path", [f"{HERE}.table", f"{HERE}:Table"])
def test_a_sink_by_its_path(path):
    """An object, or a class that is called; in the environment as in an application's settings."""
    for settings in (read_environment({"EMBEDQUEUE_SINK": path}), read({"SINK": path})):
        assert isinstance(settings.option("sink"), own.Table)
    assert read({"SINK": own.table}).option("sink") is own.table
    assert read({"SINK": "none"}).option("sink") is None


def test_a_sink_that_is_none_is_refused():
    with pytest.raises(SettingsError, match=r"EMBEDQUEUE_SINK must be an object with write\(rows\)"):
        read_environment({"EMBEDQUEUE_SINK": f"{HERE}.thing"})
    with pytest.raises(SettingsError, match="EMBEDQUEUE_SINK names .*has no Nothing"):
        read_environment({"EMBEDQUEUE_SINK": f"{HERE}.Nothing"})


@pytest.mark.parametrize("name", ["Authorization", "api-key"])
def test_a_header_serves_azure_as_a_key(name, monkeypatch):
    """A token of Entra ID, as the embedder itself takes it; another header is none."""
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    given = {"PROVIDER": "azure", "BASE_URL": "https://x.openai.azure.com"}
    assert check_key(read({**given, "HEADERS": {name: "Bearer token"}})) == []
    assert check_key(read({**given, "HEADERS": {"X-Team": "search"}}))
