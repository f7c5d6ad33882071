"""What the log says: to whom a record belongs, and nothing that must not leave the process."""

from __future__ import annotations

import contextvars
import logging
import signal
import sys
import threading

import pytest

from embedqueue import EmbeddingBatchQueue, InputRejected, ItemRejected
from embedqueue.testing import FakeEmbedder
from embedqueue.values.log import QueueLog, logger

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
SECRET_TEXT = "the patient's name is Ada"


class Choosy(FakeEmbedder):
    """Refuses the secret text, quoting it as providers do."""

    def embed_batch(self, texts, model):
        if SECRET_TEXT in texts:
            raise InputRejected(f"cannot embed {SECRET_TEXT!r}")
        return super().embed_batch(texts, model)


def test_records_of_a_call(fake_redis, caplog):
    """A call's record names the queue, its texts by number and its time; the user's own ``extra`` would be kept."""
    caplog.set_level(logging.INFO, "embedqueue")
    with EmbeddingBatchQueue(FakeEmbedder(), fake_redis, namespace="mine") as queue:
        futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(3))
        futures[0].result(45)
    [record] = [record for record in caplog.records if hasattr(record, "duration")]
    assert (record.namespace, record.batch_size, record.levelname) == ("mine", 3, "INFO")
    assert 0 <= record.duration < 10


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_no_text_at_info(fake_redis, caplog, level):
    """A refusal that quotes the text is told in dead_letters(), and in the log at DEBUG only."""
    caplog.set_level(level, "embedqueue")
    with EmbeddingBatchQueue(Choosy(), fake_redis) as queue:
        with pytest.raises(ItemRejected):
            queue.enqueue("doc:1", SECRET_TEXT).result(45)
        assert SECRET_TEXT in queue.dead_letters()[0].reason
    assert "doc:1 is a dead letter now" in caplog.text
    assert {record.namespace for record in caplog.records} == {"embed_queue"}
    assert (SECRET_TEXT in caplog.text) == (level == logging.DEBUG)


def test_whose_context_variables_are_seen(fake_redis):
    """A callback sees those of its request, whichever thread ends the future; an API call is of many and sees none."""
    seen: dict[str, str] = {}
    ended = threading.Semaphore(0)

    class Watching(FakeEmbedder):
        def embed_batch(self, texts, model):
            seen["call"] = REQUEST.get()
            return super().embed_batch(texts, model)

    def request(name):
        REQUEST.set(name)
        future = queue.enqueue(f"doc:{name}", "text")
        future.add_done_callback(lambda _: (seen.update({name: REQUEST.get()}), ended.release()))

    def ask():
        REQUEST.set("who starts the worker")
        queue.start().flush_now()

    queue = EmbeddingBatchQueue(Watching(), fake_redis)
    for target, *args in ((request, "one"), (request, "two"), (ask,)):
        thread = threading.Thread(target=target, args=args)
        thread.start()
        thread.join(45)
    assert ended.acquire(timeout=45) and ended.acquire(timeout=45)
    queue.stop()
    assert seen == {"one": "one", "two": "two", "call": "none"}


class Broken(logging.Handler):
    """Raises what it is given, as a filter that reads ``flask.g`` in a thread of ours does."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def handle(self, record):
        if callable(self.error):
            self.error()
        raise self.error


@pytest.fixture
def broken(request):
    """A handler of the logger ``embedqueue`` that raises."""
    handler = Broken(getattr(request, "param", RuntimeError("working outside of application context")))
    logging.getLogger("embedqueue").addHandler(handler)
    yield handler
    logging.getLogger("embedqueue").removeHandler(handler)


def test_a_handler_that_raises_costs_its_record_only(broken, capsys):
    """And is told of once, on standard error, as logging does itself."""
    log = QueueLog("mine")
    for _ in range(2):
        log.warning("embedqueue: %s", "words")
    log.exception("embedqueue: %s", "words")
    said = capsys.readouterr().err
    assert said.count("a filter or handler of logging raised") == 1
    assert "working outside of application context" in said


@pytest.mark.parametrize(("stderr", "wanted"), [(None, True), ("there", False)])
def test_a_handler_that_raises_where_nobody_wants_to_know(broken, capsys, monkeypatch, stderr, wanted):
    """Under pythonw there is no standard error; ``logging.raiseExceptions`` is off in production."""
    monkeypatch.setattr(logging, "raiseExceptions", wanted)
    if stderr is None:
        monkeypatch.setattr(sys, "stderr", None)
    QueueLog("mine").warning("embedqueue: words")
    monkeypatch.undo()
    assert capsys.readouterr() == ("", "")


def test_words_that_raise_cost_their_record_only(caplog):
    """An error of a user's whose ``__str__`` is broken."""

    class Mute(Exception):
        def __str__(self):
            raise ValueError

    logger.error("embedqueue: %s", Mute())
    assert not caplog.records


