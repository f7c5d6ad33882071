"""The change-over to the second field, once every text is found there; back again; and the end of the first field."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from embedqueue.backlog.inspection import LOOK_ITEMS, RIGHT, WAITING, Text, inspect
from embedqueue.search.aliases import Aliases
from embedqueue.search.definition import Definition, escaped
from embedqueue.store.change import FINISHING
from embedqueue.store.keys import Second
from embedqueue.store.records import Fill, Terms, differing
from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.item import encode_member, is_blank
from embedqueue.values.provenance import digest, read_provenance
from embedqueue.values.vectors import index_type

from .confirm import confirm
from .control import terms
from .reembed import Reembedding

#: Seconds between two looks at texts that are not covered yet, or at calls under way.
POLL_SECONDS = 0.2
#: Seconds for which nobody claims while the second queue is put in the first one's place, at least. The pause ends by
#: itself, if whoever has made it is killed.
HOLD_SECONDS = 60.0


def cut_over(work: Reembedding, alias: str | None, timeout: float) -> str:
    """Have searches and queries read the second field; texts go to both on. Returns a sentence.

    Args:
        work: the change.
        alias: of the index by which applications search, or None.
        timeout: seconds to wait for texts that are on their way, and then for the index.

    Raises:
        EmbedQueueError: texts have no vector in the second field; nothing has changed.
        TimeoutError: the index is not built in time; nothing has changed.
    """
    second = _second(work)
    reading = work.store.change.reading()
    read = reading.get("field") == second.field
    if read and alias in (None, *(one[0] for one in reading.get("aliases", ()))):
        _lead(work, reading)
        return f"{second.field} is read already."
    dead = _require_covered(work, timeout)
    first, led = first_terms(work), ""
    if not read:
        reading = {"field": second.field, "first": first.field, "first_of": first.provenance_field or ""}
    if alias is not None:
        old, new = _indexes(work, alias, first, timeout)
        reading["aliases"] = [*reading.get("aliases", ()), (alias, old, new)]
        led = f", and {alias} names {new}"
    # First what is read, then the alias: whoever has heard of it goes by the names of the indexes, not by the alias.
    work.store.change.read_from(reading)
    _lead(work, reading)
    said = f"{second.field} is read from now on{led}. Texts go to both fields until --finish; --roll-back goes back."
    return f"{said} {dead} texts are dead letters in both queues, and in neither field." if dead else said


def _indexes(work: Reembedding, alias: str, first: Terms, timeout: float) -> tuple[str, str]:
    """The index that an alias names, and one over the second field that finds the same; made, where there is none."""
    aliases, field = Aliases(work.store.client), work.terms.field
    old, definition = aliases.behind(alias, first.field)
    kind, length = index_type(work.terms.vector_type), work.terms.dimensions
    _, of_name, _ = definition.schema.get(first.provenance_field or "", ("", "", ""))
    old_names = [name for name in (first.field, first.provenance_field, definition.alias, of_name) if name]
    # What a filter says of the first field is true of no hash once that is gone; what it is to say instead, users know.
    own = _named_in(definition.filter, old_names)

    def filters(one: Definition) -> set[tuple[str, ...]]:
        found = {(name, *words) for name, words in one.schema.items() if words[-1] != "VECTOR"}
        return {words for words in found if words[0] != first.provenance_field}

    def alike(there: Definition) -> bool:
        same = (there.prefixes, there.metric) == (definition.prefixes, definition.metric)
        holds = there.data_type == kind and there.dimensions == (length or there.dimensions)
        chosen = there.filter == definition.filter
        if own:
            new_names = [name for name in (field, work.terms.provenance_field, there.alias) if name]
            gone = [name for name in old_names if name not in new_names]
            chosen = bool(_named_in(there.filter, new_names)) and not _named_in(there.filter, gone)
        return same and holds and chosen and filters(definition) <= filters(there)

    def find() -> str | None:
        return next((name for name, there in aliases.over(field) if alike(there)), None)

    new = find()
    if new is None:
        if own:
            raise EmbedQueueError(
                f"the FILTER of {old} is by {own}, which goes at --finish: create an index like it over {field} "
                "yourself, with a FILTER of its own, and it is taken"
            )
        name = f"{old}:{field}"
        aliases.make_like(definition, name, field, length or 0, kind)
        new = find()
        if new is None:
            raise EmbedQueueError(
                f"there is an index {name} with another filter or other names of fields: drop it "
                f"(FT.DROPINDEX {name}), and it is made anew"
            )
    aliases.await_built(new, field, time.monotonic() + timeout)
    return old, new


def _named_in(expression: str, names: Sequence[str]) -> str:
    """The first of these names of fields that a filter speaks of; "" for none."""
    found = (name for name in names if re.search(rf"@{re.escape(escaped(name))}(?![\w\\])", expression))
    return next(found, "")


def _lead(work: Reembedding, reading: Mapping[str, Any]) -> None:
    """Lead the aliases over which still name their old indexes: whoever was to do it may have been killed before."""
    aliases = Aliases(work.store.client)
    for alias, old, new in reading.get("aliases", ()):
        if aliases.named_by(alias) == old:
            aliases.lead(alias, new)


def roll_back(work: Reembedding) -> str:
    """Have the first field read again; where it is, have texts go to the first alone. Returns a sentence."""
    second, reading = _second(work), work.store.change.reading()
    if reading.get("field") == second.field:
        # First the alias: who has heard of the change-over goes by the names of the indexes until it is taken back.
        for alias, old, _ in reading.get("aliases", ()):
            Aliases(work.store.client).lead(alias, old)
        work.store.change.read_from({})
        return "The first field is read again. Texts go to both fields on; --roll-back once more ends that."
    work.store.change.give_up(second)
    return (
        f"Texts go to the first field alone from now on. Vectors in {work.terms.field} stay where they are: another "
        "reembed goes on from there."
    )


def finish(work: Reembedding, timeout: float, *, yes: bool) -> str:
    """Leave one field, the second one: its queue takes the place of the first, whose vectors go. Returns a sentence.

    One that was killed on the way goes on where it was.

    Args:
        work: the change.
        timeout: seconds to wait for texts that are on their way, and then for calls that are under way.
        yes: the user has agreed beforehand.

    Raises:
        EmbedQueueError: it was not cut over, texts have no vector, or nobody agrees; nothing has changed.
        TimeoutError: calls are under way for longer.
    """
    reading = work.store.change.reading()
    _lead(work, reading)  # an alias goes with the index that it names
    taken_over = work.store.agreed().get("embedding_field") == reading.get("field") == work.terms.field
    if not taken_over or work.store.change.second() is not None:
        _take_over(work, reading, timeout, yes=yes)
    work.other.clear()
    removed = _remove(work, [name for name in (reading["first"], reading["first_of"]) if name])
    if reading.get("aliases"):
        aliases = Aliases(work.store.client)
        there = [name for name, _ in aliases.over(reading["first"])]
        _, old, new = (set(names) for names in zip(*reading["aliases"], strict=True))
        for name in (old - new).intersection(there):  # else it is over both fields, or a finish of before has done it
            aliases.drop(name)
    namespace = work.first.option("namespace")
    return (
        f"Done: {namespace} has one field, {work.terms.field}, of {work.terms.space}; {removed} vectors of the first "
        f"were removed. Workers with embedding_field={work.terms.field} and model={work.second.model} go on within "
        "half a minute."
    )


def _take_over(work: Reembedding, reading: Mapping[str, Any], timeout: float, *, yes: bool) -> None:
    """Put the second queue in the place of the first."""
    second = _second(work)
    if reading.get("field") != second.field:
        raise EmbedQueueError(f"{second.field} is not read yet: --cut-over first")
    _require_covered(work, timeout)
    dead = work.store.status().dead
    letters = f", and {dead} dead letters of the first queue," if dead else ""
    said = f"The vectors in {reading['first']} of hashes that match {work.match}{letters} are removed for good."
    confirm(f"{said} Workers need the settings of {work.terms.space} from then on. Go on?", yes=yes)
    deadline_mono = time.monotonic() + timeout  # the walk and the answer may have taken long
    work.other.hold(max(HOLD_SECONDS, 2 * timeout), FINISHING)
    try:
        while _take_along(work) or not work.store.change.finish(second):
            if time.monotonic() > deadline_mono:
                raise TimeoutError("calls are still under way: try again")
            time.sleep(POLL_SECONDS)
    except BaseException:
        work.other.unhold()
        raise


def _take_along(work: Reembedding) -> bool:
    """Put into the second queue what waits in the first alone: its field has no vector of that text, or an older one.

    Returns whether calls of the second queue are under way: what they write is to be looked at.

    Raises:
        EmbedQueueError: another program has left texts in the first queue, and they cannot be put in order.
    """
    busy, first = work.other.in_flight_count() > 0, first_terms(work)
    for _ in work.store.adoption.rounds(first):  # what another program has left
        pass
    differ = differing(work.store.agreed(), first.agreed)
    if differ and work.store.status().strays:
        raise EmbedQueueError(
            f"another program has put texts into {work.store.keys.pending}, and the workers write with another "
            f"{', '.join(differ)} than this command was given: run it with their settings"
        )
    texts = work.store.texts()
    while part := list(dict(islice(texts, LOOK_ITEMS)).items()):
        here = work.store.hashes.look([redis_key for redis_key, _ in part], first)
        group, seen = [], []
        for (redis_key, text), old, one in zip(part, here, inspect(work.other, part, work.terms), strict=True):
            if one.kind not in (RIGHT, WAITING) and old.live_stamp > one.newest:
                group += [redis_key.encode(), encode_member(redis_key, text)]
                seen.append(one.line)
        if group:
            at, fill = work.second_options.max_batch_size, Fill("", work.terms, seen, work.store.keys.latest)
            work.other.enqueue([group], max_pending=None, tell_at=at, tell_first=True, fill=fill)
    return busy


def first_terms(work: Reembedding) -> Terms:
    """Where the first queue's vectors stand, as its workers have agreed."""
    return terms(work.first).where(work.store.agreed())


