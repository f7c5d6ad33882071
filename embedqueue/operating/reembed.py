"""Embedding all texts anew into a second field: what it takes, and putting in what is missing there.

The second field is that of a queue of its own, whose namespace is ``NAMESPACE:FIELD``. While it is being filled, every
enqueue goes to both queues by one script. So what is looked at here is only what was there before; whatever stops it,
the same command goes on, and what stands in the hashes by then is not paid for again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import redis

from embedqueue.backlog.inspection import LOOK_ITEMS, RIGHT, WAITING, Found, Text, hashes_with_text, inspect
from embedqueue.embedders.protocol import learned_dimensions, role_of
from embedqueue.money.prices import dollars_of, price_by
from embedqueue.settings.settings import Settings
from embedqueue.store.keys import Second
from embedqueue.store.records import Fill, Terms, Within, differing, terms_of
from embedqueue.store.store import Store
from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.item import encode_member, is_blank
from embedqueue.values.limits import Limits
from embedqueue.values.options import Options
from embedqueue.values.tokens import estimated_tokens


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reembed has to do.

    Attributes:
        texts: that have to be embedded.
        tokens: of these, estimated.
        usd: about what they cost in dollars; None where nobody has said what the model costs.
        seconds: that they take at the limits, at least; None where no limits are set.
        total: texts that there are, blank ones left out.
        done: of these, that have the vector in the second field already.
        waiting: of ``texts``, that wait for it already: an earlier run, or somebody who wrote them, has enqueued them.
        model: the new one.
        field: that receives its vectors.
    """

    texts: int
    tokens: int
    usd: float | None
    seconds: float | None
    total: int
    done: int
    waiting: int
    model: str
    field: str

    def facts(self) -> dict[str, Any]:
        """All of it, for a script."""
        return asdict(self)


def seconds_at(limits: Limits | str | None, texts: int, tokens: int, calls: int) -> float | None:
    """Seconds that so much takes at limits, at least; None where none are known beforehand."""
    if not isinstance(limits, Limits):
        return None
    amounts = {"requests": (calls, 60), "texts": (texts, 60), "tokens": (tokens, 60), "day": (calls, 86_400)}
    rows = [(amounts[name], limit) for name, limit in limits.by_name.items()]
    return max((amount / limit * seconds for (amount, seconds), limit in rows), default=None)


