"""The recipes run as they are written: on stand-ins for providers, and with other libraries where they are there."""

from __future__ import annotations

import re
import warnings
from functools import partial
from pathlib import Path

import pytest
import requests

from embedqueue.demo.localredis import LocalRedis, find_search_module, find_server
from embedqueue.settings.providers import PROVIDERS
from embedqueue.settings.settings import read
from tests.provider import Provider

PAGE = (Path(__file__).parents[2] / "docs" / "providers-howto.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
COMMON = re.findall(r"```python\n(.*?)```", PAGE.partition("\n## ")[0], re.DOTALL)
#: Where the recipes' addresses are answered here.
PLACES = {
    "https://generativelanguage.googleapis.com": "",
    "https://openrouter.ai": "",
    "https://api.openai.com": "",
    "https://name.openai.azure.com": "",
    "https://api.voyageai.com": "/voyage",
    "https://api.cohere.com": "/cohere",
    "https://api.mistral.ai": "/mistral",
    "http://localhost:8080": "",
    "http://localhost:8000": "",
}
KEYS = ("GEMINI", "OPENROUTER", "OPENAI", "AZURE_OPENAI", "VOYAGE", "COHERE", "MISTRAL")


@pytest.fixture
def redirected(provider: Provider, monkeypatch):
    """Every request goes to the stand-in, whatever host it is for."""
    send = requests.Session.send

    def redirect(session, request, **options):
        for place, path in PLACES.items():
            if request.url.startswith(place):
                request.url = request.url.replace(place, provider.url + path)
        return send(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", redirect)
    for key in KEYS:
        monkeypatch.setenv(f"{key}_API_KEY", "test-key")
    return provider


def run(section: str, client) -> dict[str, object]:
    """The common block and those of a section, one after another."""
    names: dict[str, object] = {"client": client}
    for block in COMMON + re.findall(r"```python\n(.*?)```", SECTIONS[section], re.DOTALL):
        exec(block.replace("redis.Redis()", "client"), names)
    return names


@pytest.mark.parametrize(
    ("section", "numbers"),
    [
        ("Gemini", 768),
        ("OpenRouter", 3072),
        ("OpenAI", 256),
        ("Azure", 3072),
        ("Voyage", 1024),
        ("Cohere", 1024),
        ("Mistral", 1024),
        ("A server of your own", 3072),
        ("Anything else", 3),
    ],
)
def test_a_providers_recipe_works(section, numbers, redirected, redis_client):
    """With no more than the key in the environment."""
    redirected.settings.require_key = section != "A server of your own"
    names = run(section, redis_client)
    assert len(names["vector"]) == numbers
    assert redis_client.hlen("doc:1") == (2 if section != "A server of your own" else 4)


@pytest.mark.parametrize(
    ("section", "library", "numbers"),
    [
        ("LangChain", "langchain_core", 64),
        ("Offline, for trying things out", "wordllama", 256),
    ],
)
def test_a_librarys_recipe_works(section, library, numbers, redis_client):
    """Where it is installed; what is found is what was put in."""
    pytest.importorskip(library, reason=f"{library} is not installed")
    names = run(section, redis_client)
    assert len(names["vector"]) == numbers
    assert [one.page_content for one in names.get("found", ())] in ([], ["The cat sleeps on the sofa."])


def test_litellms_recipe_is_taken(redis_client, redirected, monkeypatch):
    """LiteLLM does not send by requests: it is told the address."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litellm = pytest.importorskip("litellm", reason="embedqueue[litellm] is not installed")
        there = partial(litellm.embedding, api_base=f"{redirected.url}/cohere/v2/embed")
        monkeypatch.setattr(litellm, "embedding", there)
        assert len(run("LiteLLM", redis_client)["vector"]) == 1536


@pytest.mark.skipif(None in (find_server(), find_search_module()), reason="no Redis with search: embedqueue[demo]")
def test_redisvls_recipe_works():
    """On a Redis with search."""
    pytest.importorskip("redisvl", reason="embedqueue[redisvl] is not installed")
    pytest.importorskip("wordllama", reason="embedqueue[local] is not installed")
    with LocalRedis(search=True, appendonly=False) as server:
        [hit] = run("RedisVL", server.client())["hits"]
    assert hit["response"] == "on the sofa"


def test_every_block_is_python_and_every_section_is_tried():
    """What needs a model from a hub is compiled at least."""
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        compile(block, "providers-howto.md", "exec")
    assert "SentenceTransformerEmbedder" in SECTIONS["Sentence Transformers"]


def test_the_settings_of_the_recipes_are_understood(monkeypatch):
    """Each name and each provider; no provider is left out."""
    seen = set()
    for section, text in SECTIONS.items():
        said = text.partition("\nSettings: ")[2]
        given = {name: value.strip('"') for name, value in re.findall(r"`([A-Z_]+)=([^`]+)`", said)}
        given.pop("EMBEDDER", None)
        if given:
            settings = read(given)
            seen.add(settings.provider)
            assert settings.embedder(), section
    assert seen == set(PROVIDERS)
