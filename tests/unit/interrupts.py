"""A program that Ctrl-C hits at random instructions while it enqueues: a process of its own, for others' sake.

``python -m tests.unit.interrupts OTHERS`` with so many other threads that enqueue. Exits with 0 if nothing broke.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
from _thread import interrupt_main

from embedqueue.futures.intake import Intake
from embedqueue.futures.waiters import Waiters
from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.item import encode_member

PATIENCE_SECONDS = 10.0
INTERRUPTS = 200


class BusyStore:
    """A store that takes no time."""

    def enqueue(self, groups, **options):
        return 1, [True] * len(groups)


def pair(name):
    return name, encode_member(name, "text")


def main(others: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    sys.setswitchinterval(1e-4)  # threads take turns often
    sys.unraisablehook = lambda what: None  # what is raised in a weak reference's callback
    intake = Intake(
        BusyStore(),
        Waiters(lambda: None),
        max_pending=None,
        tell_at=50,
        tell_first=False,
        zero=lambda: bytes(8),
        enqueued=lambda waiting, count: None,
    )
    ended, errors = threading.Event(), []
    ready = [0]  # counts; no Event, for Ctrl-C inside of one leaves its lock locked

    def crowd(name):
        while not ended.is_set():
            try:
                intake.submit([pair(name)])
            except EmbedQueueError:  # it followed whom Ctrl-C had hit
                pass
            except BaseException as error:
                errors.append(error)

    def submit():  # a function, for in 3.13 what a loop's jump raises escapes the try around it
        ready[0] += 1
        while not ended.is_set():
            intake.submit([pair("main")])

    def interrupt():
        nap, chance = threading.Event(), random.Random(7)
        while not ready[0]:
            nap.wait(0.0005)
        for _ in range(INTERRUPTS):
            nap.wait(chance.random() * 0.001)
            seen = ready[0]
            while ready[0] == seen:
                interrupt_main()
                for _ in range(200):  # Python drops what is raised inside of a weak reference's callback: then again
                    if ready[0] != seen or nap.wait(0.0005):
                        break
        ended.set()

    threads = [threading.Thread(target=crowd, args=(f"k{i}",), daemon=True) for i in range(others)]
    threads.append(threading.Thread(target=interrupt, daemon=True))
    for thread in threads:
        thread.start()
    while not ended.is_set():
        try:
            submit()
        except KeyboardInterrupt:
            pass
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert errors == [], errors
    assert (intake._line, intake._leader) == ([], None)
    assert len(intake.submit([pair("free")])) == 1


if __name__ == "__main__":
    main(int(sys.argv[1]))
