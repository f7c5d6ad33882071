"""Embedders: what turns texts into vectors. Some speak to providers, some to libraries, one works offline.

Each is imported when it is asked for: what speaks HTTP takes longer to import than all the rest of embedqueue.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .protocol import Embedder, QueryEmbedder, RateSeen, TellsRates, TokenMeter

if TYPE_CHECKING:
    from .azure import AzureOpenAIEmbedder
    from .gemini import GeminiEmbedder
    from .langchain import LangChainEmbedder
    from .litellm import LiteLLMEmbedder
    from .local import LocalEmbedder
    from .openai import OpenAIEmbedder, OpenRouterEmbedder
    from .sentence_transformers import SentenceTransformerEmbedder
    from .vendors import CohereEmbedder, MistralEmbedder, VoyageEmbedder
else:
    #: The file of each.
    FILES = {
        "AzureOpenAIEmbedder": "azure",
        "CohereEmbedder": "vendors",
        "GeminiEmbedder": "gemini",
        "LangChainEmbedder": "langchain",
        "LiteLLMEmbedder": "litellm",
        "LocalEmbedder": "local",
        "MistralEmbedder": "vendors",
        "OpenAIEmbedder": "openai",
        "OpenRouterEmbedder": "openai",
        "SentenceTransformerEmbedder": "sentence_transformers",
        "VoyageEmbedder": "vendors",
    }

    def __getattr__(name):
        """An embedder; from then on it stands here."""
        if name not in FILES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(import_module(f".{FILES[name]}", __name__), name)
        return found


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
