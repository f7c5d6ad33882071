"""Embedders: what turns texts into vectors. Three speak to providers, one works offline."""

from embedqueue.embedders.gemini import GeminiEmbedder
from embedqueue.embedders.local import LocalEmbedder
from embedqueue.embedders.openai import OpenAIEmbedder, OpenRouterEmbedder
from embedqueue.embedders.protocol import Embedder

__all__ = [
    "Embedder",
    "GeminiEmbedder",
    "LocalEmbedder",
    "OpenAIEmbedder",
    "OpenRouterEmbedder",
]
