"""Mutation testing: one small fault at a time in a copy of the source; a mutant that no test notices is printed.

    python -m tests.mutants lua
    python -m tests.mutants drain waiters
    python -m tests.mutants waiters --only 120-140

Statements are deleted, conditions turned round, comparisons shifted by one, `and` and `or` swapped, truths and numbers
changed. ``docs/proof.md`` lists what survives and why that does not matter.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LUA_TESTS = (
    "test_scripts", "test_leftovers", "test_invariants", "test_schedules", "test_history", "test_late"
)  # fmt: skip
QUEUE_TESTS = ("tests/unit/test_waiters.py", "tests/unit/test_queue.py", "tests/unit/test_observe.py")
REDIS_TESTS = (
    "test_cache",
    "test_fuzz",
    "test_stopping",
    "test_observe",
    "test_outages",
    "test_threads",
    "test_waiting",
)
GROUPS = {
    "lua": (sorted(str(path.relative_to(ROOT)) for path in (ROOT / "embedqueue/scripts").glob("*.lua")), LUA_TESTS),
    "drain": (["embedqueue/drain.py", "embedqueue/outcomes.py", "embedqueue/cache.py"], QUEUE_TESTS + REDIS_TESTS),
    "waiters": (["embedqueue/waiters.py"], QUEUE_TESTS + REDIS_TESTS),
}
#: Seconds for all tests of one mutant; whoever hangs is found out.
TIME_SECONDS = 240

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
    r"\s*(redis\.call|notice\(|bury\(|give_up\(|exhume\(|end_probe\(|put\(|tell\(|take\(|[\w, .\[\]+*-]+ = )"
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


def survives(folder: Path, tests: tuple[str, ...], *, verbose: bool = False) -> bool:
    paths = [test if "/" in test else f"tests/redis/{test}.py" for test in tests]
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "--timeout", "30", "--no-header"]
    here = [path for path in paths if (folder / path).exists()]
    try:
        run = subprocess.run([*command, *here], cwd=folder, capture_output=True, text=True, timeout=TIME_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    if run.returncode and verbose:
        print(run.stdout[-2000:])
    return not run.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="group", help=", ".join(GROUPS))
    parser.add_argument("--only", help="lines, as 10-20")
    parser.add_argument("--file", nargs="*", help="files whose path holds one of these")
    parser.add_argument("--count", action="store_true", help="only count the mutants")
    options = parser.parse_args()
    first, last = map(int, (options.only or "0-100000").split("-"))
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        folder = Path(temporary)
        for part in ("embedqueue", "tests", "benchmarks", "docs", "pyproject.toml", "setup.cfg", "README.md"):
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, folder / part)
        for files, tests in (GROUPS[name] for name in options.groups or GROUPS):
            sound = options.count or any(survives(folder, tests, verbose=True) for _ in range(3))
            assert sound, "the tests fail without any mutant"
            for file in [file for file in files if any(part in file for part in options.file or [""])]:
                try_file(folder / file, file, tests, range(first, last + 1), count=options.count)


def try_file(path: Path, name: str, tests: tuple[str, ...], lines: range, *, count: bool) -> None:
    source = path.read_text("utf-8")
    mutants = [m for m in (of_lua if name.endswith(".lua") else of_python)(source) if m[0] in lines]
    started_mono, survivors = time.monotonic(), 0
    for line, what, mutated in () if count else mutants:
        path.write_text(mutated, "utf-8")
        if survives(path.parents[len(Path(name).parts) - 1], tests):
            survivors += 1
            print(f"{name}:{line}: {what}", flush=True)
    path.write_text(source, "utf-8")
    seconds = time.monotonic() - started_mono
    print(f"# {name}: {len(mutants)} mutants, {survivors} survived, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
