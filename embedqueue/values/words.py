"""Words from outside, made fit for a log, a terminal and Redis: no text of a user, no secret, no control character."""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from urllib.parse import parse_qsl, unquote, urlsplit

#: A quotation is at least so many letters and digits of a text in a row; an ideograph counts as three.
QUOTED_CHARS = 12
#: A shorter text tells nobody anything, and a shorter secret is none.
_LEAST_TEXT_CHARS = 3
_LEAST_SECRET_CHARS = 4
#: Characters of an error's words that are read, and that are shown: enough to act on, too few to flood a log. Words are
#: cut to the latter when all else is done.
READ_CHARS = 2000
SHOWN_CHARS = 500

#: What a terminal obeys, what ends a line, what turns the direction of writing, and what has no form in UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

#: One character as JSON, repr(), HTML, URLs and protocol buffers escape it, once or several times over.
_ESCAPE = (
    r"(?<!\\)\\+(?:U(?P<point>000[0-9a-f]{5}|0010[0-9a-f]{4})|u\{(?P<braced>[0-9a-f]{1,5})\})"
    r"|(?P<units>(?<!\\)\\+u[0-9a-f]{4}(?:\\+u[0-9a-f]{4})*)"
    r"|(?P<bytes>(?<!\\)\\+x[0-9a-f]{2}(?:\\+x[0-9a-f]{2})*)"
    r"|(?P<octal>(?<!\\)\\+[0-3][0-7]{2}(?:\\+[0-3][0-7]{2})*)"
    r"|(?P<control>(?<!\\)\\+[a-z0])"
    r"|(?P<percent>(?:%(?:25)*[0-9a-f]{2})+)"
    r"|&(?:amp;)*(?P<entity>#?[0-9a-z]{1,31};)"
)
_NO_LETTERS = re.compile(r"[\W_]+")
_IDEOGRAPH = re.compile("[^\x00-\u2e7f]")

#: An address without query. What stands before an "@" is not part of ``rest``, which is shown.
_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)?(?:[^/]*@)?"
    r"(?P<rest>(?:(?:[\w.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?)?(?:/[^@]*)?)",
    re.I,
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,15}(?=:)", re.I)


@cache  # made for the first error: it takes longer than to import this file
def _escape() -> re.Pattern[str]:
    return re.compile(_ESCAPE, re.I)


@cache
def _token() -> re.Pattern[str]:
    """One character, escaped or not."""
    return re.compile(f"{_ESCAPE}|.", re.I | re.S)


def printable(text: str) -> str:
    """The same on one line: control characters, line breaks, bidi marks and lone surrogates as Python escapes them."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def said_by(error: BaseException, texts: Sequence[str] = ()) -> str:
    """What an error says, or its type where it says nothing, without the texts that it may quote.

    Args:
        error: whosesoever.
        texts: of the call that failed.
    """
    try:
        said = printable(without_texts(words_of(error)[:READ_CHARS], texts))[:SHOWN_CHARS]
    except Exception:  # whoever gives items back must be able to say something
        said = ""
    return said or type(error).__name__


def words_of(error: BaseException) -> str:
    """What an error says, as it stands; nothing where even that raises."""
    try:
        return str(error)
    except Exception:
        return ""


def without_texts(words: str, texts: Iterable[str]) -> str:
    """Take out quotations of texts, in any usual escaping.

    A short text is taken out where it stands as a word of its own. From the first quotation of a longer one on, all is.

    Args:
        words: of a provider or an embedder, not more than a few thousand characters.
        texts: that they may quote.
    """
    letters = _LettersOf(words)
    shorts, longs = _short_and_long(texts, _LEAST_TEXT_CHARS)
    end = min((start for start, _ in letters.quotations(longs)), default=len(words))
    spans = [span for short in shorts for span in letters.occurrences(short, as_word=True) if span[1] <= end]
    return _marked(words[:end], spans, "[text]") + ("[text]" if end < len(words) else "")


def without_secrets(words: str, secrets: Iterable[str]) -> str:
    """Take out secrets, and parts of them that are ``QUOTED_CHARS`` long or longer, in any usual escaping.

    Args:
        words: as with :func:`without_texts`.
        secrets: see :func:`forms`.
    """
    letters = _LettersOf(words)
    shorts, longs = _short_and_long(secrets, _LEAST_SECRET_CHARS)
    spans = letters.quotations(longs) + [span for short in shorts for span in letters.occurrences(short)]
    return _marked(words, spans, "[key]")


def forms(value: str) -> Iterator[str]:
    """The forms in which a secret may come back, beside usual escapings.

    Args:
        value: of a header or an address: a key, ``Bearer KEY``, ``Basic BASE64``, ``user:password``.
    """
    scheme, _, credentials = value.strip().rpartition(" ")
    values = [value, credentials]
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(credentials).decode()
        except ValueError:
            pair = ""
        values += [pair, pair.partition(":")[2]]
    for one in values:
        yield one
        yield base64.b64encode(one.encode("utf-8", "replace")).decode()


def secrets_of(url: str) -> Iterator[str]:
    """User, password and the values of the query of an URL, in all their forms.

    Args:
        url: any; of one that cannot be parsed, nothing can be sent.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    pair = unquote(parts.netloc.rpartition("@")[0])
    for value in (pair, *pair.split(":", 1), *(value for _, value in parse_qsl(parts.query))):
        yield from forms(value)


