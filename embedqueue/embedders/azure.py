"""OpenAI's models at Azure: another address, another header, and a deployment's name beside the model's."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote

from embedqueue.values.errors import OptionValueError

from .dialects import OPENAI, Dialect
from .hosted import DEFAULT_TIMEOUT, Address, parted
from .keys import Secret
from .openai import OpenAIEmbedder

#: Where the resource stands and which API is spoken there, unless told otherwise; Azure's own SDK reads the same.
ENDPOINT_VARIABLE, VERSION_VARIABLE = "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION"
_DEFAULT_VERSION = "2024-10-21"


class AzureOpenAIEmbedder(OpenAIEmbedder):
    """OpenAI's models in a resource of one's own at Azure.

    Args:
        api_key: the key of the resource; None reads ``AZURE_OPENAI_API_KEY`` at the first call. With an
            ``Authorization`` in ``headers`` (a token of Entra ID) none is needed.
        base_url: of the resource, such as ``https://NAME.openai.azure.com``; None reads ``AZURE_OPENAI_ENDPOINT`` now.
            The whole address of a deployment, as the portal shows it, will do. One that ends in ``/openai/v1`` is
            spoken to without an API version, and finds the deployment in the request.
        dimensions: length of the vectors; None: that of the model, known or learned from its first answer.
        timeout: seconds that the server may keep silent, or a pair: seconds to connect, seconds of silence.
        deployment: its name; None: as the model is called.
        api_version: None reads ``OPENAI_API_VERSION``, else it is "2024-10-21".
        options: the keyword options of :class:`OpenAIEmbedder`.

    Raises:
        ValueError: no address is given.
    """

    key_variables = ("AZURE_OPENAI_API_KEY",)
    _has_batches = False  # those of a resource are another API
    provider = "azure.ai.openai"

    def __init__(
        self,
        api_key: Secret | None = None,
        base_url: str | None = None,
        dimensions: int | None = None,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        *,
        deployment: str | None = None,
        api_version: str | None = None,
        **options: Any,
    ) -> None:
        self._deployment = deployment
        self._version = api_version or os.environ.get(VERSION_VARIABLE) or _DEFAULT_VERSION
        base_url = base_url or os.environ.get(ENDPOINT_VARIABLE)
        if not base_url:
            raise OptionValueError("base_url", f"must name the resource: give it, or set {ENDPOINT_VARIABLE}")
        super().__init__(api_key, base_url, dimensions, timeout, **options)

    @property
    def default_model(self) -> str | None:
        """What a queue calls its model that is given none."""
        return "text-embedding-3-large"

    def cuts_long_texts(self, model: str) -> bool:
        """No: as OpenAI, it refuses them."""
        return False

    @property
    def variant(self) -> str:
        """Whose server, which deployment, and what more it is told."""
        return "\0".join([super().variant, *([self._deployment] if self._deployment else [])])

    def _place(self, base_url: str) -> Address:
        """The address of one deployment or of the newer API; or what stands before a deployment's name."""
        address, query, _ = parted(base_url)
        address = address.removesuffix("/embeddings")
        if address.endswith("/openai/v1"):
            return Address(f"{address}/embeddings{query}", "")
        query = (
            query if "api-version=" in query else f"{query}{'&' if query else '?'}api-version={quote(self._version)}"
        )
        if "/openai/deployments/" in address:
            return Address(f"{address}/embeddings{query}", "")
        return Address(f"{address.removesuffix('/openai')}/openai/deployments{query}", "")

    def _spoken_at(self, url: str) -> Dialect:
        return OPENAI

    def _address(self, model: str) -> str:
        address, mark, query = self._url.partition("?")
        if address.endswith("/embeddings"):
            return self._url
        return f"{address}/{quote(self._slug(model), safe='')}/embeddings{mark}{query}"

    def _slug(self, model: str) -> str:
        return self._deployment or model.removeprefix("openai/")

    def _auth(self, key: str) -> dict[str, str]:
        return {"api-key": key}

    def _needs_key(self) -> bool:
        return not any(name.lower() in ("authorization", "api-key") for name in self._extra_headers)

    def _default_limits(self) -> tuple[int | None, int | None]:
        return 2048, 300_000
