"""The provider as a process of its own, until it is killed."""

from __future__ import annotations

import argparse
import threading

from tests.provider import Provider

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A strict embedding provider on loopback, for tests.")
    parser.add_argument("--port", type=int, default=0)
    with Provider(parser.parse_args().port) as provider:
        print(provider.url, flush=True)
        threading.Event().wait()
