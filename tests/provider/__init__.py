"""A strict provider on loopback, for tests: OpenAI's format and Gemini's, over real HTTP, in this process or another.

In a test::

    with Provider() as provider:
        embedder = OpenAIEmbedder("test-key", provider.openai_url)
        provider.script(fail(503), None)            # the next call fails, the one after is answered
        provider.rule = poison("bad", 400)          # every call with such a text fails
        provider.hold()                             # calls arrive and stay
        assert provider.wait_for_calls(2)
        provider.release()
        assert provider.sent["a text"] == 1

As a process: ``python -m tests.provider --port 0`` prints its URL. ``POST /control`` takes JSON with any of ``script``
(a list of answers), ``rule`` (``{"contains": "bad", "answer": {...}}`` or null), ``latency``, ``hold``, ``release``,
``reset``, and every plain setting of :class:`Settings`; ``GET /control`` gives :meth:`Provider.state`.
"""

from tests.provider.answers import Answer, Call, drop, fail, hang, poison, raw, trickle, truncate
from tests.provider.formats import vector_of
from tests.provider.provider import Provider

__all__ = ["Answer", "Call", "Provider", "drop", "fail", "hang", "poison", "raw", "trickle", "truncate", "vector_of"]
