"""How long a text is, as far as anybody knows without the model's tokenizer."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedqueue.calls.lengths import ADDED_TOKENS, Lengths, TooLong, beginning, careful_tokens, least_tokens
from embedqueue.demo.text import reference_passages
from embedqueue.embedders.text_limits import TextLimit

PROSE = " ".join(text for _, text in reference_passages())[:60_000]
CHINESE = "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。" * 200
RUSSIAN = "Каждый человек имеет право на жизнь, на свободу и на личную неприкосновенность. " * 200
RULES = ("-" * 120 + "\n") * 300
#: Texts, and how many tokens they have by a tokenizer of 32,000 pieces, or of 256,000 where that is far less.
TEXTS = {"prose": PROSE, "Chinese": CHINESE, "Russian": RUSSIAN, "JSON": json.dumps(PROSE.split())}


def fit(text, tokens, on_long="reject"):
    return Lengths(TextLimit(tokens, cuts=True), on_long, "m").fit(text)


@pytest.mark.parametrize("name", TEXTS)
def test_the_estimates_surround_the_tokens_of_a_tokenizer(name):
    """The one that rejects is below, by far; the one that cuts is about right."""
    tokenizers = pytest.importorskip("tokenizers")
    wordllama = pytest.importorskip("wordllama")
    from pathlib import Path

    file = Path(wordllama.__file__).parent / "tokenizers" / "l2_supercat_tokenizer_config.json"
    real = len(tokenizers.Tokenizer.from_file(str(file)).encode(TEXTS[name]).ids)
    assert least_tokens(TEXTS[name], len(TEXTS[name])) < real
    assert 0.8 * real < careful_tokens(TEXTS[name]) < 1.8 * real


@pytest.mark.parametrize(
    ("text", "tokens", "fits"),
    [
        ("", 1, True),
        ("word", 1, True),
        ("many words in a row", 4, False),
        ("many words in a row", 5, True),
        ("x" * 160, 9, True),  # one letter again and again may be few tokens
        ("abcdefgh" * 20, 9, False),
        ("abcdefgh" * 20, 10, True),
        (RULES, 400, True),
        ("人生而自由平" * 2, 2, False),
        ("人生而自由平" * 2, 3, True),
        (" " * 1000, 1, True),
    ],
    ids=lambda part: repr(part)[:20],
)
def test_only_what_is_certainly_too_long_is_rejected(text, tokens, fits):
    """What may fit is sent, and the provider decides."""
    if fits:
        assert fit(text, tokens) is text
    else:
        with pytest.raises(TooLong):
            fit(text, tokens)


def test_a_rejection_says_what_to_do():
    """How long it is, what the limit is, and the option."""
    with pytest.raises(TooLong) as rejected:
        fit(PROSE, 2048)
    words = str(rejected.value)
    assert f"{len(PROSE)} characters" in words and "takes 2048" in words and 'on_long="truncate"' in words


@pytest.mark.parametrize(
    "text", [PROSE, CHINESE, RUSSIAN, RULES, "x" * 9000, "Ab" * 9000, "🙂" * 900, " \n" * 900 + "z"]
)
def test_what_is_cut_fits_and_is_the_beginning(text):
    """Nothing is added, and it is not blank; cut a second time, it stays as it is."""
    cut = fit(text, 100, "truncate")
    assert text.startswith(cut) or text.lstrip().startswith(cut)
    assert cut.strip() and careful_tokens(cut) <= 100 - ADDED_TOKENS
    assert fit(cut, 100, "truncate") == cut


def test_most_of_the_room_is_used():
    """By the estimate; and words stay whole, unless they have no end."""
    cut = fit(PROSE, 1000, "truncate")
    assert careful_tokens(cut) > 980
    assert PROSE[len(cut)] == " "
    assert len(fit("x" * 9000, 1000, "truncate")) == 4 * (1000 - ADDED_TOKENS)
    assert fit("0123456789" * 10, 100, "truncate") == ("0123456789" * 10)[: 100 - ADDED_TOKENS]


def test_what_fits_is_not_cut():
    """The very object comes back, so that nothing is copied."""
    text = PROSE[:2000]
    assert fit(text, careful_tokens(text) + ADDED_TOKENS, "truncate") is text
    assert fit(text, 3000, "truncate") is text


@pytest.mark.parametrize(("limit", "on_long"), [(None, "truncate"), (None, None), (TextLimit(1, cuts=False), None)])
def test_what_nobody_knows_is_let_through(limit, on_long):
    """And what a provider refuses by itself."""
    assert Lengths(limit, on_long, "m").fit(PROSE) is PROSE


@given(st.text(max_size=300), st.integers(1, 60))
def test_any_text_is_cut_to_what_fits(text, tokens):
    """Whatever it is made of. One character stays at least, where there is any that is not blank."""
    cut = beginning(text, tokens)
    assert text.startswith(cut) or text.lstrip().startswith(cut)
    assert len(cut) <= 1 or careful_tokens(cut) <= tokens
    assert bool(cut.strip()) == bool(text.strip())


@given(st.lists(st.text(alphabet="abcdefghij", min_size=1, max_size=12), max_size=50))
def test_more_text_is_never_fewer_tokens(words):
    """Both estimates grow with the text."""
    texts = [" ".join(words[:count]) for count in range(len(words) + 1)]
    assert [careful_tokens(text) for text in texts] == sorted(careful_tokens(text) for text in texts)
    assert [least_tokens(text, 10) for text in texts] == sorted(least_tokens(text, 10) for text in texts)


def test_a_book_takes_no_time_to_cut():
    """The rest of it is not even looked at."""
    rng = random.Random(1)
    page = " ".join("".join(rng.choices("abcdefgh", k=6)) for _ in range(400))
    book = " ".join([page] * 1000)
    assert len(fit(book, 2048, "truncate")) < 20_000
