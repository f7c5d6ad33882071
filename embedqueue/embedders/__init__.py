"""Embedders: what turns texts into vectors. Some speak to providers, some to libraries, one works offline."""

from .azure import AzureOpenAIEmbedder
from .gemini import GeminiEmbedder
from .langchain import LangChainEmbedder
from .litellm import LiteLLMEmbedder
from .local import LocalEmbedder
from .openai import OpenAIEmbedder, OpenRouterEmbedder
from .protocol import Embedder, QueryEmbedder, RateSeen, TellsRates, TokenMeter
from .sentence_transformers import SentenceTransformerEmbedder
from .vendors import CohereEmbedder, MistralEmbedder, VoyageEmbedder

__all__ = [
    "AzureOpenAIEmbedder",
    "CohereEmbedder",
    "Embedder",
    "GeminiEmbedder",
    "LangChainEmbedder",
    "LiteLLMEmbedder",
    "LocalEmbedder",
    "MistralEmbedder",
    "OpenAIEmbedder",
    "OpenRouterEmbedder",
    "QueryEmbedder",
    "RateSeen",
    "SentenceTransformerEmbedder",
    "TellsRates",
    "TokenMeter",
    "VoyageEmbedder",
]