def _second(work: Reembedding) -> Second:
    second = work.begun()
    if second is None:
        raise EmbedQueueError(f"texts do not go to {work.terms.field}: run reembed without further options first")
    return second


def _require_covered(work: Reembedding, timeout: float) -> int:
    """Return when every text was seen to have what it has in the first field in the second as well.

    Returns how many are dead letters in both queues: they have nothing in either, and nothing is to be waited for.
    """
    old = first_terms(work)
    dead: set[Text] = set()
    left: list[Text] = []
    texts = work.texts()
    while part := list(islice(texts, LOOK_ITEMS)):
        left += _uncovered(work, part, old, dead)
    deadline_mono = time.monotonic() + timeout  # all texts are looked through first, however many there are
    while left and time.monotonic() < deadline_mono and _waiting(work, left):
        time.sleep(POLL_SECONDS)
        left = _again(left, lambda part: _uncovered(work, work.read_again(part), old, dead))
    if left:
        waiting = _waiting(work, left)
        on_their_way = f", {waiting} of them on their way" if waiting else ""
        raise EmbedQueueError(
            f"{len(left)} texts have no vector in {work.terms.field} yet{on_their_way}, such as {left[0][0]}: run "
            "reembed --wait first; nothing was changed"
        )
    return len(dead)


