"""Jobs of RQ and tasks of Celery: their processes end by ``os._exit``, and no text pays for that."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from embedqueue import EmbeddingBatchQueue
from embedqueue.testing import FakeEmbedder
from tests import nursery
from tests.parts import PATIENCE_SECONDS, PROGRAM_SECONDS, eventually, in_flight
from tests.web.servers import OURS

rq = pytest.importorskip("rq", reason="rq is not installed")
celery = pytest.importorskip("celery", reason="celery is not installed")

JOBS = """
from flask import Flask
from embedqueue.contrib.flask import EmbedQueue
application = Flask("jobs")
embeddings = EmbedQueue(application)

def enqueue(place):
    with application.app_context():
        embeddings.enqueue(f"doc:{place}", f"text {place}")

def wait(place):
    with application.app_context():
        assert embeddings.enqueue(f"doc:{place}", f"text {place}").result(45)

def started(place):
    with application.app_context():
        embeddings.start()
        embeddings.enqueue(f"doc:{place}", f"text {place}")
"""

TASKS = """
import os
import redis
from celery import Celery
from embedqueue import EmbeddingBatchQueue, OpenAIEmbedder
tasks = Celery("tasks", broker=os.environ["BROKER"])
tasks.conf.worker_max_tasks_per_child = 1
embedder = OpenAIEmbedder("test-key", os.environ["EMBEDQUEUE_BASE_URL"], 16)
client = redis.Redis.from_url(os.environ["EMBEDQUEUE_REDIS_URL"])
queue = EmbeddingBatchQueue(embedder, client, "m", max_batch_size=1).start()

@tasks.task
def enqueue(place):
    queue.enqueue(f"doc:{place}", f"text {place}")
"""


@pytest.fixture
def environment(env, tmp_path):
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "tasks.py").write_text(TASKS)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    return {**os.environ, **env, "PYTHONPATH": path, "EMBEDQUEUE_MAX_BATCH_SIZE": "3", "EMBEDQUEUE_FLUSH_INTERVAL": "0"}


def work_off(environment, client, name, places, *, afresh=False) -> None:
    """RQ's own worker does these jobs, each in a child of its own."""
    jobs = rq.Queue(connection=client)
    ended = [jobs.enqueue(f"jobs.{name}", place) for place in places]
    command = ["rq.cli", "worker", "--burst", "--url", environment["EMBEDQUEUE_REDIS_URL"]]
    if afresh:
        program = [sys.executable, "-m", *command]
        done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=PROGRAM_SECONDS)
    else:  # each of its children finds imported what its job imports
        done = nursery.run(*command, env=environment, timeout=PROGRAM_SECONDS, imported=["rq.cli", *OURS])
    assert done.returncode == 0, done.stderr
    assert {job.get_status(refresh=True).value for job in ended} == {"finished"}, done.stderr


@pytest.mark.parametrize("name", ["enqueue", "started"])
def test_a_job_takes_nothing_along_into_its_end(environment, redis_client, provider, name):
    """However many wait, and although the extension, or the job, has started the queue: others embed them."""
    work_off(environment, redis_client, name, range(5))
    assert (redis_client.zcard("embed_queue:pending"), in_flight(redis_client)) == (5, 0)
    assert provider.sent == {}
    with EmbeddingBatchQueue(FakeEmbedder(16), redis_client, model=environment.get("EMBEDQUEUE_MODEL", "m")) as queue:
        queue.flush(PATIENCE_SECONDS)
        assert queue.stats().embedded == 5


def test_a_job_gets_what_it_waits_for(environment, redis_client, provider):
    work_off(environment, redis_client, "wait", [1, 2], afresh=True)
    assert provider.sent == {"text 1": 1, "text 2": 1}


def test_a_child_of_celery_gives_back_what_it_has(environment, redis_client, redis_server, provider):
    """Each ends after one task. What it has claimed by then is written, or waits again: no lease runs out."""
    broker = f"redis+socket://{redis_server.socket_path}?virtual_host=1"
    environment = {**environment, "BROKER": broker, "C_FORCE_ROOT": "1"}
    with celery.Celery("tasks", broker=broker) as tasks:
        for place in range(2):
            tasks.send_task("tasks.enqueue", [place])
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "1", "-P", "prefork", "-l", "WARNING"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pool:
        try:
            eventually(lambda: all(redis_client.exists(f"doc:{place}") for place in range(2)), "embedded")
            assert provider.sent == {f"text {place}": 1 for place in range(2)}
            assert (redis_client.hlen("embed_queue:claims"), in_flight(redis_client)) == (0, 0)
        finally:
            pool.terminate()
            try:
                print(pool.communicate(timeout=PROGRAM_SECONDS)[0])
            except subprocess.TimeoutExpired:
                pool.kill()
