"""The vector index over the embeddings, and a search through it. Needs Redis with its search module."""

from __future__ import annotations

import json
from typing import Any

import click
import numpy as np

from embedqueue.vectors import FLOAT32

from .commands import Context, as_json, cli, command

DEFAULT_INDEX = "embeddings"
index_name = click.option("--name", default=DEFAULT_INDEX, show_default=True, help="Of the index.")


@cli.group("index")
def index() -> None:
    """The vector index over the embeddings."""


@command(index, "create", "embedqueue index create --prefix doc:")
@click.option("--prefix", required=True, help="What the hashes' keys begin with.")
@click.option("--metric", type=click.Choice(["COSINE", "L2", "IP"]), default="COSINE", show_default=True)
@click.option("--algorithm", type=click.Choice(["HNSW", "FLAT"]), default="HNSW", show_default=True)
@index_name
def create(context: Context, prefix: str, metric: str, algorithm: str, name: str) -> None:
    """Create it, with the dimensions of the model."""
    settings = context.settings()
    kind = ["VECTOR", algorithm, 6, "TYPE", "FLOAT32", "DIM", settings.dimensions, "DISTANCE_METRIC", metric]
    schema = [settings.option("embedding_field"), *kind]
    client: Any = settings.client()  # redis-py has its search classes in other places from version to version
    client.execute_command("FT.CREATE", name, "ON", "HASH", "PREFIX", 1, prefix, "SCHEMA", *schema)
    click.echo(f"Index {name} over {prefix}*, {settings.dimensions} dimensions, {metric}.")


@command(index, "info", "embedqueue index info")
@index_name
def info(context: Context, name: str) -> None:
    """Tell what the index holds."""
    client: Any = context.settings().client(decode_responses=True)
    reply = client.execute_command("FT.INFO", name)
    facts = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=False))
    for fact in ("index_name", "num_docs", "hash_indexing_failures", "percent_indexed", "attributes"):
        click.echo(f"{fact:<24} {facts.get(fact)}")


@command(cli, "search", "embedqueue search 'how to cancel an order' --count 3")
@click.argument("words")
@click.option("--count", type=click.IntRange(1), default=10, show_default=True)
@index_name
@as_json
def search(context: Context, words: str, count: int, name: str, as_json: bool) -> None:
    """Find the keys whose texts are nearest in meaning, with their distances."""
    settings = context.settings()
    vector = np.asarray(settings.embedder().embed_batch([words], settings.model), dtype=FLOAT32)[0]
    query = f"*=>[KNN {count} @{settings.option('embedding_field')} $vector AS distance]"
    options = ["PARAMS", "2", "vector", vector.tobytes(), "SORTBY", "distance", "RETURN", "1", "distance"]
    client: Any = settings.client(protocol=2)
    reply = client.execute_command("FT.SEARCH", name, query, *options, "LIMIT", "0", str(count), "DIALECT", "2")
    for key, fields in zip(reply[1::2], reply[2::2], strict=True):
        distance = float(fields[1])
        if as_json:
            click.echo(json.dumps({"redis_key": key.decode("utf-8", "replace"), "distance": distance}))
        else:
            click.echo(f"{distance:.4f}  {key.decode('utf-8', 'replace')}")
