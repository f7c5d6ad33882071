"""What the tests of web servers share."""

from __future__ import annotations

import pytest


@pytest.fixture
def env(redis_client, redis_server, provider) -> dict[str, str]:
    """Variables that set a queue up on a real Redis and a real provider."""
    return {
        "EMBEDQUEUE_REDIS_URL": redis_server.url,
        "EMBEDQUEUE_PROVIDER": "openai",
        "EMBEDQUEUE_BASE_URL": provider.openai_url,
        "EMBEDQUEUE_API_KEY": "test-key",
        "EMBEDQUEUE_DIMENSIONS": "16",
    }
