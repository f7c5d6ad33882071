"""Dead letters as pages show them: what is hidden, which reasons are one, what forms call them, and page by page."""

from __future__ import annotations

import re

import pytest

from embedqueue import InputRejected
from embedqueue.operating import hiding, shown
from embedqueue.operating.estimate import estimate
from embedqueue.testing import FakeEmbedder, eager_queue
from embedqueue.values.stats import DeadLetter


def letter(reason: str, text: str, key: str = "doc:1", member: bytes = b"{}") -> DeadLetter:
    return DeadLetter(key, text, reason, 0.0, 1, member)


@pytest.mark.parametrize(
    ("reason", "text", "seen"),
    [
        ("answered 400: too long", "a text of its own", "answered 400: too long"),
        ("cannot embed 'a secret text that is long'", "a secret text that is long", "cannot embed '[…]'"),
        ("cannot embed 'a secret text th...'", "a secret text that is long", "cannot embed '[…]...'"),
        ("cannot embed 'hunter2'", "hunter2", "cannot embed '[…]'"),
        ("cannot embed '++--++--++--++--'", "++--++--++--++--", "cannot embed '[…]'"),
        (r'{"input": "Jane Doe\n12 Elm St\nHIV pos."}', "Jane Doe\n12 Elm St\nHIV pos.", '{"input": "[text]'),
        (r"no: '\u0442\u0430\u0439\u043d\u0430 \u043c\u043e\u044f'", "тайна моя", "no: '[text]'"),
        (
            r"no: '\u0442\u0430\u0439\u043d\u0430, \u043c\u043e\u044f \u0442\u0430\u0439\u043d\u0430...'",
            "тайна, моя тайна",
            "no: '[text]",
        ),
        ("refused JANE%20DOE%2C%20HIV%20positive", "Jane Doe, HIV positive", "refused [text]"),
        ("no", "no", "no"),
    ],
)
def test_what_a_reason_quotes_of_the_text_is_left_out(reason, text, seen):
    """Unless texts are shown."""
    assert hiding.Reader(False).reason_of(letter(reason, text)) == seen
    assert hiding.Reader(True).reason_of(letter(reason, text)) == reason


def test_a_reason_of_a_cut_text_is_shown_as_far_as_it_is_known_to_quote_nothing():
    """What the cut text no longer holds may be quoted; words that another letter was given are no quotation."""
    cut = DeadLetter("doc:2", "the beginning", "8192 tokens, not 9417", 0.0, 1, b"", 10_000_000)
    quoting = DeadLetter("doc:3", "the beginning", "flagged: a secret from the middle", 0.0, 1, b"", 10_000_000)
    reader = hiding.Reader(False)
    assert reader.reason_of(cut) == hiding.WITHHELD
    reader.reason_of(letter("8192 tokens, not 9000", "a text"))
    reader.reason_of(letter("flagged: a secret from the middle", "a secret from the middle"))
    assert reader.reason_of(cut) == "[…] tokens, not […]"
    assert reader.reason_of(quoting) == hiding.WITHHELD
    withheld = [one for one in shown.reasons(reader, [cut, quoting]) if one.words == hiding.WITHHELD]
    assert [one.id for one in withheld] == [""]
    assert not shown.died_of(reader, quoting, "")
    assert hiding.Reader(True).reason_of(quoting) == quoting.reason


def test_reasons_that_differ_in_numbers_are_one():
    """In the words of the latest."""
    dead = [letter("8192 tokens, not 9000", "a"), letter("wrong type", "b"), letter("8192 tokens, not 10000", "c")]
    reader = hiding.Reader(False)
    found = shown.reasons(reader, dead)
    assert [(reason.words, reason.count) for reason in found] == [("8192 tokens, not 9000", 2), ("wrong type", 1)]
    assert [shown.died_of(reader, one, found[0].id) for one in dead] == [True, False, True]


@pytest.mark.parametrize("name", ["doc:1", "ключ:ü", 'a"b<c>&d', "x" * 301, b"\xff\x00 not ours"])
def test_forms_hold_any_name_as_plain_letters(name):
    """Short enough for a form, and safe in it."""
    found = shown.form_id(name)
    assert re.fullmatch(r"[\w-]+", found)
    assert len(found) < 500


@pytest.fixture
def queue(redis_client):
    """A queue with 60 dead letters, doc:0 the oldest; a third of them died for another reason."""

    def rule(texts):
        odd = any(int(text.split()[-1]) % 3 == 0 for text in texts if "bad" in text)
        return InputRejected("flagged" if odd else "too long") if any("bad" in text for text in texts) else None

    with eager_queue(FakeEmbedder(rule=rule), redis_client) as made:
        made.enqueue("good", "good")
        for at in range(60):
            made.enqueue(f"doc:{at}", f"bad text {at}")
        yield made


def numbers(page) -> list[int]:
    return [int(letter.redis_key[4:]) for letter in page.letters]


def behind(queue, page) -> int:
    return queue._engine.store.dead.newer(page.last.died_at, shown.name_of(page.last))


def test_pages_go_on_behind_a_letter_whatever_comes_and_goes(queue):
    """A new one in front moves nothing; the letter itself may be gone."""
    first = shown.page_of(queue, 0, 60)
    assert numbers(first) == list(range(59, 34, -1))
    queue.enqueue("doc:60", "bad text 60")
    second = shown.page_of(queue, behind(queue, first), 61)
    assert numbers(second) == list(range(34, 9, -1))
    queue.discard_dead(["doc:10", "doc:50", "doc:51"])
    third = shown.page_of(queue, behind(queue, second), 58)
    assert (numbers(third), third.last) == (list(range(9, -1, -1)), None)


def test_a_place_behind_a_letter_that_no_form_can_name_is_a_number(queue):
    """Its key is too long for a form."""
    dead = shown.listing(queue, True, older=f"1.0~d{'a' * 40}~25").letters
    assert [one.key for one in dead[:2]] == ["doc:34", "doc:33"]


def test_letters_of_one_reason_page_by_page(queue, monkeypatch):
    """Each look goes on where the one before has stopped, also if it has found little."""
    reader = hiding.Reader(False)
    flagged = next(one for one in shown.reasons(reader, shown.latest(queue)) if one.words == "flagged")
    assert flagged.count == 20
    page = shown.page_of_reason(queue, reader, flagged.id, 0)
    assert (numbers(page), page.last, page.looked) == (list(range(57, -1, -3)), None, 60)
    monkeypatch.setattr(shown, "FILTERED_LETTERS", 10)
    seen, offset = [], 0
    while True:
        page = shown.page_of_reason(queue, reader, flagged.id, offset)
        seen += numbers(page)
        assert page.looked <= 10
        if page.last is None:
            break
        offset = behind(queue, page)
    assert seen == list(range(57, -1, -3))
    assert len(shown.of_reason(queue, reader, flagged.id)) == 20


def test_what_a_retry_costs(queue, monkeypatch):
    """Counted from the letters that are there; of very many, from the first of them."""
    told = estimate(queue, None, {queue.options.model: 2.0})
    assert (told.letters, told.looked) == (60, 60)
    assert re.fullmatch(r"60 texts of about \d+ tokens, about \$0\.00\d+", told.words)
    some = estimate(queue, ["doc:1", b"doc:2", "not there"], {})
    assert (some.letters, some.tokens) == (2, told.tokens // 30)
    monkeypatch.setattr("embedqueue.operating.estimate.LOOKED_LETTERS", 10)
    guessed = estimate(queue, None, {})
    assert (guessed.letters, guessed.looked) == (60, 10)
    assert abs(guessed.tokens - told.tokens) < 60
