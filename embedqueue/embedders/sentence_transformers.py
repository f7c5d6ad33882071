"""A model of Sentence Transformers in this very process."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

from .library import LibraryEmbedder, imported

#: What Sentence Transformers' own page begins with: small, and quick on a CPU.
_DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class SentenceTransformerEmbedder(LibraryEmbedder):
    """A model that runs here, on CPU or GPU; needs ``embedqueue[sentence-transformers]``.

    It is loaded at the first call, in the process that works: not in those that only enqueue, and not before a fork.
    One call runs at a time. Documents and queries get the model's own prompts, where it has some.

    Args:
        model: its name on the Hugging Face hub, or a folder; or a ``SentenceTransformer`` that is loaded already.
        dimensions: length of the vectors, if they are to be cut to it (of models that are made for that); None: all,
            learned when the model is loaded.
        max_text_tokens: what the model reads of a text. Longer ones are **cut without a word** by the library, unless
            the option ``on_long`` of the queue knows of the limit: by this, or by what is known of the model.
        options: more arguments for ``SentenceTransformer(...)``, such as ``device="cuda"``.
    """

    provider = "sentence_transformers"

    def __init__(
        self,
        model: Any = _DEFAULT_MODEL,
        dimensions: int | None = None,
        *,
        max_text_tokens: int | None = None,
        **options: Any,
    ) -> None:
        self._loaded = None if isinstance(model, str) else model
        if self._loaded is not None and max_text_tokens is None:
            known = getattr(model, "max_seq_length", None)
            max_text_tokens = known if isinstance(known, int) and known > 0 else None
        name = model if isinstance(model, str) else _name_of(model)
        super().__init__(name, dimensions, max_text_tokens)
        self._options = options
        self._new_lock()
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forked(reference()))

    def _new_lock(self) -> None:
        self._lock = threading.Lock()  # guards loading and encoding; another thread may have held it at a fork

    def _documents(self, texts: list[str]) -> Any:
        return self._encoded("encode_document", "document", texts)

    def _queries(self, texts: list[str]) -> Any:
        return self._encoded("encode_query", "query", texts)

    def _encoded(self, method: str, prompt: str, texts: list[str]) -> Any:
        with self._lock:
            model = self._load()
            told: dict[str, Any] = {"convert_to_numpy": True, "show_progress_bar": False}
            if self._given_dimensions is not None:
                told["truncate_dim"] = self._given_dimensions
            encode = getattr(model, method, None)  # from the fifth version on
            if encode is None:
                encode, prompts = model.encode, getattr(model, "prompts", None) or {}
                if told.pop("truncate_dim", None) is not None:
                    model.truncate_dim = self._given_dimensions
                told |= {"prompt_name": prompt} if prompts.get(prompt) else {}
            return encode(texts, **told)

    def _load(self) -> Any:
        if self._loaded is None:
            library = imported("sentence_transformers", type(self).__name__, "sentence-transformers")
            self._loaded = library.SentenceTransformer(self.default_model, **self._options)
        return self._loaded


def _forked(embedder: SentenceTransformerEmbedder | None) -> None:
    if embedder is not None:
        embedder._new_lock()


def _name_of(model: Any) -> str:
    """What the model was loaded as, as its card keeps it; else the name of its class, not that of another model."""
    card = getattr(model, "model_card_data", None)
    names = (getattr(card, name, None) for name in ("base_model", "model_id"))
    return next((name for name in names if isinstance(name, str) and name), type(model).__name__)