def test_a_signal_that_comes_during_a_record_gets_through():
    """Ctrl-C, gunicorn's SystemExit and the exception of a time limit are not the handler's."""

    class TimeLimit(Exception):
        pass

    def end(number, frame):
        raise TimeLimit

    handler = Broken(lambda: signal.raise_signal(signal.SIGUSR1))
    before = signal.signal(signal.SIGUSR1, end)
    logging.getLogger("embedqueue").addHandler(handler)
    try:
        for action, error in ((end, TimeLimit), (lambda *_: sys.exit(3), SystemExit)):
            signal.signal(signal.SIGUSR1, action)
            with pytest.raises(error):
                logger.error("embedqueue: words")
        handler.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            logger.error("embedqueue: words")
    finally:
        logging.getLogger("embedqueue").removeHandler(handler)
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("broken", [SystemExit(1)], indirect=True)
def test_a_handler_that_ends_the_process_ends_no_thread_of_ours(broken):
    """Nobody would learn of it."""
    ended = []
    thread = threading.Thread(target=lambda: ended.append(logger.error("embedqueue: words")))
    thread.start()
    thread.join(45)
    assert ended == [None]


def test_a_record_stands_on_one_line_and_names_who_wrote_it(caplog):
    """Whatever is in a key or in a provider's words: line breaks, colours of terminals, turned writing, surrogates."""
    logger.error("embedqueue: %s failed %d times", "doc:1\r\n\x1b[31mCRITICAL \x9b\u2028\u202e\udce9", 3)
    (record,) = caplog.records
    assert record.getMessage() == (r"embedqueue: doc:1\r\n\x1b[31mCRITICAL \x9b\u2028\u202e\udce9 failed 3 times")
    assert (record.filename, record.funcName) == (
        "test_log.py",
        "test_a_record_stands_on_one_line_and_names_who_wrote_it",
    )


def refused():
    raise LookupError("no row for doc:1\x1b[2J\nCRITICAL admin logged in")


def refused_with_a_note():
    error = LookupError("no row")
    error.add_note("for doc:1\x1b[2J\nCRITICAL admin logged in")
    raise error


def refused_behind_another():
    try:
        refused()
    except LookupError as error:
        raise RuntimeError("the sink failed") from error


def refused_among_others():
    try:
        refused()
    except LookupError as error:
        raise ExceptionGroup("the sinks failed", [error, ExceptionGroup("again", [KeyError("doc:2"), error])]) from None


def refused_as_code():
    exec("x = 'doc:1\x1b[2J\nCRITICAL admin logged in'")


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    "work", [refused, refused_with_a_note, refused_behind_another, refused_among_others, refused_as_code]
)
def test_a_traceback_has_no_lines_but_its_own(caplog, work, given):
    """The words of an error stand on one line in it, wherever they stand, whether it is being handled or was kept."""
    caplog.set_level(logging.INFO, "embedqueue")
    try:
        work()
    except Exception as error:
        kept = error
        if given:
            logger.exception("embedqueue: %s failed", "doc:1")
    if not given:
        logger.error("embedqueue: %s failed", "doc:1", exc_info=kept)
    lines = caplog.text.splitlines()
    assert "\x1b" not in caplog.text
    assert any(r"doc:1\x1b[2J" in line for line in lines)
    assert not any(line.strip(" |").startswith("CRITICAL") for line in lines)
    assert any(f"in {work.__name__}" in line for line in lines), "the frames are there"


def test_a_traceback_with_nothing_odd_in_it_stays_an_error(caplog):
    """So that whoever collects errors gets it as one."""
    try:
        raise LookupError("no row")
    except LookupError:
        logger.exception("embedqueue: %s failed", "doc:1")
    (record,) = caplog.records
    assert isinstance(record.exc_info[1], LookupError)
    assert record.getMessage() == "embedqueue: doc:1 failed"


@pytest.mark.parametrize("broken", [RuntimeError("no room for doc:1\x1b[2J")], indirect=True)
def test_what_a_handler_raises_is_told_in_safe_words(broken, capsys):
    QueueLog("mine").warning("embedqueue: words")
    assert r"no room for doc:1\x1b[2J" in capsys.readouterr().err


def test_a_key_writes_no_lines_of_its_own(fake_redis, caplog):
    """In the log of a whole queue."""
    with EmbeddingBatchQueue(Choosy(), fake_redis) as queue:
        with pytest.raises(ItemRejected):
            queue.enqueue("doc:1\n00:00 CRITICAL admin logged in", SECRET_TEXT).result(45)
    assert any("admin logged in" in record.getMessage() for record in caplog.records)
    assert all("\n" not in record.getMessage() for record in caplog.records)