class Reembedding:
    """Fills the second field of a namespace. A context: it closes its connections.

    Args:
        first: settings of the queue whose texts they are.
        second: of the queue of the second field, as ``second_settings`` makes them.
        match: of the hashes' keys, a pattern as SCAN takes it.
        text_field: of the hashes, that holds the text.

    Attributes:
        first: as given.
        second: as given.
        store: of the first queue.
        other: of the second queue.
        terms: on which the second queue's workers write.
        second_options: of the second queue.
    """

    def __init__(self, first: Settings, second: Settings, match: str, text_field: str) -> None:
        self.first, self.second = first, second
        self._began: int | None = None  # the last stamp before any filling
        self.match, self.text_field = match, text_field
        self.second_options = Options(model=second.model, **second.options)
        client = first.client()
        if isinstance(client, redis.RedisCluster):
            raise EmbedQueueError("reembed does not know how to fill a second field on a Redis Cluster")
        self.store = Store(client, first.option("namespace"))
        self.other = Store(second.client(), self.second_options.namespace)
        try:
            self.terms = self._terms()
            if text_field in (self.terms.field, self.terms.provenance_field):
                raise EmbedQueueError("the field of the texts cannot be that of the vectors")
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Reembedding:
        """Nothing is to be done."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.store.close()
        self.other.close()

    def _terms(self, learned: int | None = None) -> Terms:
        kept = self.other.agreed()
        width = self.second.width or int(kept.get("dimensions", 0)) or learned
        return terms_of(self.second_options, width, role_of(self.second.embedder(), self.second.model))

    # -- before it begins --------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Look at all texts, and tell what there is to do. Nobody is called, and nothing is written.

        Raises:
            EmbedQueueError: the field is the first queue's own.
        """
        kept = self.store.agreed()
        if (kept.get("embedding_field") or self.first.option("embedding_field")) == self.terms.field:
            raise EmbedQueueError(f"vectors of the first queue stand in {self.terms.field!r}: give another --to-field")
        texts = tokens = total = done = waiting = 0
        for part, found in self._looked():
            for (_, text), one in zip(part, found, strict=True):
                if not is_blank(text):
                    total += 1
                    if one.kind == RIGHT:
                        done += 1
                    else:
                        texts, tokens = texts + 1, tokens + estimated_tokens(text)
                        waiting += one.kind == WAITING
        calls = max(
            math.ceil(texts / self.second_options.api_batch_limit),
            math.ceil(tokens / self.second_options.api_batch_tokens),
        )
        return Plan(
            texts=texts,
            tokens=tokens,
            usd=dollars_of(tokens, price_by(self.second_options)),
            seconds=seconds_at(self.second_options.limits, texts, tokens, calls),
            total=total,
            done=done,
            waiting=waiting,
            model=self.second.model,
            field=self.terms.field,
        )

    def begin(self) -> None:
        """From now on, texts go to both queues, whichever process enqueues them.

        Raises:
            EmbedQueueError: there is another second field; the second queue's workers write otherwise; or the vectors
                would be what those of the first are.
        """
        if self.terms.dimensions is None:
            self.terms = self._terms(learned_dimensions(self.second.embedder(), self.second.model))
        differ = differing(self.other.agreed(), self.terms.agreed)
        if differ:
            kept = self.other.agreed()
            words = ", ".join(f"{name} {kept[name]!r} and not {self.terms.agreed[name]!r}" for name in differ)
            raise EmbedQueueError(
                f"the second queue has begun with another {words}: give the same settings, or take that change back "
                "first (--roll-back)"
            )
        names = ("model", "dimensions", "role", "vector_type")
        kept = self.store.agreed()
        if kept and all(kept.get(name) == self.terms.agreed.get(name) for name in names):
            raise EmbedQueueError(
                f"the vectors of the first field are of {self.terms.space} already: give another --model"
            )
        self.store.change.begin(self.terms.field, self.terms.agreed["provenance_field"])
        self.other.agree(self.terms)

    # -- filling -----------------------------------------------------------------------------------------------

    def fill(
        self,
        *,
        within: float,
        max_waiting: int,
        check: Callable[[], None],
        rest: Callable[[], None],
        dead_too: bool = True,
    ) -> Iterator[tuple[int, int, Counter[str]]]:
        """Put in what is missing, while there is room. May be stopped at any point, and started again.

        Args:
            within: seconds in which it is to be embedded.
            max_waiting: go on only while fewer items wait.
            check: called before each part, and while there is no room; what it raises ends the filling.
            rest: called while there is no room; it waits.
            dead_too: also what was given up before.

        Yields:
            Of each part: how many texts were put in, their tokens, and how many there were of each kind. What somebody
            has enqueued meanwhile counts as right, for that goes to both fields.
        """
        base = self.second_options.usual_within
        began = self.other.hashes.last_stamp()
        if self._began is None:
            self._began = began
        for part, found in self._looked():
            check()
            pairs = zip(part, found, strict=True)
            # Of which somebody has enqueued a text since this began, that may be newer than what was read.
            wrong = [(text, one) for text, one in pairs if one.kind not in (RIGHT, WAITING) and one.newest <= began]
            for (redis_key, text), one in wrong:
                if is_blank(text):
                    self.other.hashes.erase(redis_key, self.terms, one.stamp + 1)
            lacking = [(text, one) for text, one in wrong if not is_blank(text[1])]
            if lacking and not dead_too:
                dead = {letter.redis_key for letter in self.other.dead.find([text[0] for text, _ in lacking])}
                lacking = [(text, one) for text, one in lacking if text[0] not in dead]
            while lacking and self.other.pending_count() > max(0, max_waiting - len(lacking)):
                check()
                rest()
            if lacking and self.begun() is None:
                raise EmbedQueueError(
                    f"texts do not go to {self.terms.field} any more: the change was finished, or taken back, meanwhile"
                )
            put = self._put(lacking, within, base)
            kinds = Counter(self._kind(one, began) for one in found)
            kinds[WAITING] += len(lacking) - len(put)  # somebody was quicker: it is looked at again
            yield len(put), sum(estimated_tokens(text) for _, text in put), kinds

    def begun(self) -> Second | None:
        """The second queue, while texts go to its field; else None."""
        second = self.store.change.second()
        return second if second is not None and second.field == self.terms.field else None

    def _kind(self, found: Found, began: int) -> str:
        first = began if self._began is None else self._began
        others = found.newest > (first if found.kind == WAITING else began)
        return RIGHT if others else found.kind

    def _put(self, lacking: Sequence[tuple[Text, Found]], within: float, base: float) -> list[Text]:
        """Enqueue texts into the second queue alone, but what somebody else was quicker with. Returns which."""
        texts, seen, group = {}, [], []
        for (redis_key, text), one in lacking:
            if redis_key not in texts:
                texts[redis_key] = text
                seen.append(one.line)
                group += [redis_key.encode(), encode_member(redis_key, text)]
        if not texts:
            return []
        taken = self.other.enqueue(
            [group],
            max_pending=None,
            tell_at=self.second_options.max_batch_size,
            tell_first=True,
            within=Within([within] * len(texts), base),
            fill=Fill(self.text_field, self.terms, seen),
        )
        return [text for text, out in zip(texts.items(), taken.left_out, strict=True) if out is None]

    def texts(self) -> Iterator[Text]:
        """The texts that stand in hashes."""
        return hashes_with_text(self.store, self.match, self.text_field)

    def read_again(self, texts: Sequence[Text]) -> list[Text]:
        """What stands in the hashes of these texts now; those that are gone are left out."""
        redis_keys = [redis_key for redis_key, _ in texts]
        found = zip(redis_keys, self.store.hashes.fields(redis_keys, self.text_field), strict=True)
        return [(redis_key, text.decode("utf-8", "replace")) for redis_key, text in found if text is not None]

    def _looked(self) -> Iterator[tuple[list[Text], list[Found]]]:
        texts = self.texts()
        while part := list(islice(texts, LOOK_ITEMS)):
            yield part, inspect(self.other, part, self.terms)

    def unfinished(self, flush: str) -> int:
        """How many items of the second queue, live when this name was first asked for, are unfinished."""
        return self.other.status(flush, anyway=True).unfinished
