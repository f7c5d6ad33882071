"""Real server processes for the tests: started, watched line by line, ended, and never left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import requests

from tests import nursery
from tests.parts import PATIENCE_SECONDS, PROGRAM_SECONDS

ROOT = Path(__file__).resolve().parents[2]
#: What no server may print because of us, whenever it starts, serves or ends.
COMPLAINTS = re.compile(r"Traceback|Exception ignored|Fatal Python|thread|Error in atexit|can't start|WORKER TIMEOUT")
#: What Django needs to know of the test site.
DJANGO = {"DJANGO_SETTINGS_MODULE": "tests.web.djsite.settings"}
#: What the nursery imports for those that are forked from it.
OURS = ("flask.cli", "embedqueue.cli", "embedqueue.contrib.flask", "embedqueue.dashboard", "tokenizers")
THEIRS = {
    "gunicorn": ("gunicorn.app.wsgiapp", "gunicorn.workers.gthread", "gunicorn.workers.sync"),
    "examples.fastapi_notes": ("fastapi", "uvicorn.protocols.http.auto", "uvicorn.lifespan.on", "a2wsgi"),
}
OF_DJANGO = ("django.core.management", "django.core.wsgi", "django.contrib.admin", "embedqueue.contrib.django")


class Running:
    """A process whose output is collected. A context manager: at the end it is killed with all its children.

    Args:
        command: a program and its arguments, or only those for this interpreter.
        env: variables beside the machine's own.
        afresh: whether the interpreter starts as it does for a user, and is not forked from one that has all imported.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], *, afresh: bool = False) -> None:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("EMBEDQUEUE_") and not name.endswith("_API_KEY")
        }
        environment = {**clean, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **env}
        module, *arguments = command[1:] if command[0] == "-m" else command
        self.process: nursery.Process
        if command[0] in ("-m", "-c") and not afresh:
            self.process = nursery.start(
                module,
                *arguments,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                start_new_session=True,
                imported=[*OURS, *THEIRS.get(module, ()), *(OF_DJANGO if DJANGO.keys() & env.keys() else ())],
            )
        else:
            self.process = subprocess.Popen(
                [sys.executable, "-u", *command] if command[0].startswith("-") else list(command),
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self._lines: list[str] = []
        self._over = False  # nothing more will be printed
        self._changed = threading.Condition()  # guards the lines and the end of them
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    @property
    def output(self) -> str:
        """Everything printed so far."""
        with self._changed:
            return "".join(self._lines)

    def saw(self, pattern: str, count: int = 1, *, seconds: float) -> re.Match[str] | None:
        """Wait so long until so many lines match; the last of them, or None."""
        found: list[re.Match[str]] = []

        def enough() -> bool:
            found[:] = [match for line in self._lines if (match := re.search(pattern, line))]
            return len(found) >= count or self._over

        with self._changed:
            self._changed.wait_for(enough, seconds)
        return found[count - 1] if len(found) >= count else None

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Wait until so many lines match."""
        match = self.saw(pattern, count, seconds=PROGRAM_SECONDS)
        assert match is not None, f"waited for {pattern!r} in vain:\n{self.output}"
        return match

    def send(self, number: int) -> None:
        """A signal to the process itself."""
        self.process.send_signal(number)

    def ended(self, seconds: float = PROGRAM_SECONDS) -> int:
        """Wait for the end; the exit code. In vain, it fails with the stacks of all that still runs."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGABRT)  # faulthandler prints them
            self._reader.join(PATIENCE_SECONDS)
            raise AssertionError(f"still running after {seconds} s:\n{self.output}") from None
        self._reader.join(PATIENCE_SECONDS)
        return code

    def assert_quiet(self, *known: str) -> None:
        """Nothing was printed that a user would worry about, except for lines with one of these words."""
        harmless = ("gthread", "threads: ", *known)
        lines = [line for line in self.output.splitlines() if not any(word in line for word in harmless)]
        found = COMPLAINTS.search("\n".join(lines))
        assert found is None, f"{found.group()!r} in:\n{self.output}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        print(self.output)  # shown if the test fails


class Site:
    """A web server that runs; its address is in its output."""

    def __init__(self, running: Running, url: str) -> None:
        self.running = running
        self.url = url

    def post(self, path: str, **form: str) -> dict[str, Any]:
        """POST; the answer must be a 200."""
        answer = requests.post(self.url + path, data=form, timeout=PATIENCE_SECONDS, headers={"Connection": "close"})
        assert answer.status_code == 200, f"{answer.status_code} {answer.text[:500]}\n{self.running.output}"
        found: dict[str, Any] = answer.json()
        return found


def gunicorn(
    env: Mapping[str, str], *options: str, app: str = "tests.web.flask_site:app", afresh: bool = False
) -> Running:
    """Gunicorn with the test site, on a free port."""
    from gunicorn.config import make_settings

    fixed = ["--bind", "127.0.0.1:0", "--graceful-timeout", "20", "--timeout", "30"]
    if "control_socket_disable" in make_settings():  # newer versions would leave a socket in the working directory
        fixed.append("--no-control-socket")
    return Running(["-m", "gunicorn", *fixed, *options, app], env, afresh=afresh)


def site_of(running: Running) -> Site:
    """The site of a gunicorn that listens and whose first worker is up."""
    url = running.wait_for(r"Listening at: (http://\S+)").group(1)
    running.wait_for("Booting worker")
    return Site(running, url)