def shown_url(url: str) -> str:
    """An URL as people may see it: without user, password and query; of one that cannot be parsed, next to nothing.

    Args:
        url: any, even a broken one.

    Returns:
        Scheme, host, port and path; or what stands before the first colon.
    """
    plain = re.split("[?#]", url, maxsplit=1)[0]
    found = _ADDRESS.fullmatch(plain)
    if found and "@" not in url[len(plain) :]:  # else a password holds what it should not
        return printable((found["scheme"] or "") + found["rest"])
    scheme = _SCHEME.match(plain)
    return f"{scheme[0]}:***" if scheme else "***"


class _LettersOf:
    """The letters and digits of some words without their escapings, and where in the words each of them stands."""

    def __init__(self, words: str) -> None:
        self._tokens = [
            (*found.span(), _letters(found[0])) for found in _token().finditer(words)
        ]  # start, stop, letters
        self._text = "".join(letters for _, _, letters in self._tokens)
        self._token_at = [token for token, (_, _, letters) in enumerate(self._tokens) for _ in letters]

    def quotations(self, longs: Iterable[str]) -> list[tuple[int, int]]:
        """Spans of the words, each of ``QUOTED_CHARS`` letters that are those of one of ``longs``."""
        text, half = self._text, QUOTED_CHARS // 2
        starts = range(len(text) - QUOTED_CHARS + 1)
        if not starts:
            return []
        runs = {text[at : at + QUOTED_CHARS] for at in starts}
        halves = {text[at : at + half] for at in range(len(text) - half + 1)}
        found: set[str] = set()
        for long in longs:
            # In every run lies a half that begins at a multiple of its length, so a sixth of the places is looked at.
            for at in range(0, len(long) - half + 1, half):
                if long[at : at + half] in halves:
                    found.update(long[start : start + QUOTED_CHARS] for start in range(max(0, at - half), at + 1))
        found &= runs
        return [self._span(at, QUOTED_CHARS) for at in starts if text[at : at + QUOTED_CHARS] in found]

    def occurrences(self, short: str, *, as_word: bool = False) -> list[tuple[int, int]]:
        """Spans of the words that are ``short``; ``as_word``: with no letter beside it, unless it is of ideographs."""
        found, at = [], self._text.find(short)
        while at >= 0:
            before, behind = self._token_at[at] - 1, self._token_at[at + len(short) - 1] + 1
            if not as_word or _IDEOGRAPH.match(short) or not (self._is_letter(before) or self._is_letter(behind)):
                found.append(self._span(at, len(short)))
            at = self._text.find(short, at + 1)
        return found

    def _is_letter(self, token: int) -> bool:
        return 0 <= token < len(self._tokens) and bool(self._tokens[token][2])

    def _span(self, at: int, length: int) -> tuple[int, int]:
        return self._tokens[self._token_at[at]][0], self._tokens[self._token_at[at + length - 1]][1]


def _letters(text: str) -> str:
    """The letters and digits of a text, whatever its escaping and case; see :func:`_letters_as_they_stand`."""
    return _letters_as_they_stand(_unescaped(text))


def _letters_as_they_stand(text: str) -> str:
    """Letters and digits in lower case and without accents; ideographs thrice."""
    if not text.isascii():
        text = _IDEOGRAPH.sub(r"\g<0>\g<0>\g<0>", unicodedata.normalize("NFKD", text))
    return _NO_LETTERS.sub("", text.casefold())


def _unescaped(text: str) -> str:
    return _escape().sub(_meaning, text) if "\\" in text or "%" in text or "&" in text else text


def _meaning(found: re.Match[str]) -> str:
    """The characters for which an escape stands; a line break or the like is a space."""
    kind, body = found.lastgroup, found[found.lastgroup or 0]
    if kind == "control":
        return " "
    if kind == "entity":
        import html  # its table of names is large

        return html.unescape(f"&{body}")
    if kind in ("point", "braced"):
        return chr(int(body, 16))
    if kind == "units":
        units = "".join(chr(int(unit, 16)) for unit in re.findall("u([0-9a-f]{4})", body, re.I))
        return units.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    digits, base = (r"[0-7]{3}", 8) if kind == "octal" else (r"(?:x|%(?:25)*)([0-9a-f]{2})", 16)
    raw = bytes(int(byte, base) for byte in re.findall(digits, body, re.I))
    return raw.decode("utf-8", "ignore") or raw.decode("latin-1")


def _short_and_long(values: Iterable[str], least: int) -> tuple[set[str], set[str]]:
    """The letters of values: of those that are looked for whole, and of those of which a part is a quotation.

    Args:
        values: texts or secrets.
        least: shorter ones are not looked for.
    """
    letters: set[str] = set()
    for value in values:  # also as it stands: what looks like an escape in it may itself be escaped in another way
        letters.update(map(_letters_as_they_stand, {value, _unescaped(value)}))
    shorts = {one for one in letters if least <= len(one) < QUOTED_CHARS}
    return shorts, {one for one in letters if len(one) >= QUOTED_CHARS}


def _marked(words: str, spans: Iterable[tuple[int, int]], mark: str) -> str:
    """The words with a mark in place of each span; spans with no letter between them share one."""
    shown, end = "", 0
    for start, stop in sorted(spans):
        if not shown or (start > end and _letters(words[end:start])):
            shown += words[end:start] + mark
        end = max(end, stop)
    return shown + words[end:]
