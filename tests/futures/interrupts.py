"""A program that Ctrl-C hits at random instructions: a process of its own, for others' sake.

``python -m tests.futures.interrupts OTHERS`` while it enqueues, with so many other threads that do so; ``users``
instead of a number: while it tells the worker, waits for futures and ends them. ``enqueue`` or ``stop``: while it does
so, a handler comes that does this, at each instruction once. Exits with 0 if nothing broke.
"""

from __future__ import annotations

import dis
import itertools
import queue
import random
import signal
import sys
import threading
from _thread import interrupt_main
from collections import Counter, defaultdict
from functools import cache
from types import SimpleNamespace

from embedqueue.futures.callbacks import Callbacks
from embedqueue.futures.intake import Intake
from embedqueue.futures.notices import Listener
from embedqueue.futures.progress import Progress
from embedqueue.futures.replication import Replication
from embedqueue.futures.waiters import Waiters
from embedqueue.observers.history import Recorder
from embedqueue.observers.observers import Observers
from embedqueue.store.records import Claim, Status, Taken, Terms
from embedqueue.values.errors import EmbedQueueError, QueueStopped
from embedqueue.values.item import encode_member
from embedqueue.values.locks import Event
from embedqueue.values.log import QueueLog
from embedqueue.values.observer import SavingReport
from embedqueue.values.options import Options
from embedqueue.work.agenda import Agenda
from embedqueue.work.worker import Worker

PATIENCE_SECONDS = 45.0
INTERRUPTS = 200


class BusyStore:
    """A store that takes no time."""

    def enqueue(self, groups, **options):
        return Taken(1, [True] * len(groups), 1)


TERMS = Terms("embedding", None, "m", 4, "m/4/-", "create")


def pair(name, text="text"):
    return name, encode_member(name, text)


def interrupt_often(step, check):
    """Let Ctrl-C hit ``step``, which is done over and over, again and again; ``check`` is called after each hit."""
    ended = threading.Event()
    ready = [0]  # counts; no Event, for Ctrl-C inside of one leaves its lock locked

    def steps():  # a function, for in 3.13 what a loop's jump raises escapes the try around it
        ready[0] += 1
        while not ended.is_set():
            step()

    def interrupt():
        nap, chance = threading.Event(), random.Random(7)
        while not ready[0]:
            nap.wait(0.0005)
        for _ in range(INTERRUPTS):
            nap.wait(chance.random() * 0.001)
            seen = ready[0]
            while ready[0] == seen:
                interrupt_main()
                for _ in range(1000):  # Python drops what is raised inside of a weak reference's callback: then again
                    if ready[0] != seen or nap.wait(0.0005):
                        break
        ended.set()

    interrupter = threading.Thread(target=interrupt, daemon=True)
    interrupter.start()
    while not ended.is_set():
        try:
            steps()
        except KeyboardInterrupt:
            check()
    interrupter.join(PATIENCE_SECONDS)
    assert not interrupter.is_alive()


def interrupt_intake(others):
    """Enqueue beside so many other threads: nobody else is harmed, and the line stays whole."""
    intake = Intake(
        BusyStore(),
        BusyStore,
        Waiters(lambda: None),
        lambda: bytes(8),
        SimpleNamespace(works=True, enqueuing=lambda: None, enqueued=lambda waiting, within=None: None),
        Observers(),
        Options(),
        lambda redis_keys: None,
        lambda: False,
        lambda: TERMS,
        Replication(Options(), QueueLog()),
    )
    ended, errors = threading.Event(), []

    def crowd(name):
        while not ended.is_set():
            try:
                intake.submit([pair(name)])
            except EmbedQueueError:  # it followed whom Ctrl-C had hit
                pass
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=crowd, args=(f"k{i}",), daemon=True) for i in range(others)]
    for thread in threads:
        thread.start()
    interrupt_often(lambda: intake.submit([pair("main")]), lambda: None)
    ended.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert errors == [], errors
    assert (intake._followers, intake._leader, intake._callers) == ([], None, {})
    assert len(intake.submit([pair("free")])) == 1


