"""Words from outside, made fit for a log, a terminal and Redis: no text of a user, no secret, no control character."""

from __future__ import annotations

import base64
import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import parse_qsl, unquote, urlsplit

#: So many letters and digits in a row that are those of a text are a quotation of it; ideographs count thrice.
QUOTED_CHARS = 12
#: Shorter texts than this tell nobody anything; shorter secrets are none.
_LEAST_TEXT_CHARS = 3
_LEAST_SECRET_CHARS = 4
#: Characters of an error's words that are looked at, and that are shown. What is shown is cut last.
READ_CHARS = 2000
SHOWN_CHARS = 500

#: What a terminal obeys, what ends a line, what turns the direction of writing, and what has no form in UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

#: How JSON, repr(), HTML, URLs and protocol buffers write a character, also escaped again by whoever handed it on.
_ESCAPE = re.compile(
    r"(?<!\\)\\+(?:U(?P<point>000[0-9a-f]{5}|0010[0-9a-f]{4})|u\{(?P<braced>[0-9a-f]{1,5})\})"
    r"|(?P<units>(?<!\\)\\+u[0-9a-f]{4}(?:\\+u[0-9a-f]{4})*)"
    r"|(?P<bytes>(?<!\\)\\+x[0-9a-f]{2}(?:\\+x[0-9a-f]{2})*)"
    r"|(?P<octal>(?<!\\)\\+[0-3][0-7]{2}(?:\\+[0-3][0-7]{2})*)"
    r"|(?P<control>(?<!\\)\\+[a-z0])"
    r"|(?P<percent>(?:%(?:25)*[0-9a-f]{2})+)"
    r"|&(?:amp;)*(?P<entity>#?[0-9a-z]{1,31};)",
    re.I,
)
_TOKEN = re.compile(rf"{_ESCAPE.pattern}|.", re.I | re.S)
_NO_LETTERS = re.compile(r"[\W_]+")
_IDEOGRAPH = re.compile("[\u2e80-\U0010ffff]")

#: An address without query. What stands before an "@" is not shown; of what has another form, nothing is.
_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)?(?:[^/]*@)?"
    r"(?P<rest>(?:(?:[\w.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?)?(?:/[^@]*)?)",
    re.I,
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,15}(?=:)", re.I)


