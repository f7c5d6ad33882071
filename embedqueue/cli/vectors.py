"""The vector index over the embeddings, and a search through it. Needs Redis with its search module."""

from __future__ import annotations

import json
from typing import Any

import click
from redis.exceptions import ResponseError

from embedqueue.settings.settings import Settings
from embedqueue.values.vectors import index_type, to_bytes
from embedqueue.values.words import printable

from .context import Source, as_json, cli, command

DEFAULT_INDEX = "embeddings"
index_name = click.option("--name", default=DEFAULT_INDEX, show_default=True, help="Of the index.")
#: What FT.INFO tells that a user wants to know.
FACTS = ("index_name", "num_docs", "hash_indexing_failures", "percent_indexed", "attributes")


@cli.group("index")
def index() -> None:
    """The vector index over the embeddings."""


@command(index, "create", "embedqueue index create --prefix doc:")
@click.option("--prefix", required=True, help="What the hashes' keys begin with.")
@click.option("--metric", type=click.Choice(["COSINE", "L2", "IP"]), default="COSINE", show_default=True)
@click.option("--algorithm", type=click.Choice(["HNSW", "FLAT"]), default="HNSW", show_default=True)
@index_name
def create(source: Source, prefix: str, metric: str, algorithm: str, name: str) -> None:
    """Create it, with the dimensions of the model."""
    settings = source.settings()
    numbers = ["TYPE", index_type(settings.option("vector_type")), "DIM", settings.dimensions]
    schema = [settings.option("embedding_field"), "VECTOR", algorithm, 6, *numbers, "DISTANCE_METRIC", metric]
    # redis-py has its search classes in other places from version to version
    _run(settings, "FT.CREATE", name, "ON", "HASH", "PREFIX", 1, prefix, "SCHEMA", *schema)
    click.echo(f"Index {name} over {prefix}*, {settings.dimensions} dimensions, {metric}.")


@command(index, "info", "embedqueue index info --json")
@index_name
@as_json
def info(source: Source, name: str, as_json: bool) -> None:
    """Tell what the index holds."""
    reply = _plain(_run(source.settings(), "FT.INFO", name))
    facts = dict(zip(reply[::2], reply[1::2], strict=False))
    found = {fact: facts.get(fact) for fact in FACTS}
    if as_json:
        click.echo(json.dumps(found))
        return
    for fact, value in found.items():
        click.echo(printable(f"{fact:<24} {value}"))


@command(cli, "search", "embedqueue search 'how to cancel an order' --count 3 --show text")
@click.argument("words")
@click.option("--count", type=click.IntRange(1), default=10, show_default=True)
@click.option("--show", metavar="FIELD", help="A field of the hashes to print with them.")
@index_name
@as_json
def search(source: Source, words: str, count: int, show: str | None, name: str, as_json: bool) -> None:
    """Find the keys whose texts are nearest in meaning, with their distances."""
    settings = source.settings()
    if not words.strip():
        raise click.UsageError("there are no words to search for")
    vector = to_bytes(settings.embedder().embed_batch([words], settings.model)[0], settings.option("vector_type"))
    query = f"*=>[KNN {count} @{settings.option('embedding_field')} $vector AS distance]"
    fields = ["distance", *([show] if show else [])]
    options = ["PARAMS", "2", "vector", vector, "SORTBY", "distance", "RETURN", str(len(fields)), *fields]
    reply = _run(settings, "FT.SEARCH", name, query, *options, "LIMIT", "0", str(count), "DIALECT", "2")
    for key, values in zip(_plain(reply[1::2]), _plain(reply[2::2]), strict=True):
        found = dict(zip(values[::2], values[1::2], strict=True))
        distance, shown = float(found["distance"]), found.get(show or "", "")
        if as_json:
            more = {show: shown} if show else {}
            click.echo(json.dumps({"redis_key": key, "distance": distance, **more}))
        else:
            click.echo(printable(f"{distance:.4f}  {key}" + (f"  {shown}" if show else "")))


def _run(settings: Settings, *command: Any) -> Any:
    """A command of the search module, with RESP2's flat lists for an answer.

    Raises:
        click.ClickException: there is no such module, or no such index.
    """
    client: Any = settings.client(protocol=2, decode_responses=False)
    try:
        return client.execute_command(*command)
    except ResponseError as error:
        if "unknown command" in str(error):
            raise click.ClickException("this Redis cannot search by vector: take Redis 8, or Redis Stack") from None
        raise click.ClickException(str(error)) from None


def _plain(reply: Any) -> Any:
    """An answer with text for bytes; a field that is none is shown as well as it can be."""
    if isinstance(reply, list):
        return [_plain(part) for part in reply]
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