class IdleDispatch:
    """Nothing is in flight, and there is always room; what begins, ``begun`` is told."""

    def __init__(self):
        self.pool = SimpleNamespace(unfinished=0, size=1, in_flight=0, room=lambda: 1)
        self.held = 0
        self.call_limit = self.probe_limit = 1
        self.begun = queue.SimpleQueue()

    def begin(self, claim):
        self.begun.put(claim)


def interrupt_users():
    """Do to the worker and to futures what users' threads do: all locks are free again, and the worker works on."""
    dispatch, progress, callbacks, futures = IdleDispatch(), Progress(), Callbacks("callbacks"), []
    waiters = Waiters(lambda: None, callbacks)
    claim = Claim("ok", "me:", [], 0, None, None, None, "no")
    status = Status(0.0, 0, 0, 0, None, None, None, "", False, 0, "")
    store = SimpleNamespace(claim=lambda *_, **__: claim, status=lambda: status, buckets=None)
    outcomes = SimpleNamespace(find_out=lambda *_, **__: None)
    agenda, options = Agenda(Options()), Options()
    worker = Worker(
        store,
        agenda,
        dispatch,
        waiters,
        outcomes,
        options,
        lambda: TERMS,
        SimpleNamespace(beat=lambda doing: None),
        name="me:",
        start_queue=lambda: None,
        log=QueueLog(),
        observers=Observers(),
    )
    stopping = Event()
    recorder = Recorder(lambda figures: None, "model", "history")
    events = SimpleNamespace(since=lambda _: (b"0-0", []), listen=lambda after, _: (after, []))
    listener = Listener(  # its thread ends at once: nobody waits
        SimpleNamespace(events=events),
        Waiters(lambda: None),
        outcomes,
        SimpleNamespace(works=False, refresh=lambda: None),
        progress,
        name="me:",
        namespace="",
        log=QueueLog(),
        observers=Observers(),
    )
    worker.start()

    def step():
        agenda.enqueued(1)
        worker.demanded(["main"])
        agenda.flush()
        agenda.refresh()
        progress.count()
        stopping.set()
        recorder.accepted(1)
        recorder.saved(SavingReport(texts=1, tokens=1, by="cache"))
        listener.ensure()
        waiters.commit(waiters.register([pair("dropped")])[1])
        futures[:], entries = waiters.register([pair("main", "older"), pair("main")])
        waiters.commit(entries)
        waiters.mark_wanted("main")
        futures[0].add_done_callback(lambda future: None)
        waiters.futures()
        waiters.snapshot()
        waiters.written(*pair("main"), bytes(8))
        futures[0].result(0)

    def check():
        conditions = (agenda._condition, progress._changed, stopping._cond, *(future._condition for future in futures))
        locks = [
            waiters._lock,
            callbacks._lock,
            agenda._starting,
            recorder._lock,
            listener._lock,
            *(condition._lock for condition in conditions),
        ]
        free = []

        def look():  # in another thread, for who holds an RLock can always take it again
            for lock in locks:
                if lock.acquire(timeout=20):
                    lock.release()
                    free.append(lock)

        other = threading.Thread(target=look)
        other.start()
        other.join()
        assert free == locks, f"left locked: {[at for at, lock in enumerate(locks) if lock not in free]}"

    interrupt_often(step, check)
    while not dispatch.begun.empty():
        dispatch.begun.get()
    agenda.flush()
    assert dispatch.begun.get(timeout=PATIENCE_SECONDS) is claim


#: After these instructions, Python neither looks for signals nor collects garbage.
SILENT = (
    "LOAD_",
    "STORE_",
    "DELETE_",
    "POP_",
    "COMPARE_",
    "CONTAINS_",
    "IS_",
    "BINARY_SUBSCR",
    "COPY",
    "SWAP",
    "NOP",
)


@cache
def silent_instructions(code):
    return {step.offset: step.opname.startswith(SILENT) for step in dis.get_instructions(code)}


