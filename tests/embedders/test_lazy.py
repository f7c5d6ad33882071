"""What speaks HTTP is imported only by those who use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import embedqueue
from embedqueue import embedders
from tests.parts import PATIENCE_SECONDS


def test_a_queue_needs_no_requests():
    """Its import takes longer than all the rest of embedqueue."""
    used = "embedqueue.OpenAIEmbedder; sys.modules['requests']"
    code = f"import sys, embedqueue; assert 'requests' not in sys.modules; {used}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("module", [embedqueue, embedders])
def test_every_public_name_is_there(module):
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nobody'"):
        module.Nobody
