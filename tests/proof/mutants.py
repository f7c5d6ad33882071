"""Mutation testing: one small fault at a time in a copy of the source; a mutant that no test notices is printed.

    python -m tests.proof.mutants lua
    python -m tests.proof.mutants work waiters
    python -m tests.proof.mutants waiters --only 120-140

Statements are deleted, conditions turned round, comparisons shifted by one, `and` and `or` swapped, truths and numbers
changed. ``docs/proof.md`` lists what survives and why that does not matter.
"""

from __future__ import annotations

import argparse
import ast
import functools
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: What a mutant must get past, the fastest and most particular first: the first test that fails ends it. Short lists,
#: for a survivor costs all of one: what the others may see of it is quickly tried by hand.
SCRIPT_TESTS = (
    *("store/test_claims", "store/test_scripts", "store/test_books", "work/test_leftovers", "store/test_late"),
    *("work/test_clock", "proof/test_invariants", "work/test_leases"),
)
QUEUE_TESTS = ("queue/test_queue", "work/test_unforeseen", "queue/test_stopping", "work/test_outages")
CACHE_TESTS = ("calls/test_cache", "work/test_clock", "proof/test_invariants")
MORE_TESTS = ("queue/test_if_changed", "queue/test_within", "queue/test_forget", "proof/test_invariants")
FUTURE_TESTS = ("futures/test_waiters", "observers/test_observers", "calls/test_cache", "observers/test_told")
TESTS = {
    "hold_cached.lua": CACHE_TESTS,
    "take_cached.lua": CACHE_TESTS,
    "if_changed.lua": MORE_TESTS,
    "within.lua": MORE_TESTS,
    "more.lua": MORE_TESTS,
    "since.lua": ("store/test_second", "queue/test_verify"),
    "enqueue.lua": (*MORE_TESTS[:3], *SCRIPT_TESTS, "queue/test_queue"),
    "erase.lua": ("queue/test_forget", "queue/test_verify", "proof/test_invariants"),
    "label.lua": ("cli/test_space",),
    "buckets.lua": ("store/test_bucket_edges", "store/test_buckets", "proof/test_limits", "work/test_limits"),
    "settle.lua": ("store/test_bucket_edges", "store/test_buckets", "proof/test_limits"),
    "budget.lua": ("store/test_budget", "store/test_buckets"),
    "stamps.lua": ("work/test_sink",),
    "stall.lua": ("work/test_sink",),
    "announce.lua": ("store/test_workers", "work/test_heartbeat"),
    "rehearse.lua": ("operating/test_examine", "cli/test_cli"),
    ".lua": (*SCRIPT_TESTS, "queue/test_queue"),
    "waiters.py": ("futures/test_waiters", "queue/test_queue", "futures/test_waiting"),
    ".py": (*FUTURE_TESTS, *QUEUE_TESTS, "futures/test_waiting"),
}
GROUPS = {
    "lua": sorted(str(path.relative_to(ROOT)) for path in (ROOT / "embedqueue/store/lua").glob("*.lua")),
    "work": [
        f"embedqueue/{name}.py"
        for name in ("work/dispatch", "work/plan", "work/settle", "futures/outcomes", "calls/cache")
    ],
    "waiters": ["embedqueue/futures/waiters.py"],
}
#: A mutant may take so many times as long as the tests without it, and some seconds more; whoever hangs is found out.
PATIENCE, MORE_SECONDS = 2.0, 30.0

Mutant = tuple[int, str, str]  # line, what, the whole source

COMPARISONS = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
DELETED = (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Continue, ast.Break, ast.Delete)


def of_python(source: str) -> Iterator[Mutant]:
    lines = [0]
    raw = source.encode()
    for line in raw.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def place(line: int, column: int) -> int:
        return lines[line - 1] + column

    def swap(node: ast.AST, text: str, what: str) -> Mutant:
        start, end = place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)
        old = raw[start:end].decode()
        return node.lineno, f"{what}: {' '.join(old.split())[:90]}", (raw[:start] + text.encode() + raw[end:]).decode()

    for node in ast.walk(ast.parse(source)):
        text = ast.get_source_segment(source, node) if hasattr(node, "lineno") else None
        if isinstance(node, DELETED) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            yield swap(node, "pass", "deleted")
        elif isinstance(node, ast.Return) and node.value is not None:
            yield swap(node, "return None", "no answer")
        elif isinstance(node, ast.If | ast.While | ast.IfExp):
            test = ast.get_source_segment(source, node.test)
            if test != "True":
                yield swap(node.test, f"(not ({test}))", "turned round")
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            left, right = (ast.get_source_segment(source, part) for part in (node.left, node.comparators[0]))
            if isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE):
                yield swap(node, f"({left} {COMPARISONS[type(node.ops[0])]} {right})", "shifted")
        elif isinstance(node, ast.BoolOp):
            word = " or " if isinstance(node.op, ast.And) else " and "
            parts = [f"({ast.get_source_segment(source, part)})" for part in node.values]
            yield swap(node, f"({word.join(parts)})", "and/or")
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield swap(node, str(not node.value), "other truth")
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float) and text:
            yield swap(node, f"({text} + 1)", "one more")


