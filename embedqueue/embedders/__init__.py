"""Embedders: what turns texts into vectors. Three speak to providers, one works offline."""

from .gemini import GeminiEmbedder
from .local import LocalEmbedder
from .openai import OpenAIEmbedder, OpenRouterEmbedder
from .protocol import Embedder, QueryEmbedder, RateSeen, TellsRates, TokenMeter

__all__ = [
    "Embedder",
    "GeminiEmbedder",
    "LocalEmbedder",
    "OpenAIEmbedder",
    "OpenRouterEmbedder",
    "QueryEmbedder",
    "RateSeen",
    "TellsRates",
    "TokenMeter",
]
