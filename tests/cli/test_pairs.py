"""``embedqueue enqueue FILE``: files as they come from other programs, and lines that are bad."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("click", reason='the command line is in the extra "embedqueue[cli]"')

from tests.parts import PATIENCE_SECONDS


@pytest.fixture
def queued(redis_client):
    """What waits, as pairs in the order of the file."""

    def queued():
        members = map(json.loads, redis_client.zrange("embed_queue:pending", 0, -1))
        return [(item["redis_key"], item["text"]) for item in members]

    return queued


@pytest.mark.parametrize(
    ("data", "pairs"),
    [
        (b'redis_key,text\r\na,"one\r\ntwo"\r\n', [("a", "one\r\ntwo")]),
        (b'redis_key,text\na,"one\rtwo\n"\n', [("a", "one\rtwo\n")]),
        (b"redis_key,text\ra,b\rc,d\r", [("a", "b"), ("c", "d")]),
        ("\ufeffredis_key,text\r\na,h\u00e4llo\r\n".encode(), [("a", "h\u00e4llo")]),
        (b"\n \nredis_key,text\n\na,b\n,\n\n", [("a", "b")]),
        (b"redis_key;text;size\na;b, c;1\n", [("a", "b, c")]),
        (b"redis_key\ttext\na\tb\n", [("a", "b")]),
        (b"id, redis_key, text\n1,a,b\n", [("a", "b")]),
        (b'redis_key,text\na,5" pipe\n', [("a", '5" pipe')]),
        (b'\n\n{"redis_key":"a","text":"b"}\n\n  {"text":"d","redis_key":"c"}', [("a", "b"), ("c", "d")]),
        ('{"redis_key":"a","text":"one\u2028two"}\n'.encode(), [("a", "one\u2028two")]),
        (b"", []),
        (b"\n\n", []),
    ],
)
def test_files_as_they_come(run, queued, data, pairs):
    """Every line end, BOM, delimiter and blank line that Excel, databases and editors leave; texts are as they were."""
    assert run("enqueue", "-", text=data) == f"{len(pairs)} enqueued, 0 left as they are\n"
    assert queued() == pairs


@pytest.mark.parametrize(
    ("data", "pairs"),
    [
        (b"id,body,text\na,b,c\n", [("a", "b")]),
        (b'{"id":"a","body":"b","text":"c"}\n', [("a", "b")]),
    ],
)
def test_other_names(run, queued, data, pairs):
    """Of the columns of a CSV file, and of the members of JSON objects."""
    run("enqueue", "-", "--key-column", "id", "--text-column", "body", text=data)
    assert queued() == pairs


BEFORE, AFTER = b'redis_key,text\na,"b\nb"\n', b"\ny,z\n"
JSON_BEFORE, JSON_AFTER = b'\n{"redis_key":"a","text":"b\\nb"}\n\n', b'\n{"redis_key":"y","text":"z"}\n'


@pytest.mark.parametrize(
    ("before", "bad", "after", "sentence", "count"),
    [
        (BEFORE, b"c,h\xe4llo", AFTER, "line 4 is not UTF-8 (byte 0xe4)", 1),
        (BEFORE, b'c,"d\nh\xe4llo\n"', AFTER, "the record in lines 4 to 6 is not UTF-8 (byte 0xe4)", 3),
        (BEFORE, b"c,d\0e", AFTER, "line 4 has a NUL byte", 1),
        (BEFORE, b"c", AFTER, "line 4 needs redis_key and text, both strings", 1),
        (BEFORE, b",d", AFTER, "line 4 needs redis_key and text, both strings", 1),
        (BEFORE, b"c,one, two", AFTER, "line 4 has 3 fields, and the header 2", 1),
        (BEFORE, b'c,"one" two', AFTER, "line 4 is no CSV: ',' expected after '\"'", 1),
        (BEFORE, b"c," + b"x" * 1500 + b"y" * 1500, AFTER, "line 4 has more than 1000 characters", 1),
        (BEFORE, b'c,"' + b"\n123456789" * 110 + b'"', AFTER, "is no CSV: field larger than field limit (1000)", 101),
        (BEFORE, b"embed_queue:c,d", AFTER, "line 4 cannot be enqueued: redis_key 'embed_queue:c' lies inside", 1),
        (JSON_BEFORE, b"{oops", JSON_AFTER, "line 4 is no JSON", 1),
        (JSON_BEFORE, b"null", JSON_AFTER, "line 4 needs redis_key and text", 1),
        (JSON_BEFORE, b'{"redis_key":"c","text":7}', JSON_AFTER, "line 4 needs redis_key and text", 1),
        (JSON_BEFORE, b'{"redis_key":"c","text":"h\xe4llo"}', JSON_AFTER, "line 4 is not UTF-8 (byte 0xe4)", 1),
        (JSON_BEFORE, b'{"redis_key":"c","text":"\0"}', JSON_AFTER, "line 4 has a NUL byte", 1),
        (JSON_BEFORE, b'{"redis_key":"c","text":"\\ud83d"}', JSON_AFTER, "line 4 cannot be enqueued: it has half a", 1),
    ],
)
def test_a_bad_line(run, queued, redis_client, monkeypatch, before, bad, after, sentence, count):
    """It is named. What stands before it is enqueued; what stands behind it only if the user says so."""
    monkeypatch.setattr("embedqueue.cli.pairs.LINE_CHARS", 1000)
    said = run("enqueue", "-", text=before + bad + after, code=1)
    assert sentence in said and "1 enqueued" in said and "--skip-bad" in said and "--resume" in said
    assert queued() == [("a", "b\nb")]
    if "field larger" in sentence:
        return  # what the rest of such a field reads like is anybody's guess
    redis_client.flushall()
    said = run("enqueue", "-", "--skip-bad", text=before + bad + after)
    assert f"left out: {sentence}" in said
    assert said.startswith("2 enqueued, 0 left as they are\n") and said.endswith(f"\n{count} bad lines left out\n")
    assert queued() == [("a", "b\nb"), ("y", "z")]


def test_a_quote_that_is_never_closed(run, queued):
    """The rest of the file is no text of its key."""
    data = b'redis_key,text\na,b\nc,"d\ne,f\n'
    assert "the record in lines 3 to 4 is no CSV: a quote is never closed" in run("enqueue", "-", text=data, code=1)
    assert queued() == [("a", "b")]
    assert "2 bad lines left out" in run("enqueue", "-", "--skip-bad", text=data)


def test_many_bad_lines(run):
    """The first ones are named, all are counted."""
    said = run("enqueue", "-", "--skip-bad", text="redis_key,text\n" + "bad\n" * 700 + "a,b\n" + "bad\n" * 700)
    assert said.count("left out: line ") == 20
    assert said.startswith("1 enqueued, 0 left as they are\n") and said.endswith("\n1400 bad lines left out\n")


def test_a_mended_file_goes_on_where_it_stopped(run, queued):
    """With --resume, as the message says."""
    bad = "redis_key,text\n" + "".join(f"doc:{i},text {i}\n" for i in range(700)) + "bad\n"
    assert "700 enqueued" in run("enqueue", "-", text=bad, code=1)
    assert "1 enqueued, 700 left as they are" in run("enqueue", "-", "--resume", text=bad.replace("bad", "doc:bad,no"))
    assert len(queued()) == 701


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            "redis_key,text\na,b\n".encode("utf-16"),
            "line 1 is not UTF-8 (byte 0xff): save the file as UTF-8, not UTF-16",
        ),
        ("redis_key,text\na,b\n".encode("utf-16-le"), "line 1 has a NUL byte"),
        (
            b"\nredis_key,body\na,b\n",
            "line 2 is neither JSON nor the header of a CSV file with the columns redis_key and",
        ),
        (b'[{"redis_key":"a","text":"b"}]', "line 1 is neither JSON nor the header"),
        (b"redis_key,text,text\na,b,c\n", "line 1 has a column twice"),
    ],
)
def test_no_file_of_pairs(run, queued, data, sentence):
    """Nothing of it is enqueued, whatever may be skipped."""
    for arguments in ((), ("--skip-bad",)):
        assert sentence in run("enqueue", "-", *arguments, text=data, code=1)
    assert queued() == []


def test_standard_input_that_is_closed(env):
    """A sentence, no traceback."""
    command = [sys.executable, "-m", "embedqueue", "enqueue", "-"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command], env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 2 and "stdin" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hello\n", "neither JSON nor the header of a CSV file"),
        ('{"redis_key": "a", "text": "b"}\n{oops\n', "line 2 is no JSON"),
        ('{"redis_key": "a"}\n', "line 1 needs redis_key and text"),
        ("redis_key,text\n,x\n", "line 2 needs redis_key and text"),
        ('{"redis_key": ' + "[" * 100_000, "line 1 is no JSON"),
        ('{"redis_key": "a", "text": 1' + "0" * 5000 + "}", "line 1 is no JSON"),
        ("x" * 200_000, "neither JSON nor the header of a CSV file"),
    ],
)
def test_bad_files(run, text, sentence):
    """A bad line is named."""
    assert sentence in run("enqueue", "-", text=text, code=1)


@pytest.mark.parametrize("start", ["", '{"redis_key": "a", "text": "b"}\n', "redis_key,text\n"])
def test_a_line_without_end(run, monkeypatch, start):
    """A device, or the wrong file: it is given up long before memory is."""
    monkeypatch.setattr("embedqueue.cli.pairs.LINE_CHARS", 1000)
    assert "has more than 1000 characters" in run("enqueue", "-", text=start + "x" * 1001, code=1)
