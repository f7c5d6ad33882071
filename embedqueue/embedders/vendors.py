"""Vendors whose APIs nearly are OpenAI's: Voyage and Mistral. And Cohere's, which is another with the same parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from .batch_jobs import BatchJobs
from .dialects import COHERE, MISTRAL, VOYAGE, Dialect
from .hosted import DEFAULT_TIMEOUT, Address, parted
from .keys import Secret
from .mistral_jobs import MistralJobs
from .openai import EncodingFormat, OpenAIEmbedder
from .openai_jobs import OpenAIJobs, VoyageJobs, jobs_http
from .roles import DOCUMENT_TASK, QUERY_TASK, Role


class _VendorEmbedder(OpenAIEmbedder):
    """A vendor of models of its own, who always wants a key.

    Roles go along as the vendor knows them, unless ``document_role`` and ``query_role`` say otherwise: ``{}`` for none.
    """

    #: What the vendor is asked for where a queue is given no model.
    model: ClassVar[str]
    dialect: ClassVar[Dialect]
    max_call: ClassVar[tuple[int | None, int | None]]
    roles: ClassVar[Mapping[str, Role]] = {}
    jobs: ClassVar[type[OpenAIJobs] | None] = None

    def batch_jobs(self, model: str) -> BatchJobs | None:
        """The vendor's batch jobs; None where it has none."""
        address, mark, _ = self._url.partition("?")
        if self.jobs is None or self._given_batches is False or mark or not address.endswith("/embeddings"):
            return None
        return self.jobs(self, model, jobs_http(self), address.removesuffix("/embeddings"))

    @property
    def default_model(self) -> str | None:
        """What a queue asks for that is given no model."""
        return self.model

    def cuts_long_texts(self, model: str) -> bool:
        """No: it refuses them, or is asked to in every request."""
        return False

    def _spoken_at(self, url: str) -> Dialect:
        return self.dialect

    def _default_limits(self) -> tuple[int | None, int | None]:
        return self.max_call

    def _needs_key(self) -> bool:
        return True

    def _slug(self, model: str) -> str:
        prefix, slash, rest = model.partition("/")
        return rest if slash and prefix in ("voyage", "voyageai", "cohere", "mistral", "mistralai") else model

    def _role(self, task: str) -> Role:
        return self.roles.get(task, Role())

    def _document_role(self, model: str) -> Role:
        return self._role(DOCUMENT_TASK) if self._given_document_role is None else self._given_document_role

    def _query_role(self, model: str) -> Role:
        return self._role(QUERY_TASK) if self._given_query_role is None else self._given_query_role


class VoyageEmbedder(_VendorEmbedder):
    """Voyage's models, straight from Voyage; documents and queries go in their roles.

    Args:
        api_key: the key; None reads ``VOYAGE_API_KEY`` at the first call.
        base_url: Voyage's, or what speaks like it.
        dimensions: length of the vectors; of the models of the 4 series 256, 512, 1,024 or 2,048. None: as known.
        timeout: seconds that the server may keep silent, or a pair: seconds to connect, seconds of silence.
        options: the keyword options of :class:`OpenAIEmbedder`, but ``encoding_format``: vectors come as lists.
    """

    key_variables = ("VOYAGE_API_KEY",)
    provider = "voyageai"
    native_dimensions = 1024
    model_dimensions: ClassVar[Mapping[str, int]] = {
        **dict.fromkeys(("voyage-4-large", "voyage-4", "voyage-4-lite"), 1024),
        "voyage-3-lite": 512,
        "voyage-code-2": 1536,
    }
    model = "voyage-4"
    dialect = VOYAGE
    jobs = VoyageJobs
    max_call = (1000, 120_000)
    roles: ClassVar[Mapping[str, Role]] = {
        DOCUMENT_TASK: Role(fields={"input_type": "document"}),
        QUERY_TASK: Role(fields={"input_type": "query"}),
    }

    def __init__(
        self,
        api_key: Secret | None = None,
        base_url: str = "https://api.voyageai.com/v1",
        dimensions: int | None = None,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        super().__init__(api_key, base_url, dimensions, timeout, **options)


class MistralEmbedder(_VendorEmbedder):
    """Mistral's models, straight from Mistral. They know no roles.

    Args:
        api_key: the key; None reads ``MISTRAL_API_KEY`` at the first call.
        base_url: Mistral's, or what speaks like it.
        dimensions: length of the vectors; of ``mistral-embed`` always 1,024, of ``codestral-embed`` up to 3,072.
        timeout: seconds that the server may keep silent, or a pair: seconds to connect, seconds of silence.
        options: the keyword options of :class:`OpenAIEmbedder`. Vectors are asked for as lists.
    """

    key_variables = ("MISTRAL_API_KEY",)
    provider = "mistral_ai"
    native_dimensions = 1024
    model_dimensions: ClassVar[Mapping[str, int]] = {"mistral-embed": 1024}
    model = "mistral-embed"
    dialect = MISTRAL
    jobs = MistralJobs
    max_call = (512, 16_384)
    _automatic_encoding: EncodingFormat = "float"

    def __init__(
        self,
        api_key: Secret | None = None,
        base_url: str = "https://api.mistral.ai/v1",
        dimensions: int | None = None,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        super().__init__(api_key, base_url, dimensions, timeout, **options)


class CohereEmbedder(_VendorEmbedder):
    """Cohere's models, straight from Cohere (``/v2/embed``); documents and queries go in their roles.

    Args:
        api_key: the key; None reads ``COHERE_API_KEY``, then ``CO_API_KEY``, at the first call.
        base_url: Cohere's, or what speaks like it, with or without ``/v2``.
        dimensions: length of the vectors; of ``embed-v4.0`` 256, 512, 1,024 or 1,536.
        timeout: seconds that the server may keep silent, or a pair: seconds to connect, seconds of silence.
        options: the keyword options of :class:`OpenAIEmbedder`, but ``encoding_format``: vectors come as lists.
    """

    key_variables = ("COHERE_API_KEY", "CO_API_KEY")
    provider = "cohere"
    native_dimensions = 1536
    model_dimensions: ClassVar[Mapping[str, int]] = {
        "embed-v4.0": 1536,
        "embed-english-v3.0": 1024,
        "embed-multilingual-v3.0": 1024,
        "embed-english-light-v3.0": 384,
        "embed-multilingual-light-v3.0": 384,
    }
    model = "embed-v4.0"
    dialect = COHERE
    max_call = (96, None)
    roles: ClassVar[Mapping[str, Role]] = {
        DOCUMENT_TASK: Role(fields={"input_type": "search_document"}),
        QUERY_TASK: Role(fields={"input_type": "search_query"}),
    }

    def __init__(
        self,
        api_key: Secret | None = None,
        base_url: str = "https://api.cohere.com/v2",
        dimensions: int | None = None,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        super().__init__(api_key, base_url, dimensions, timeout, **options)

    def _place(self, base_url: str) -> Address:
        address, query, has_path = parted(base_url)
        guessed = "" if has_path else "/v2"
        return Address(address + ("" if address.endswith("/embed") else f"{guessed}/embed") + query, guessed)
