"""The end of a process, for the kinds of children that run no functions of ``atexit``."""

from __future__ import annotations

import sys
import types

from embedqueue import lifetime
from embedqueue.engine import is_work_horse, stop_with_child


def test_a_job_of_rq_is_known_by_whom_it_is_done(monkeypatch):
    """Its process ends with ``os._exit`` when the job is done."""

    def main_work_horse():
        return (lambda: is_work_horse())()

    monkeypatch.delitem(sys.modules, "rq", raising=False)  # another test may have imported it
    assert not main_work_horse(), "without RQ, a function may be called so"
    monkeypatch.setitem(sys.modules, "rq", types.ModuleType("rq"))
    assert main_work_horse()
    assert not is_work_horse()


def test_celerys_children_stop_their_queues_when_it_says_that_they_end(monkeypatch):
    listeners, stopped = [], []
    signals = types.ModuleType("celery.signals")
    signals.worker_process_shutdown = types.SimpleNamespace(connect=lambda heard, weak: listeners.append((heard, weak)))
    monkeypatch.setitem(sys.modules, "celery.signals", signals)
    stop_with_child(lambda: stopped.append(True))
    [(heard, weak)] = listeners
    assert not weak, "nobody else holds it"
    heard(sender="worker", pid=7)
    assert stopped == [True]


class Told:
    """What is told at the end of the process."""

    def __init__(self):
        self.times = 0

    def forked(self):
        pass

    def stop(self):
        self.times += 1


def test_a_queue_that_has_gone_keeps_no_other_from_its_end(monkeypatch):
    monkeypatch.setattr(lifetime, "_QUEUES", {})
    gone, queue = Told(), Told()
    lifetime.remember(queue, gone.forked, gone.stop)
    lifetime.remember(gone, queue.forked, queue.stop)
    queues = dict(lifetime._QUEUES)
    del gone
    lifetime._QUEUES.update(queues)  # its reference is not taken out yet
    lifetime._stop_all()
    assert queue.times == 1
