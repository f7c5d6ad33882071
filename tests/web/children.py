"""Run as a program: a queue, three children that use it, and a good end.

``python -m tests.web.children fork|spawn [leave]``: with ``leave`` children end while their call is in flight.
"""

from __future__ import annotations

import multiprocessing
import sys
import time

from embedqueue import EmbeddingBatchQueue
from embedqueue.settings.settings import read_environment

queue: EmbeddingBatchQueue | None = None


def child(number: int, leave: bool) -> None:
    """Use the parent's queue if it came along by a fork, else make one."""
    mine = queue if queue is not None else read_environment().queue().start()
    future = mine.enqueue(f"note:{number}", f"text {number}")
    if not leave:
        assert len(future.result(timeout=45)) == 16
        return
    mine.flush_now()
    while mine.stats().in_flight < 1 or mine.stats().waiting:
        time.sleep(0.01)


def main(method: str, leave: bool) -> None:
    """Three children."""
    global queue
    context = multiprocessing.get_context(method)
    if method == "fork":
        queue = read_environment().queue().start()
        if not leave:
            assert len(queue.enqueue("note:parent", "text").result(timeout=45)) == 16
    children = [context.Process(target=child, args=(number, leave)) for number in range(3)]
    for process in children:
        process.start()
    for process in children:
        process.join(45)
    print("done", sum(process.exitcode == 0 for process in children))


if __name__ == "__main__":
    main(sys.argv[1], "leave" in sys.argv[2:])
