"""Children that start at once: forked from a process of one thread that has imported what they all need.

Python and its libraries take 0.4 s of a processor to come up, with a web server's it is 1 s, and the suite starts many
processes that only have to be others, to be killed or to end. What a user starts, a command or a server, some test
of each kind starts as the user does.

The parent of such a child is the nursery, which tells its exit code, and with which it ends. Where there are no pidfds,
other than on Linux, a child is an ordinary one.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import logging
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
IMPORTED = (
    *("embedqueue.engine", "redis.cluster", "requests", "tests.inside", "tests.parts"),
    "tests.proof.torture.producer",
)
#: Has the kernel send a signal to this process when its parent ends (prctl(2), linux/prctl.h).
PR_SET_PDEATHSIG = 1


class Child:
    """As far as its users need it, a ``subprocess.Popen``."""

    def __init__(self, pid: int, status: IO[bytes], stdin: IO[bytes] | None, stdout: Any, stderr: Any) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._status = status
        self._lock = threading.Lock()

    def wait(self, timeout: float | None = None) -> int:
        with self._lock, selectors.DefaultSelector() as selector:
            if self.returncode is None:
                selector.register(self._status, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(f"child {self.pid}", timeout or 0.0)
                with self._status:
                    self.returncode = int(self._status.readline())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> list[Any]:
        """What it has printed until its end, which has to fit into a pipe."""
        self.wait(timeout)
        told = []
        for stream in (self.stdout, self.stderr):
            told.append(None if stream is None or stream.closed else stream.read())
            if stream is not None:
                stream.close()
        return told

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Process = Child | subprocess.Popen[Any]


class _Nursery:
    """This process' way to the one that forks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._way: socket.socket | None = None

    def start(self, order: dict[str, Any], files: Sequence[int]) -> tuple[int, IO[bytes]]:
        """Fork a child; gives its process id, and where its exit code will be read."""
        reading, writing = os.pipe()
        status = open(reading, "rb")  # closed by who waits for the end
        try:
            with self._lock:
                if self._way is None:
                    self._way = self._open()
                message = json.dumps(order).encode()
                socket.send_fds(self._way, [len(message).to_bytes(4, "big")], [writing, *files])
                self._way.sendall(message)
        finally:
            os.close(writing)
        return int(status.readline()), status

    @staticmethod
    def _open() -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

        def close() -> None:
            ours.close()
            process.wait()

        atexit.register(close)
        return ours


_nursery = _Nursery()


def start(
    module: str,
    *arguments: str,
    stdin: int = subprocess.DEVNULL,
    output: IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    text: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    lifeline: int | None = None,
    start_new_session: bool = False,
    imported: Sequence[str] = (),
) -> Process:
    """Run a module as a program would be, in a child.

    Args:
        module: its name; or "-c", and the code is the first of the arguments.
        stdin, stderr, text, env, cwd, start_new_session: as in ``subprocess.Popen``.
        output: a file for its standard output, and error where nothing else is said, instead of a pipe for its output.
        lifeline: a file descriptor that it holds until it has ended, and its children have.
        imported: what it needs beside what all need; it is imported once, by the nursery.
    """
    environment = dict(os.environ if env is None else env)
    if output is not None and stderr is None:
        stderr = output
    if not hasattr(os, "pidfd_open"):
        program = ["-c"] if module == "-c" else ["-m", module]
        return subprocess.Popen(
            [sys.executable, "-u", "-X", "faulthandler", *program, *arguments],
            stdin=stdin,
            stdout=output or subprocess.PIPE,
            stderr=stderr,
            text=text,
            env=environment,
            cwd=cwd,
            pass_fds=() if lifeline is None else (lifeline,),
            start_new_session=start_new_session,
        )
    with contextlib.ExitStack() as theirs:

        def pipe() -> tuple[Any, int]:
            reading, writing = os.pipe()
            theirs.callback(os.close, writing)
            return open(reading, "r" if text else "rb"), writing

        out, writing = pipe() if output is None else (None, output.fileno())
        told = None
        if stderr == subprocess.PIPE:
            told, errors = pipe()
        elif stderr == subprocess.STDOUT:
            errors = writing
        else:
            errors = (
                sys.__stderr__.fileno() if stderr is None else stderr if isinstance(stderr, int) else stderr.fileno()
            )
        into: IO[bytes] | None = None
        if stdin == subprocess.PIPE:
            source, target = os.pipe()
            into = open(target, "wb")
        else:
            source = os.open(os.devnull, os.O_RDONLY)
        theirs.callback(os.close, source)
        order = {
            "module": module,
            "arguments": arguments,
            "session": start_new_session,
            "environment": environment,
            "folder": str(cwd),
            "imported": imported,
        }
        files = [source, writing, errors, *([] if lifeline is None else [lifeline])]
        pid, status = _nursery.start(order, files)
    return Child(pid, status, into, out, told)


