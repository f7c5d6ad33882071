"""embedqueue for Django.

::

    INSTALLED_APPS = [..., "embedqueue.contrib.django"]
    EMBEDQUEUE = {"REDIS_URL": "redis://localhost:6379/0", "PROVIDER": "gemini"}

    from embedqueue.contrib.django import enqueue_on_commit, queue

    enqueue_on_commit(f"note:{note.pk}", note.text)      # a rolled-back transaction enqueues nothing
    vector = queue.enqueue("note:7", "hello").result(timeout=30)

What ``EMBEDQUEUE`` does not hold, the environment's ``EMBEDQUEUE_*`` variables may say. More queues stand in
``EMBEDQUEUE["QUEUES"]`` and are used as ``queues["images"]``.
"""

from .access import enqueue_many_on_commit, enqueue_on_commit, queue, queues
from .sink import PgVectorSink

__all__ = ["queue", "queues", "enqueue_on_commit", "enqueue_many_on_commit", "PgVectorSink"]