def _again(texts: Sequence[Text], look: Callable[[Sequence[Text]], list[Text]]) -> list[Text]:
    return [text for at in range(0, len(texts), LOOK_ITEMS) for text in look(texts[at : at + LOOK_ITEMS])]


def _waiting(work: Reembedding, texts: Sequence[Text]) -> int:
    """How many of them wait for their vectors in the second field."""
    parts = (texts[at : at + LOOK_ITEMS] for at in range(0, len(texts), LOOK_ITEMS))
    return sum(found.kind == WAITING for part in parts for found in inspect(work.other, part, work.terms))


def _uncovered(work: Reembedding, part: Sequence[Text], old: Terms, dead: set[Text]) -> list[Text]:
    """Those that are found in the first field, or might be, and not in the second.

    A text that waits in both is in neither yet: so it is with every new text, at any moment. One that is a dead letter
    in both is in neither for good, and goes to ``dead``.
    """
    looked = work.store.hashes.look([redis_key for redis_key, _ in part], old)
    left: list[Text] = []
    nowhere: list[Text] = []
    for (redis_key, text), found, first in zip(part, inspect(work.other, part, work.terms), looked, strict=True):
        if is_blank(text):
            if found.kind != RIGHT:
                work.other.hashes.erase(redis_key, work.terms, found.stamp + 1)
            continue
        of = read_provenance(first.provenance)
        there = first.vector_bytes > 0 and (of is None or of.digest == digest(text))
        if found.kind != RIGHT and not (found.kind == WAITING and not there):
            (left if there else nowhere).append((redis_key, text))
    redis_keys = [redis_key for redis_key, _ in nowhere]
    letters = [{(one.redis_key, one.text) for one in store.dead.find(redis_keys)} for store in (work.store, work.other)]
    given_up = letters[0] & letters[1]
    dead |= given_up.intersection(nowhere)
    return left + [text for text in nowhere if text not in given_up]


def _remove(work: Reembedding, fields: Sequence[str]) -> int:
    """Take fields out of the hashes. Returns how many had the first of them."""
    keys, removed = work.store.hashes.matching(work.match), 0
    while part := list(islice(keys, LOOK_ITEMS)):
        removed += work.store.hashes.drop_fields(part, fields)
    return removed