LUA_SWAPS = (
    (r" == ", " ~= ", "turned round"), (r" ~= ", " == ", "turned round"), (r" >= ", " > ", "shifted"),
    (r" <= ", " < ", "shifted"), (r" > ", " >= ", "shifted"), (r" < ", " <= ", "shifted"),
    (r"\band\b", "or", "and/or"), (r"\bor\b", "and", "and/or"), (r"\bnot ", "", "turned round"),
    (r"\btrue\b", "false", "other truth"), (r"(?<![\w.\"%])([0-9]+)(?![\w.\"])", r"(\1 + 1)", "one more"),
)  # fmt: skip
#: Statements of one line that can be left out without breaking the syntax.
LUA_STATEMENT = re.compile(
    r"\s*((redis\.call|notice|reject(_and_tell)?|drop_dead_letter|end_probe|put|tell|take)\(|[\w, .\[\]+*-]+ = )"
)


def of_lua(source: str) -> Iterator[Mutant]:
    lines = source.splitlines(keepends=True)
    for number, line in enumerate(lines):
        code = line.split(" --")[0] if not line.lstrip().startswith("--") else ""

        def changed(new: str, at: int = number) -> str:
            return "".join([*lines[:at], new, *lines[at + 1 :]])

        if LUA_STATEMENT.match(code) and not code.lstrip().startswith("local") and code.count("(") == code.count(")"):
            yield number + 1, f"deleted: {code.strip()}", changed("\n")
        for pattern, new, what in LUA_SWAPS:
            for found in re.finditer(pattern, code):
                text = code[: found.start()] + found.expand(new) + code[found.end() :]
                yield number + 1, f"{what}: {text.strip()}", changed(text.rstrip() + "\n")


@functools.cache
def seconds_without(folder: Path, tests: tuple[str, ...]) -> float:
    """How long the tests take without any mutant."""
    for tries_left in (2, 1, 0):
        started_mono = time.monotonic()
        failed = noticed(folder, tests, 600.0)
        if not failed:
            break
        assert tries_left, f"the tests fail without any mutant: {failed}"
    return time.monotonic() - started_mono


def tests_of(name: str, folder: Path) -> list[str]:
    tests = next(tests for end, tests in TESTS.items() if name.endswith(end))
    paths = [f"tests/{test}.py" for test in tests]
    missing = [path for path in paths if not (folder / path).exists()]
    assert not missing, missing
    return paths


def noticed(folder: Path, tests: Sequence[str], limit_seconds: float) -> str:
    """The first test that fails, "" where none does."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-qx",
        "-p",
        "no:cacheprovider",
        "--timeout",
        "30",
        "--no-header",
        "-rfE",
    ]
    try:
        run = subprocess.run([*command, *tests], cwd=folder, capture_output=True, text=True, timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        return "it hangs"
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    return (found.group(1) if found else f"pytest ended with {run.returncode}") if run.returncode else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="group", help=", ".join(GROUPS))
    parser.add_argument("--only", help="lines, as 10-20")
    parser.add_argument("--file", nargs="*", help="files whose path holds one of these")
    parser.add_argument("--tests", nargs="*", help="only these, as store/test_books: a quick pass")
    parser.add_argument("--skip", nargs="*", default=[], help="kinds of faults that are not tried, as 'one more'")
    parser.add_argument("--count", action="store_true", help="only count the mutants")
    parser.add_argument("--all", action="store_true", help="print the others as well, and which test noticed them")
    options = parser.parse_args()
    first, last = map(int, (options.only or "0-100000").split("-"))
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        folder = Path(temporary)
        for part in ("embedqueue", "tests", "benchmarks", "docs", "pyproject.toml", "setup.cfg", "README.md"):
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, folder / part)
        for file in [file for name in options.groups or GROUPS for file in GROUPS[name]]:
            if any(part in file for part in options.file or [""]):
                try_file(folder, file, range(first, last + 1), options)


def try_file(folder: Path, name: str, lines: range, options: argparse.Namespace) -> None:
    path = folder / name
    source = path.read_text("utf-8")
    mutants = [m for m in (of_lua if name.endswith(".lua") else of_python)(source) if m[0] in lines]
    mutants = [m for m in mutants if not m[1].startswith(tuple(options.skip))]
    if options.count:
        print(f"# {name}: {len(mutants)} mutants")
        return
    tests = [f"tests/{test}.py" for test in options.tests] if options.tests else tests_of(name, folder)
    limit_seconds = PATIENCE * seconds_without(folder, tuple(tests)) + MORE_SECONDS
    started_mono, survivors = time.monotonic(), 0
    for line, what, mutated in mutants:
        path.write_text(mutated, "utf-8")
        by = noticed(folder, tests, limit_seconds)
        survivors += not by
        if options.all or not by:
            print(f"{name}:{line}: {what}" + (f"  [{by}]" if by else "  SURVIVED" if options.all else ""), flush=True)
    path.write_text(source, "utf-8")
    seconds = time.monotonic() - started_mono
    print(f"# {name}: {len(mutants)} mutants, {survivors} survived, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
