"""Embedders: what turns texts into vectors. Some speak to providers, some to libraries, one works offline."""

from .azure import AzureOpenAIEmbedder
from .gemini import GeminiEmbedder
from .local import LocalEmbedder
from .openai import OpenAIEmbedder, OpenRouterEmbedder
from .protocol import Embedder, QueryEmbedder
from .vendors import CohereEmbedder, MistralEmbedder, VoyageEmbedder

__all__ = [
    "AzureOpenAIEmbedder",
    "CohereEmbedder",
    "Embedder",
    "GeminiEmbedder",
    "LocalEmbedder",
    "MistralEmbedder",
    "OpenAIEmbedder",
    "OpenRouterEmbedder",
    "QueryEmbedder",
    "VoyageEmbedder",
]
