"""Words from outside: whatever they quote of a text or a secret, in any usual escaping, nobody sees."""

from __future__ import annotations

import base64
import html
import json
import re
from urllib.parse import quote, quote_plus

import pytest

from embedqueue.values.words import forms, printable, said_by, secrets_of, shown_url, without_secrets, without_texts

TEXTS = [
    'I\'ve "HIV"\nand nobody may know of it',
    "Anna Müller-Lüdenscheidt, né le 3 août, <b>Größe</b> 1,80 m & 70 kg",
    "у пациентки Анны обнаружен диабет второго типа",
    "患者张伟被诊断为二型糖尿病需要长期治疗",
    "C:\\Users\\ada\\new\\table.txt is 100%25 her own\tdiary\x00",
    "😀 the diary of a day in August 😀",
]
ESCAPES = {
    "as it stands": str,
    "repr": repr,
    "ascii": ascii,
    "bytes": lambda text: repr(text.encode()),
    "octal": lambda text: "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\{b:03o}" for b in text.encode()),
    "JSON": json.dumps,
    "JSON in JSON": lambda text: json.dumps(json.dumps({"input": text})),
    "JSON without ASCII in repr": lambda text: repr(json.dumps(text, ensure_ascii=False)),
    "HTML": html.escape,
    "HTML twice": lambda text: html.escape(html.escape(text)),
    "HTML by numbers": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "HTML by hex": lambda text: "".join(f"&#x{ord(c):X};" for c in text),
    "URL": quote,
    "form": quote_plus,
    "URL twice": lambda text: quote(quote(text)),
    "Rust": lambda text: "".join(c if c.isascii() else f"\\u{{{ord(c):x}}}" for c in text),
    "lower case": str.lower,
    "white space": lambda text: " ".join(text.split()),
}


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
@pytest.mark.parametrize("text", TEXTS)
def test_a_quoted_text(text, escape):
    """Whole, from its middle, or cut off as providers do: the provider's own words before it are what is left."""
    letters = set(re.findall(r"\w{3,}", text.casefold()))
    for part in (text, text[:32], text[4:], text[-32:]):
        shown = without_texts(f"cannot embed: {escape(part)} at row 3", ["another text of the call", text])
        assert shown.startswith("cannot embed: ") and shown.endswith("[text]"), shown
        assert not [word for word in letters if word in shown.casefold()], shown


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("cannot embed HIV", "cannot embed [text]"),
        ("cannot embed 'HIV'; HIV-positive is hivernal", "cannot embed '[text]-positive is hivernal"),
        (r"input='\nHIV\n'", r"input='\n[text]\n'"),
        ("KeyError: '糖尿'", "KeyError: '[text]'"),
        ("输入糖尿无效", "输入[text]无效"),
        ("no model of that name", "no model of that name"),
    ],
)
def test_a_short_text(words, shown):
    """It is recognised as a word of its own; ideographs have no words. One or two letters tell nobody anything."""
    assert without_texts(words, ["HIV", "糖尿", "no", "", "  "]) == shown


def test_words_of_the_providers_own_stay():
    """Long ones and short ones."""
    words = "Rate limit reached for model m: limit 3000, used 2990, requested 11. Try again in 20ms."
    assert without_texts(words, ["The limit of the atmosphere is reached at the model of a sphere.", "dogs"]) == words


def test_what_an_error_says():
    """On one line, not longer than a log bears; its type, where it says nothing or cannot."""

    class Mute(Exception):
        def __str__(self):
            raise ValueError

    class Odd(str):
        def __getitem__(self, at):
            raise ValueError

    class Strange(Exception):
        def __str__(self):
            return Odd("text")

    assert said_by(Strange()) == "Strange"
    assert said_by(ValueError("cannot embed 'HIV'\n\x1b[0m"), ["HIV"]) == r"cannot embed '[text]'\n\x1b[0m"
    assert (said_by(ValueError()), said_by(Mute())) == ("ValueError", "Mute")
    assert len(said_by(ValueError("x" * 10**6), ["y" * 10**6])) <= 500


KEY = "sk-Ab/0123+456789=hunter2"


@pytest.mark.parametrize(
    "said",
    [KEY, repr(KEY), json.dumps(KEY).replace("/", "\\/"), quote(KEY, safe=""), quote_plus(quote(KEY, safe="")),
     html.escape(KEY), KEY.upper(), KEY[:20], base64.b64encode(KEY.encode()).decode()],
)  # fmt: skip
def test_a_secret(said):
    """In every form in which a server may say it; what stands around it is kept."""
    for header in (KEY, f"Bearer {KEY}"):
        shown = without_secrets(f"the key {said} is not valid", forms(header))
        assert shown.startswith("the key ") and shown.endswith(" is not valid")
        assert not any(part in shown.lower() for part in ("0123", "hunter", said.lower()[2:12])), shown


def test_secrets_of_an_address_and_of_basic_authentication():
    """User, password, their base64, values of the query."""
    secrets = [*secrets_of("https://ada:pass%2Fword@host/v1?token=t0k3n&v=1")]
    pair = base64.b64encode(b"ada:pass/word").decode()
    said = f"ada:pass/word, pass%2Fword, Basic {pair}, t0k3n"
    assert without_secrets(said, secrets) == "[key], Basic [key]"
    shown = without_secrets(said, forms(f"Basic {pair}"))
    assert "word" not in shown and pair not in shown
    assert [*secrets_of("http://[broken")] == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user:hunter2@h:6379/0?password=hunter2", "redis://h:6379/0"),
        ("rediss://:hunter2@[::1]:6379/0", "rediss://[::1]:6379/0"),
        ("unix://:hunter2@/run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("localhost:6379", "localhost:6379"),
        ("https://user:hunter2@host/v1/models/m:embed#hunter2", "https://host/v1/models/m:embed"),
        ("redis:/:hunter2@h/0", "redis:***"),
        ("redis:hunter2@h/0", "h/0"),
        ("redis//:hunter2@h/0", "***"),
        (":hunter2@h/0", "h/0"),
        ("redis://:hunter/2@h/0", "redis:***"),
        ("redis://:hun?ter2@h/0", "redis:***"),
        ("redis://:hun#ter2@h/0", "redis:***"),
        ("redis://:12?hunter2@h/0", "redis:***"),
        ("redis://:12/hunter2@h/0", "redis:***"),
        ("redis://:a@hunter2@h/0", "redis://h/0"),
        ("redis://:hunter2", "redis:***"),
        ("redis://h:port/0", "redis:***"),
        ("redis://[hunter2@h", "redis://h"),
        ("redis://h/\n\x1b[0m", r"redis://h/\n\x1b[0m"),
    ],
)
def test_an_url_as_people_may_see_it(url, shown):
    """Of a form that nobody foresaw, nothing but its scheme."""
    assert shown_url(url) == shown
    assert not {"hunter", "hun", "ter2", "12"} & set(shown.replace("/", " ").split())


def test_printable():
    """What is to be seen stays."""
    assert printable("Grüße, 世界, 😀, \\n") == "Grüße, 世界, 😀, \\n"
    assert printable("a\tb\x85\u2066") == r"a\tb\x85\u2066"


def test_credentials_that_are_no_base64():
    """A header that only looks like HTTP's own is hidden as it stands."""
    assert without_secrets("it said Basic no*base64 to us", forms("Basic no*base64")) == "it said [key] to us"
