"""Before a command spends much: how many texts and tokens, and what they cost; and the question whether to go on.

Nobody knows what a backfill will cost before all of it was looked at, and to look twice would double its time. So the
estimate grows part by part, and the question comes when it passes a dollar, and again at each tenfold of that: it tells
what is known so far. What was enqueued before the question stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from embedqueue.backlog.inspection import Text
from embedqueue.money.cost import ASK_DOLLARS, tokens_and_dollars, usd
from embedqueue.money.prices import dollars_of, price_by
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.tokens import estimated_tokens

from .confirm import confirm


class Spending:
    """What a command has enqueued so far, and what that costs.

    Args:
        yes: the user has agreed beforehand.

    Attributes:
        texts: that were to be enqueued.
        tokens: of these, estimated.
        dollars: what those cost of which the price is known.
    """

    def __init__(self, *, yes: bool) -> None:
        self._yes = yes
        self._asks_beyond = ASK_DOLLARS
        self._unpriced: set[str] = set()
        self.texts = self.tokens = 0
        self.dollars = 0.0

    def before(
        self,
        queue: EmbeddingBatchQueue,
        hidden: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> Callable[[Sequence[Text]], None]:
        """What is to be called with texts before they are enqueued.

        Args:
            queue: that will embed them.
            hidden: makes a context in which the terminal is free for a question.

        Returns:
            A function; it raises ``EmbedQueueError`` where nobody agrees.
        """
        price = price_by(queue.options)
        if price is None:
            self._unpriced.add(queue.options.model)

        def spend(texts: Sequence[Text]) -> None:
            tokens = sum(estimated_tokens(text) for _, text in texts)
            more = dollars_of(tokens, price) or 0.0
            if self.dollars + more > self._asks_beyond and not self._yes:
                with hidden():
                    self._ask(len(texts), tokens, more)
            self.texts, self.tokens, self.dollars = self.texts + len(texts), self.tokens + tokens, self.dollars + more

        return spend

    def _ask(self, texts: int, tokens: int, dollars: float) -> None:
        said = tokens_and_dollars(self.texts + texts, self.tokens + tokens, self.dollars + dollars)
        confirm(
            f"{said} so far, and there may be more. Spend that?",
            yes=False,
            otherwise=f"nothing more was enqueued; {self.texts:,} texts are in, for about {usd(self.dollars)}",
        )
        while self._asks_beyond < self.dollars + dollars:
            self._asks_beyond *= 10

    @property
    def known_dollars(self) -> float | None:
        """What it costs; None where nobody has said what a model does."""
        return None if self._unpriced else self.dollars

    def told(self) -> str:
        """What was enqueued, as a sentence."""
        unknown = [f"nobody has said what {model} costs" for model in sorted(self._unpriced)]
        cost = "; ".join([*([f"about {usd(self.dollars)}"] if self.dollars or not unknown else []), *unknown])
        return f"That is about {self.tokens:,} tokens: {cost}"
