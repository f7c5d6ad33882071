"""What the tests' settings name by a path."""

from __future__ import annotations

from embedqueue import Observer
from embedqueue.embedders import LangChainEmbedder
from embedqueue.testing import FakeEmbedder

made: list[object] = []


class Mine(FakeEmbedder):
    """An embedder that is called without arguments."""

    def __init__(self) -> None:
        super().__init__(4)
        made.append(self)


class Holder:
    Inner = Mine


def build() -> Mine:
    return Mine()


def learns() -> LangChainEmbedder:
    """Its length is known after the first call."""

    class Embeddings:
        model = "learning"

        def embed_documents(self, texts):
            return [[1.0, 2.0] for _ in texts]

        def embed_query(self, text):
            return [2.0, 1.0]

    return LangChainEmbedder(Embeddings())


def fails() -> Mine:
    raise RuntimeError("no weights here")


class Counts(Observer):
    """An observer."""


thing = Mine()
counts = Counts()
told: list[object] = []


def on_batch(report: object) -> None:
    told.append(report)


class Table:
    """A sink that takes everything."""

    def write(self, rows):
        pass


table = Table()
