"""The processes of a contender: workers that can be frozen, measured and killed, and producers that can be asked."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from benchmarks import contenders
from benchmarks.settings import Settings

_spawn = multiprocessing.get_context("spawn")
#: Seconds for one order to a producer; beyond, something is stuck.
ANSWER_SECONDS = 300.0


class Worker:
    """One worker of a contender, with whatever processes it starts itself.

    While other contenders are measured it is frozen (SIGSTOP): all workers can stand by, warm, and cost nothing.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self._process = _spawn.Process(target=_work, args=(name, settings), name=f"worker {name}")
        self._process.start()
        self._root = psutil.Process(self._process.pid)

    def _tree(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._root, *self._root.children(recursive=True)]
        return []

    def _signal(self, number: int) -> None:
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def freeze(self) -> None:
        """Stop running until :meth:`thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to every process of it, as when its machine dies."""
        self._signal(signal.SIGKILL)
        self._process.join()

    @property
    def alive(self) -> bool:
        """Whether it runs or is frozen."""
        return self._process.is_alive()

    def cpu_seconds(self) -> float:
        """CPU time that its processes have used."""
        total = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def reset_peak(self) -> None:
        """Begin a new peak of memory (Linux)."""
        for process in self._tree():
            with contextlib.suppress(OSError):
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """The peaks of its processes since the reset, added up; where the system does not tell, what they use now."""
        total = 0
        for process in self._tree():
            try:
                line = next(
                    line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmHWM" in line
                )
                total += int(line.split()[1]) * 1024
            except (OSError, StopIteration):
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
        return total


class Producer:
    """A contender's producer in a process of its own; any method can be called."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._pipe, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_produce, args=(name, settings, theirs), name=f"producer {name}")
        self._process.start()

    def __getattr__(self, method: str) -> Any:
        return lambda *args: self._ask(method, args)

    def _ask(self, method: str, args: tuple[Any, ...]) -> Any:
        self._pipe.send((method, args))
        if not self._pipe.poll(ANSWER_SECONDS):
            raise TimeoutError(f"{self._process.name} does not answer")
        answer, error = self._pipe.recv()
        if error:
            raise RuntimeError(f"{self._process.name}: {error}")
        return answer

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()


def _prepare(settings: Settings) -> None:
    settings.export()
    logging.basicConfig(level=logging.ERROR)  # what is done on purpose here (no persistence, killed workers) is no news


def _work(name: str, settings: Settings) -> None:
    _prepare(settings)
    contenders.load(name).work(settings)


def _produce(name: str, settings: Settings, pipe: Connection) -> None:
    _prepare(settings)
    producer = contenders.load(name).Producer(settings)
    while True:
        method, args = pipe.recv()
        try:
            pipe.send((getattr(producer, method)(*args), None))
        except Exception:
            pipe.send((None, traceback.format_exc()))
