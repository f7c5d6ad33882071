"""Pure decisions about calls: which texts travel together, and how a call is cut when it is refused.

Nothing here knows of threads, clocks or Redis. Estimates of tokens only cut calls; they never reject a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from embedqueue.values.errors import CallTooLarge
from embedqueue.values.tokens import BYTES_PER_TOKEN, estimated_tokens

#: Part of a stated limit that we use: a provider may count a tenth more than we estimate (openai/tiktoken#366).
RESERVE = 0.9


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may hold.

    Attributes:
        texts: most texts.
        tokens: most estimated tokens; a longer text travels alone and the provider decides.
    """

    texts: int
    tokens: int

    def learn(self, refusal: CallTooLarge, texts: Sequence[str]) -> Limits:
        """The limits after a refusal of ``texts``, so that the next call is right at once.

        Args:
            refusal: what the provider said.
            texts: the call that it refused; more than one.
        """
        if refusal.measure == "texts":
            stated = refusal.limit if refusal.limit and refusal.limit < len(texts) else len(texts) // 2
            return replace(self, texts=max(1, min(self.texts, stated)))
        estimate = sum(map(estimated_tokens, texts))
        if refusal.limit and refusal.measure == "tokens" and refusal.limit < estimate:
            stated = int(refusal.limit * RESERVE)
        elif refusal.limit and refusal.measure == "bytes" and refusal.limit // BYTES_PER_TOKEN < estimate:
            stated = int(refusal.limit // BYTES_PER_TOKEN * RESERVE)
        else:
            stated = estimate // 2
        return replace(self, tokens=max(1, min(self.tokens, stated)))


#: Calls that have to go well, each as large as is allowed, before larger ones are tried: at first, and at most.
GROW_AFTER = (8, 512)


@dataclass(slots=True)
class Care:
    """How many texts calls hold after an errand: a call failed again and again, and its parts were served.

    A server that answers a list with one vector, or takes too long for a full call, would do so each time. After a call
    that had no answer in time, they hold half: perhaps the server is away, and perhaps that was too much for it.

    Attributes:
        texts: most texts of a call; None for no such limit.
    """

    texts: int | None = None
    _well: int = 0
    _grown: bool = False
    _grow_after: int = GROW_AFTER[0]

    def begin(self, served: int) -> None:
        """Calls hold so many texts for now. If they have just grown, they wait longer before they do so again."""
        if self._grown:
            self._grow_after = min(2 * self._grow_after, GROW_AFTER[1])
        self.texts = served if self.texts is None else min(served, self.texts)
        self._well, self._grown = 0, False

    def served(self, count: int, most: int) -> None:
        """A call of ``count`` texts was served; ``most`` is what calls may hold at all."""
        if self.texts is None or count < self.texts:
            return
        self._well += 1
        if self._well >= self._grow_after:
            self.texts, self._well, self._grown = self.texts + max(1, self.texts // 2), 0, True
            if self.texts >= most:
                self.texts = None


def cut(texts: Iterable[str], limits: Limits) -> list[list[str]]:
    """Cut texts into calls, in order, none larger than the limits.

    Args:
        texts: distinct texts.
        limits: of one call.

    Returns:
        At least one text a call; a text over the token limit is alone.
    """
    calls: list[list[str]] = []
    tokens = 0
    for text in texts:
        estimate = estimated_tokens(text)
        if not calls or len(calls[-1]) >= limits.texts or tokens + estimate > limits.tokens:
            calls.append([])
            tokens = 0
        calls[-1].append(text)
        tokens += estimate
    return calls


def split(texts: Sequence[str], culprit: int | None) -> list[list[str]]:
    """Cut a refused call so that a bad text is found in O(log n) calls.

    Args:
        texts: the call, more than one text.
        culprit: position of the text that the provider named, or None.

    Returns:
        The culprit and the others, or two halves.
    """
    if culprit is not None and 0 <= culprit < len(texts):
        # The culprit first: if the others succeed after it, they have spoken for the provider, and no canary is needed.
        return [[texts[culprit]], [*texts[:culprit], *texts[culprit + 1 :]]]
    middle = len(texts) // 2
    return [list(texts[:middle]), list(texts[middle:])]