def run(
    module: str, *arguments: str, timeout: float, input: str = "", **options: Any
) -> subprocess.CompletedProcess[str]:
    """As ``subprocess.run`` with what it prints captured as text; ``options`` as of :func:`start`."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = start(module, *arguments, stdin=subprocess.PIPE, output=output, stderr=errors, **options)
        try:
            with process.stdin as stdin, contextlib.suppress(BrokenPipeError):
                stdin.write(input.encode())
            code = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        told = [file.seek(0) or file.read().decode() for file in (output, errors)]
    return subprocess.CompletedProcess([module, *arguments], code, *told)


def _receive(way: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    head, files, _, _ = socket.recv_fds(way, 4, 8)
    if not head:
        return None
    size, message = int.from_bytes(head, "big"), b""
    while len(message) < size:
        message += way.recv(size - len(message))
    return json.loads(message), files


def _serve(way: socket.socket) -> dict[str, Any] | None:
    """Fork until nobody asks any more; gives, in each child, what it shall be."""
    with selectors.PollSelector() as selector:  # an epoll would be the children's as well
        selector.register(way, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is way:
                    received = _receive(way)
                    if received is None:
                        return None
                    order, (status, *files) = received
                    _import(order["imported"])
                    nursery = os.getpid()
                    pid = os.fork()
                    if pid == 0:
                        _end_with(nursery)
                        _settle(status, files, order)
                        return order
                    for file in files:
                        os.close(file)
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, status))
                else:
                    pid, status = key.data
                    selector.unregister(key.fileobj)
                    os.close(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with contextlib.suppress(BrokenPipeError):  # nobody wants to know
                        os.write(status, b"%d\n" % code)
                    os.close(status)


def _import(names: Sequence[str]) -> None:
    """What children find there; the garbage collector of none goes through it, so that it stays shared by all."""
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(ImportError):  # who needs it says so
                importlib.import_module(name)
            if logging.root.handlers or threading.active_count() > 1:
                raise RuntimeError(f"a child would not start as others do once {name} is imported here")
    gc.freeze()


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we had said so
        os._exit(1)


def _settle(status: int, files: list[int], order: dict[str, Any]) -> None:
    """Take the child's own files, session and environment, and nothing of the nursery's."""
    if order["session"]:
        os.setsid()
    os.write(status, b"%d\n" % os.getpid())  # only now: who knows it may kill the session
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(len(files), os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [order["folder"], *(path for path in paths if path and path not in sys.path)]


def main() -> None:
    way = socket.socket(fileno=int(sys.argv[1]))
    _import(IMPORTED)
    faulthandler.enable()
    order = _serve(way)
    if order is None:
        return
    way.detach()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    if order["module"] != "-c":
        sys.argv[1:] = order["arguments"]
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        return
    code, *arguments = order["arguments"]
    sys.argv[:] = ["-c", *arguments]
    sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), vars(sys.modules["__main__"]))


if __name__ == "__main__":
    main()