class Handled:
    """The parts of a queue that users' threads enter, and a handler that comes once among their instructions."""

    def __init__(self, what):
        self.waiters, self.agenda = Waiters(lambda: None), Agenda(Options())
        self.recorder = Recorder(lambda figures: None, "model", "history")
        self.recorder.stop()  # it needs no thread here
        parts = (self.waiters, self.agenda, self.recorder)
        self.store = BusyStore()
        self.intake = Intake(
            self.store,
            BusyStore,
            self.waiters,
            lambda: bytes(8),
            self.agenda,
            Observers([self.recorder]),
            Options(),
            lambda redis_keys: None,
            lambda: any(part.entered for part in parts),
            lambda: TERMS,
            Replication(Options(), QueueLog()),
        )
        self.handle = {"enqueue": self.enqueue, "stop": self.stop}[what]
        self.futures = []
        self.called = threading.Event()

    def enqueue(self):
        pairs = [pair("new"), pair("a", "of a handler"), pair("b", "newer"), ("blank", b"")]
        new, *others = self.intake.submit(pairs)
        new.add_done_callback(lambda future: self.called.set())  # and nobody holds it
        self.futures += others
        self.agenda.flush()

    def stop(self):
        self.enqueue()
        self.agenda.quit()
        self.waiters.cancel_all()

    def use(self):
        """What users' threads, and those that end futures, do one after the other."""
        waiters, submit = self.waiters, self.intake.submit
        self.futures += submit([pair("a", "older"), pair("b", "older"), pair("blank")])
        submit([pair("dropped"), pair("b", "dropped")])
        self.futures += submit([pair("a"), pair("b", "newer"), pair("a"), ("blank", b""), pair("c")])
        waiters.mark_wanted("a")
        waiters.written(*pair("a"), bytes(8))
        waiters.fail(waiters.snapshot(["b"]), EmbedQueueError("failed"))
        waiters.forget(waiters.register([pair("c", "forgotten")])[1])
        self.agenda.demanded(["c"])
        self.agenda.refresh()
        len(waiters), waiters.any_wanted(), waiters.futures()

    def use_and_handle_at(self, at):
        """Use it, and be interrupted at the instruction ``at`` of those at which that may be; tells whether it was."""
        left, tracers = at, {}
        seen = defaultdict(Counter)  # by the identity of code: its hash takes longer than all else here

        def trace(frame, event, arg):
            code = frame.f_code
            if "embedqueue" not in code.co_filename or "tests" in code.co_filename:
                return None
            if frame not in tracers:  # a generator comes more than once
                frame.f_trace_opcodes = True
                tracers[frame] = steps(silent_instructions(code), seen[id(code)])
            return tracers[frame]

        def steps(silent, times):
            after_silent = True

            def step(frame, event, arg):
                nonlocal left, after_silent
                if event == "opcode":
                    offset = frame.f_lasti
                    may_come, after_silent = not after_silent, silent[offset]
                    times[offset] += 1
                    if may_come and times[offset] <= 2:  # of a loop, two rounds
                        left -= 1
                        if left == 0:
                            sys.settrace(None)
                            self.handle()
                return step

            return step

        sys.settrace(trace)
        try:
            self.use()
        except QueueStopped:
            pass
        finally:
            sys.settrace(None)
        return left <= 0


def handle_everywhere(what):
    """A handler enqueues, or stops, at any instruction: nobody hangs, every future ends, nothing is left behind."""
    for at in itertools.count(1):
        parts = Handled(what)
        handled = parts.use_and_handle_at(at)
        assert (parts.intake._followers, parts.intake._leader, parts.intake._callers) == ([], None, {}), at
        assert not parts.waiters.entered and not parts.agenda.entered, at
        if not handled:
            return
        if what == "enqueue":
            parts.waiters.written(*pair("new"), bytes(8))
            assert parts.called.is_set(), at
            parts.waiters.cancel_all()
        assert parts.called.is_set(), at
        assert all(future.done() for future in parts.futures), at


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    sys.setswitchinterval(1e-4)  # threads take turns often
    sys.unraisablehook = lambda what: None  # what is raised in a weak reference's callback
    if sys.argv[1] in ("enqueue", "stop"):
        handle_everywhere(sys.argv[1])
    else:
        interrupt_users() if sys.argv[1] == "users" else interrupt_intake(int(sys.argv[1]))
