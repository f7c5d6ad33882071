"""The pairs of a file, JSONL or CSV with a header, as such files come; what is bad is named by its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

Pair = tuple[str, str]

#: Characters that a line, or a field of a CSV file, may have; Python's own limit of a field is 128 KiB.
LINE_CHARS = 1 << 26
#: What may stand between two columns of a CSV file; the one that is in its header does. Excel's own varies by country.
DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A record that cannot be enqueued.

    Attributes:
        first: number of its first line; the file's first line is 1.
        last: number of its last line: a field of a CSV file may have line ends in it.
        why: what is wrong, as a sentence without its subject.
    """

    first: int
    last: int
    why: str

    def __str__(self) -> str:
        """The sentence."""
        lines = f"line {self.first}" if self.first == self.last else f"the record in lines {self.first} to {self.last}"
        return f"{lines} {self.why}"


class _Fault(ValueError):
    """Why a record cannot be enqueued."""


def read_pairs(
    file: BinaryIO, key_column: str, text_column: str, check: Callable[[str, str], None]
) -> Generator[Pair | BadLine]:
    """Read a file; what its first line is tells the format. Close the generator while the file is open.

    Args:
        file: in UTF-8, with a BOM or without. Line ends within a field of a CSV file stay as they are.
        key_column: of the CSV file, or the member of the JSON objects, that holds redis_keys.
        text_column: the one that holds texts.
        check: raises TypeError or ValueError where a pair cannot be enqueued.

    Raises:
        ValueError: the file is of neither format.
    """
    lines = _Lines(file)
    try:
        first = _first(lines)
        if not first:
            return
        if first.lstrip().startswith("{"):
            lines.put_back(first)
            record = _json_records(lines)
        else:
            record = _csv_records(lines, first, {key_column, text_column})
        while True:
            start, lines.fault = lines.number + 1, ""
            try:
                row = record()
                pair = None if row is None else _pair(row, key_column, text_column, check)
            except StopIteration:
                return
            except _Fault as error:
                yield BadLine(start, lines.number, lines.fault or str(error))
                continue
            if lines.fault:
                yield BadLine(start, lines.number, lines.fault)
            elif pair is not None:
                yield pair
    finally:
        lines.leave()


class _Lines:
    """The lines of a file with their ends. An iterator that goes on after an error.

    Attributes:
        number: of the line that was read last.
        fault: what is wrong with the bytes of a line since somebody has emptied this.
    """

    def __init__(self, file: BinaryIO) -> None:
        # A byte that is no UTF-8 becomes a lone surrogate, which tells the line in which it is.
        self._text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        self._put_back: str | None = None
        self.number = 0
        self.fault = ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, self._put_back = self._put_back, None
        line = line or self._text.readline(LINE_CHARS + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.fault = self.fault or self._fault_of(line)
        if len(line) > LINE_CHARS:
            while line and not line.endswith(("\n", "\r")):
                line = self._text.readline(LINE_CHARS)
            self.fault = f"has more than {LINE_CHARS} characters"
            raise _Fault(self.fault)
        return line

    def put_back(self, line: str) -> None:
        """Have the line that was read last be the next one."""
        self._put_back = line
        self.number -= 1

    def leave(self) -> None:
        """Leave the file open: it is its opener's, who still asks how far it was read."""
        self._text.detach()

    def _fault_of(self, line: str) -> str:
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError as error:
                hint = ": save the file as UTF-8, not UTF-16" if line[:2] in ("\udcff\udcfe", "\udcfe\udcff") else ""
                return f"is not UTF-8 (byte 0x{ord(line[error.start]) & 0xFF:02x}){hint}"
        return "has a NUL byte" if "\0" in line else ""


def _first(lines: _Lines) -> str:
    try:
        return next((line for line in lines if line.strip()), "")
    except _Fault as error:
        raise ValueError(f"line {lines.number} {error}") from None


def _json_records(lines: _Lines) -> Callable[[], Any]:
    def record() -> Any:
        line = next(lines)
        try:
            return (json.loads(line) or {}) if line.strip() else None
        except (ValueError, RecursionError):
            raise _Fault("is no JSON") from None

    return record


def _csv_records(lines: _Lines, header: str, needed: set[str]) -> Callable[[], dict[str, str] | None]:
    csv.field_size_limit(LINE_CHARS)
    for delimiter in DELIMITERS:
        columns = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        if needed <= set(columns):
            break
    else:
        names = " and ".join(sorted(needed))
        why = lines.fault or (
            f"is neither JSON nor the header of a CSV file with the columns {names}; "
            "--key-column and --text-column name others"
        )
        raise ValueError(f"line {lines.number} {why}")
    if any(columns.count(name) > 1 for name in needed):
        raise ValueError(f"line {lines.number} has a column twice: {', '.join(columns)}")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)

    def record() -> dict[str, str] | None:
        try:
            row = next(reader)
        except csv.Error as error:
            ended = "unexpected end" in str(error)
            raise _Fault(f"is no CSV: {'a quote is never closed' if ended else error}") from None
        if any(row[len(columns) :]):
            raise _Fault(f"has {len(row)} fields, and the header {len(columns)}")
        return dict(zip(columns, row, strict=False)) if any(map(str.strip, row)) else None

    return record


def _pair(row: Any, key_column: str, text_column: str, check: Callable[[str, str], None]) -> Pair:
    key, text = (row.get(key_column), row.get(text_column)) if isinstance(row, dict) else (None, None)
    if not isinstance(key, str) or not isinstance(text, str) or not key:
        raise _Fault(f"needs {key_column} and {text_column}, both strings")
    try:
        check(key, text)
    except (TypeError, ValueError) as error:
        raise _Fault(f"cannot be enqueued: {error}") from None
    return key, text
