"""A result of any size is read in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.parts import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
DIMENSIONS = 3072
LINES = 700  # 51 MB
#: What the process that reads may need beyond what it needed for the first line.
MORE_BYTES = 10 << 20

READER = """
import resource, sys
from embedqueue import OpenAIEmbedder
from embedqueue.embedders.batch_jobs import JobSeen
jobs = OpenAIEmbedder("key", sys.argv[1], batches=True).batch_jobs("m")
lines = jobs.results(JobSeen("done", parts=("file",)))
next(lines)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count, end = 1, 0
for line in lines:
    assert len(line.vector) == 3072
    count, end = count + 1, line.place[1]
print(count, end, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


class _Endless(BaseHTTPRequestHandler):
    """Sends lines as they are in a result of lists, one after another."""

    line = b""

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.line) * LINES))
        self.end_headers()
        for _ in range(LINES):
            self.wfile.write(self.line)


def test_a_result_of_50_megabytes():
    vector = [(-1) ** number * 0.048309326171875 / (1 + number) for number in range(DIMENSIONS)]
    body = {"data": [{"embedding": vector, "index": 0}], "usage": {"total_tokens": 3}}
    line = {"custom_id": "k", "response": {"status_code": 200, "body": body}, "error": None}
    _Endless.line = json.dumps(line).encode() + b"\n"
    assert len(_Endless.line) * LINES > 50_000_000
    with ThreadingHTTPServer(("127.0.0.1", 0), _Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        command = [sys.executable, "-c", READER, url]
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=4 * PATIENCE_SECONDS)
        server.shutdown()
    assert told.returncode == 0, told.stderr
    count, end, more = map(int, told.stdout.split())
    assert (count, end) == (LINES, len(_Endless.line) * LINES)
    assert more < MORE_BYTES