def printable(text: str) -> str:
    """The same on one line: control characters, line breaks, bidi marks and lone surrogates as Python escapes them."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def said_by(error: BaseException, texts: Sequence[str] = ()) -> str:
    """What an error says, or its type where it says nothing, without the texts that it may quote.

    Args:
        error: whosesoever.
        texts: of the call that failed.
    """
    said = words_of(error)[:READ_CHARS]
    return printable(without_texts(said, texts))[:SHOWN_CHARS] or type(error).__name__


def words_of(error: BaseException) -> str:
    """What an error says, as it stands; nothing where even that raises."""
    try:
        return str(error)
    except Exception:
        return ""


def without_texts(words: str, texts: Iterable[str]) -> str:
    """Take out quotations of texts, in any usual escaping: short texts as words of their own, else all from there on.

    Args:
        words: of a provider or an embedder, not more than a few thousand characters.
        texts: that they may quote.
    """
    letters = _Letters(words)
    shorts, longs = _parted(texts, _LEAST_TEXT_CHARS)
    end = min((start for start, _ in letters.runs(longs)), default=len(words))
    spans = [span for short in shorts for span in letters.places(short, alone=True) if span[1] <= end]
    return _replaced(words[:end], spans, "[text]") + ("[text]" if end < len(words) else "")


def without_secrets(words: str, secrets: Iterable[str]) -> str:
    """Take out secrets and longer parts of them, in any usual escaping.

    Args:
        words: as with :func:`without_texts`.
        secrets: see :func:`forms`.
    """
    letters = _Letters(words)
    shorts, longs = _parted(secrets, _LEAST_SECRET_CHARS)
    spans = letters.runs(longs) + [span for short in shorts for span in letters.places(short)]
    return _replaced(words, spans, "[key]")


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


class _Letters:
    """The letters and digits that some words come to, and where in the words each of them stands."""

    def __init__(self, words: str) -> None:
        self._tokens = [(*found.span(), _plain(found[0])) for found in _TOKEN.finditer(words)]
        self._text = "".join(plain for _, _, plain in self._tokens)
        self._owners = [at for at, (_, _, plain) in enumerate(self._tokens) for _ in plain]

    def runs(self, longs: Iterable[str]) -> list[tuple[int, int]]:
        """Where ``QUOTED_CHARS`` in a row are those of one of these."""
        text, half = self._text, QUOTED_CHARS // 2
        starts = range(len(text) - QUOTED_CHARS + 1)
        if not starts:
            return []
        runs = {text[at : at + QUOTED_CHARS] for at in starts}
        halves = {text[at : at + half] for at in range(len(text) - half + 1)}
        found: set[str] = set()
        for long in longs:
            # in every run lies a half that begins at a multiple of its length: a sixth of the work
            for at in range(0, len(long) - half + 1, half):
                if long[at : at + half] in halves:
                    found.update(long[start : start + QUOTED_CHARS] for start in range(max(0, at - half), at + 1))
        found &= runs
        return [self._span(at, QUOTED_CHARS) for at in starts if text[at : at + QUOTED_CHARS] in found]

    def places(self, short: str, *, alone: bool = False) -> list[tuple[int, int]]:
        """Where this stands; ``alone``: with no other letter before or behind it, where words have ends at all."""
        found, at = [], self._text.find(short)
        while at >= 0:
            before, behind = self._owners[at] - 1, self._owners[at + len(short) - 1] + 1
            if not alone or _IDEOGRAPH.match(short) or not (self._letter(before) or self._letter(behind)):
                found.append(self._span(at, len(short)))
            at = self._text.find(short, at + 1)
        return found

    def _letter(self, token: int) -> str:
        return self._tokens[token][2] if 0 <= token < len(self._tokens) else ""

    def _span(self, at: int, length: int) -> tuple[int, int]:
        return self._tokens[self._owners[at]][0], self._tokens[self._owners[at + length - 1]][1]


def _plain(text: str) -> str:
    """What is left of a text in every escaping and case: letters and digits without accents, ideographs thrice."""
    return _letters(_unescaped(text))


def _letters(text: str) -> str:
    if not text.isascii():
        text = _IDEOGRAPH.sub(r"\g<0>\g<0>\g<0>", unicodedata.normalize("NFKD", text))
    return _NO_LETTERS.sub("", text.casefold())


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_meant, text) if "\\" in text or "%" in text or "&" in text else text


def _meant(found: re.Match[str]) -> str:
    kind, body = found.lastgroup, found[found.lastgroup or 0]
    if kind == "control":
        return " "
    if kind == "entity":
        return html.unescape(f"&{body}")
    if kind in ("point", "braced"):
        return chr(int(body, 16))
    if kind == "units":
        units = "".join(chr(int(unit, 16)) for unit in re.findall("u([0-9a-f]{4})", body, re.I))
        return units.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    digits, base = (r"[0-7]{3}", 8) if kind == "octal" else (r"(?:x|%(?:25)*)([0-9a-f]{2})", 16)
    raw = bytes(int(byte, base) for byte in re.findall(digits, body, re.I))
    return raw.decode("utf-8", "ignore") or raw.decode("latin-1")


def _parted(values: Iterable[str], least: int) -> tuple[set[str], set[str]]:
    """Those that are only found whole, and those of which a part is told."""
    plain: set[str] = set()
    for value in values:  # also as it stands: what looks like an escape in it may itself be escaped in another way
        plain.update(map(_letters, {value, _unescaped(value)}))
    shorts = {one for one in plain if least <= len(one) < QUOTED_CHARS}
    return shorts, {one for one in plain if len(one) >= QUOTED_CHARS}


def _replaced(words: str, spans: Iterable[tuple[int, int]], mark: str) -> str:
    """With a mark for each span, and one for spans with no letter between them."""
    shown, end = "", 0
    for start, stop in sorted(spans):
        if not shown or (start > end and _plain(words[end:start])):
            shown += words[end:start] + mark
        end = max(end, stop)
    return shown + words[end:]
