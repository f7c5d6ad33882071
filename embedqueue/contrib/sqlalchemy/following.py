"""Sessions whose texts go into a queue after their commits.

What a flush writes is noted with the transaction, or savepoint, under way. The end of a savepoint hands its notes on to
what it stands in; a rollback drops them; the commit of the whole hands them to the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import redis
from sqlalchemy import event, inspect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.errors import NotReplicated
from embedqueue.values.item import checked_member, is_blank
from embedqueue.values.log import is_of_a_signal, logger
from embedqueue.values.words import printable

from .models import EmbeddedText

#: A queue; a function that returns one; or queues by their names, as ``embed_queue`` has them.
Queues = EmbeddingBatchQueue | Callable[[], EmbeddingBatchQueue] | Mapping[str, EmbeddingBatchQueue]

#: The key of the notes in ``session.info``.
_INFO = "embedqueue"
#: Keys, and characters of each, that are named where their vectors could not be taken away.
_SHOWN_KEYS, _SHOWN_CHARS = 50, 200
#: What the next key would hear as well, after as long a wait.
_AWAY = (redis.ConnectionError, redis.TimeoutError, NotReplicated)
#: Texts by the name of their queue and redis_key, in order.
_Notes = dict[tuple[str, str], str]


def follow(sessions: Any, queue: Queues, *, robust: bool = False) -> None:
    """Enqueue what is committed in these sessions: texts of :class:`EmbeddedText`, and pairs of ``enqueue_on_commit``.

    Call it once, where sessions are set up.

    Args:
        sessions: a ``sessionmaker``, ``scoped_session`` (``db.session`` of Flask-SQLAlchemy), class or object.
        queue: of embedqueue; the Flask extension ``EmbedQueue``, which has its app's; a function that returns one; or
            several by name.
        robust: where Redis cannot be reached after a commit, the log says so and the caller goes on; ``verify`` finds
            what was missed, but for deletions, whose keys the log names. Else ``commit`` raises, and what it has
            committed stays.

    Raises:
        TypeError: ``queue`` is none of these.
    """
    for one in queue.values() if isinstance(queue, Mapping) else [queue]:
        if not callable(one) and not hasattr(type(one), "enqueue_many"):
            raise TypeError(f"not a queue, a function that returns one, or queues by their names: {one!r}")
    follower = _Follower(queue, robust)
    event.listen(sessions, "before_commit", follower.committing)
    event.listen(sessions, "before_flush", follower.flushing)
    event.listen(sessions, "after_flush", follower.flushed)
    event.listen(sessions, "persistent_to_deleted", follower.deleted)
    event.listen(sessions, "after_flush_postexec", follower.settled)
    event.listen(sessions, "after_commit", follower.committed)
    event.listen(sessions, "after_transaction_end", follower.ended)


def enqueue_on_commit(session: Session, redis_key: str, text: str, *, queue: str = "default") -> None:
    """Enqueue a pair once the transaction under way is committed. What is rolled back enqueues nothing.

    Args:
        session: one that is followed.
        redis_key: the hash that receives the vector.
        text: what to embed; a blank one takes the vector away.
        queue: its name, where there are several.

    Raises:
        TypeError: not two strings, or no Session.
        ValueError: an empty key, or what is no UTF-8.
        sqlalchemy.exc.InvalidRequestError: no transaction is under way, with ``autobegin=False``.
    """
    session = session() if isinstance(session, scoped_session) else session
    if not isinstance(session, Session):
        raise TypeError(f"not a Session: {session!r}; of an AsyncSession, give its sync_session")
    if not isinstance(redis_key, str) or not isinstance(text, str):
        raise TypeError(f"redis_key and text must be str, not {type(redis_key).__name__} and {type(text).__name__}")
    if not redis_key:
        raise ValueError("redis_key must not be empty")
    f"{redis_key}{text}".encode()  # a lone surrogate would be refused when all is committed
    if not session.in_transaction():
        if not session.autobegin:
            raise InvalidRequestError("no transaction is under way, and this session begins none by itself")
        session.begin()  # else no commit would come
    _Pad.of(session).note(session, (queue, redis_key), text)


class _Pad:
    """What is noted in one session. One thread uses a session at a time."""

    def __init__(self) -> None:
        self.open: dict[SessionTransaction, _Notes] = {}  # by the transaction, or savepoint, in which it was flushed
        self.ready: _Notes = {}  # committed, and to be handed over when the transaction has ended
        self.flushed: dict[int, EmbeddedText] = {}  # new or changed, by id(), of the flush that is under way
        self.gone: set[int] | None = (
            None  # by id(), whose rows that flush has deleted; None before it has, and after it
        )

    @staticmethod
    def of(session: Session) -> _Pad:
        """That of a session."""
        pad: _Pad = session.info.setdefault(_INFO, _Pad())
        return pad

    def note(self, session: Session, name: tuple[str, str], text: str) -> None:
        """What is to be done with a key when what is under way is committed; the last word counts."""
        transaction = session.get_nested_transaction() or session.get_transaction()
        if transaction is not None:
            notes = self.open.setdefault(transaction, {})
            notes.pop(name, None)
            notes[name] = text


class _Follower:
    """Hears what sessions do."""

    def __init__(self, queues: Queues, robust: bool) -> None:
        self._queues: Queues = {"default": queues} if isinstance(queues, EmbeddingBatchQueue) else queues
        self._robust = robust

    def flushing(self, session: Session, context: Any, instances: Any) -> None:
        """Rows are about to be written. Of an attribute that the database makes, nothing is known afterwards."""
        changed = (one for one in session.dirty if isinstance(one, EmbeddedText) and _is_changed(one))
        _Pad.of(session).flushed |= {id(one): one for one in changed}

    def flushed(self, session: Session, context: Any) -> None:
        """Rows are written; what listeners have changed meanwhile is still known."""
        self.flushing(session, context, None)
        pad = _Pad.of(session)
        pad.flushed |= {id(one): one for one in session.new if isinstance(one, EmbeddedText)}
        pad.gone = set()
        for one in session.deleted:  # now: a parent from which a key is made is still known
            if isinstance(one, EmbeddedText):
                self._forget(session, pad, one)
                pad.gone.add(id(one))

    def deleted(self, session: Session, one: object) -> None:
        """A flush has deleted a row, perhaps as an orphan, which ``session.deleted`` lacks.

        Of a ``delete()`` statement the session only guesses which rows it has met.
        """
        pad = _Pad.of(session)
        if pad.gone is None or id(one) in pad.gone or not isinstance(one, EmbeddedText):
            return
        try:
            self._forget(session, pad, one)
        except Exception:  # an orphan has no parent any more; its row must go all the same
            logger.warning("embedqueue: a row is deleted whose key nobody can tell, so its vector stays", exc_info=True)

    def _forget(self, session: Session, pad: _Pad, one: EmbeddedText) -> None:
        pad.flushed.pop(id(one), None)
        pad.note(session, (one.embed_queue, one.embed_key()), "")

    def settled(self, session: Session, context: Any) -> None:
        """The flush is over, and what the database has made of a text can be read."""
        pad = _Pad.of(session)
        changed, pad.flushed, pad.gone = pad.flushed, {}, None
        with session.no_autoflush:
            for one in changed.values():
                self._check(one.embed_queue)
                pad.note(session, (one.embed_queue, one.embed_key()), one.embed_text())

    def committing(self, session: Session) -> None:
        """It is about to be committed: a name that no queue has is refused as long as it can be."""
        for notes in _Pad.of(session).open.values():
            for name, _ in notes:
                self._check(name)

    def committed(self, session: Session) -> None:
        """A savepoint, or all of it, is committed."""
        pad = _Pad.of(session)
        savepoint = session.get_nested_transaction()
        transaction = savepoint or session.get_transaction()
        notes = {} if transaction is None else pad.open.pop(transaction, {})
        outer = pad.ready if savepoint is None else pad.open.setdefault(_around(savepoint), {})
        for name, text in notes.items():
            outer.pop(name, None)
            outer[name] = text

    def ended(self, session: Session, transaction: SessionTransaction) -> None:
        """What was not committed is dropped; what was, goes into the queue, for the session is free again."""
        pad = _Pad.of(session)
        pad.open.pop(transaction, None)
        pad.flushed.clear()  # of a flush that has failed
        pad.gone = None
        if transaction.parent is None and pad.ready:
            ready, pad.ready = pad.ready, {}
            if missed := self._hand_over(ready):
                error, said = next(iter(missed.values())), _told([(key, ready[name, key]) for name, key in missed])
                if not self._robust:
                    error.add_note(said)
                    raise error
                logger.error("embedqueue: %s", said, exc_info=error)

    def _hand_over(self, notes: _Notes) -> dict[tuple[str, str], Exception]:
        """Returns what was missed, and why: nothing is held back by what is refused beside it.

        Deletions come first: ``verify`` knows nothing of a row that is gone.
        """
        missed: dict[tuple[str, str], Exception] = {}
        away: dict[str, Exception] = {}  # by the name of a queue: one wait for its Redis is enough
        left = dict(notes)

        def miss(error: Exception, keys: Iterable[tuple[str, str]]) -> None:
            if is_of_a_signal(error):  # as a limit of a job's time: whoever has set it wants an end
                error.add_note(f"embedqueue: {_told([(key, text) for (_, key), text in left.items()])}")
                raise error
            missed.update(dict.fromkeys(keys, error))

        for name, redis_key in (key for key, text in notes.items() if is_blank(text)):
            if name in away:
                missed[name, redis_key] = away[name]
                continue
            try:
                self._queue(name).forget(redis_key, vector=True)
                del left[name, redis_key]
            except Exception as error:
                miss(error, [(name, redis_key)])
                if isinstance(error, _AWAY):
                    away[name] = error
        for name in dict.fromkeys(name for (name, _), text in notes.items() if not is_blank(text)):
            texts = [(key, text) for (of, key), text in notes.items() if of == name and not is_blank(text)]
            try:
                queue = self._queue(name)
                fit = []
                for pair in texts:
                    try:
                        checked_member(*pair, queue.options.namespace, queue.options.max_text_chars)
                        fit.append(pair)
                    except (TypeError, ValueError) as error:
                        miss(error, [(name, pair[0])])
                texts = fit
                # An attribute that was not loaded before it was set counts as changed.
                queue.enqueue_many(texts, if_changed=queue.options.provenance_field is not None)
                for key, _ in texts:
                    del left[name, key]
            except Exception as error:
                miss(error, [(name, key) for key, _ in texts])
        return missed

    def _check(self, name: str) -> None:
        if not isinstance(self._queues, Mapping):
            if name != "default":
                self._queue(name)  # the function, or the extension, knows
        elif name not in self._queues:
            names = ", ".join(self._queues)
            raise ValueError(f"no queue is called {name!r} where sessions are followed, only {names}")

    def _queue(self, name: str) -> EmbeddingBatchQueue:
        queues: Any = self._queues() if callable(self._queues) else self._queues
        found: EmbeddingBatchQueue = queues if name == "default" and not isinstance(queues, Mapping) else queues[name]
        return found


def _around(transaction: SessionTransaction) -> SessionTransaction:
    """The savepoint, or the whole transaction, in which a savepoint stands."""
    outer = transaction.parent
    while outer is not None and outer.parent is not None and not outer.nested:
        outer = outer.parent
    assert outer is not None
    return outer


def _told(missed: Sequence[tuple[str, str]]) -> str:
    """Of which keys and texts nothing was handed over, in words."""
    left = [redis_key for redis_key, text in missed if is_blank(text)]
    told = []
    if left:
        shown = ", ".join(printable(redis_key)[:_SHOWN_CHARS] for redis_key in left[:_SHOWN_KEYS])
        more = f" and {len(left) - _SHOWN_KEYS} more" if len(left) > _SHOWN_KEYS else ""
        told.append(f"vectors were to go and are left, of {shown}{more}: queue.forget(key, vector=True) helps")
    if len(missed) > len(left):
        told.append(f"{len(missed) - len(left)} texts are committed and not enqueued; verify finds them")
    return "; ".join(told)


def _is_changed(instance: EmbeddedText) -> bool:
    attributes: Any = inspect(instance).attrs
    return any(attributes[name].history.has_changes() for name in instance.embed_fields)
