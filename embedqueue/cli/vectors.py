"""The vector index over the embeddings, and a search through it. Needs Redis with its search module."""

from __future__ import annotations

import json
from typing import Any

import click
from redis.exceptions import ResponseError

from embedqueue.settings.checks import words_of_redis
from embedqueue.store.door import plain_near
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
    """Create it, with the dimensions of the model, unless an equal one is there."""
    source.look().create_index(name, prefix, algorithm=algorithm, distance=metric)
    click.echo(f"Index {name} over {prefix}*, {source.settings().width or 'known'} dimensions, {metric}.")


@command(index, "info", "embedqueue index info --json")
@index_name
@as_json
def info(source: Source, name: str, as_json: bool) -> None:
    """Tell what the index holds."""
    settings = source.settings()
    client: Any
    with plain_near(settings.client(), settings.option("namespace")) as client:
        try:
            reply = _plain(client.execute_command("FT.INFO", name))
        except ResponseError as error:
            raise click.ClickException(printable(words_of_redis(settings, error))) from None
    facts = dict(zip(reply[::2], reply[1::2], strict=False))
    found = {fact: facts.get(fact) for fact in FACTS}
    if as_json:
        click.echo(json.dumps(found))
        return
    for fact, value in found.items():
        click.echo(printable(f"{fact:<24} {value}"))


@command(cli, "search", "embedqueue search 'how to cancel an order' --k 3 --show text")
@click.argument("text")
@click.option("--k", "--count", "k", type=click.IntRange(1), default=10, show_default=True, help="How many at most.")
@click.option("--index", "--name", "name", default=DEFAULT_INDEX, show_default=True, help="Name of the index.")
@click.option("--filter", "where", metavar="QUERY", help="Which hashes may be found, such as '@lang:{en}'.")
@click.option("--show", metavar="FIELD", help="A field of the hashes to print with them.")
@as_json
def search(source: Source, text: str, k: int, name: str, where: str | None, show: str | None, as_json: bool) -> None:
    """Find the keys whose texts are nearest in meaning, with their scores: higher is nearer."""
    queue = source.queue(worker=False)  # one's own: it is stopped
    try:
        hits = queue.search(text, k, index=name, filter=where, return_fields=[show] if show else [])
    finally:
        queue.stop()  # the call stands in the history then
    for hit in hits:
        shown = _plain(hit.fields.get(show or "", ""))
        if as_json:
            more = {show: shown} if show else {}
            click.echo(json.dumps({"redis_key": hit.redis_key, "score": hit.score, **more}))
        else:
            click.echo(printable(f"{hit.score:.4f}  {hit.redis_key}" + (f"  {shown}" if show else "")))


def _plain(reply: Any) -> Any:
    """An answer with text for bytes; a field that is none is shown as well as it can be."""
    if isinstance(reply, list):
        return [_plain(part) for part in reply]
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
