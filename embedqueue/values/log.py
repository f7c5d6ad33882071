"""The one logger, ``embedqueue``; records of a queue carry its namespace as an attribute.

Whatever a user's filter or handler raises costs the record and nothing else: every record of ours goes through
:class:`QueueLog`. What comes from outside stands on one line in it, with no character that a terminal obeys.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import traceback
from collections.abc import MutableMapping
from typing import Any

from .words import printable


class QueueLog(logging.LoggerAdapter[logging.Logger]):
    """Adds a queue's namespace to its records, beside what ``extra`` gives. Raises nothing but what a signal raises.

    Args:
        namespace: of the queue; None for what is said of no queue.
    """

    def __init__(self, namespace: str | None = None) -> None:
        super().__init__(logging.getLogger("embedqueue"), {} if namespace is None else {"namespace": namespace})
        self._told = False

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Merge: the standard adapter would replace ``extra``."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def log(self, level: int, msg: Any, *args: Any, **kwargs: Any) -> None:
        """As the standard adapter, whose other methods call this. What is no number is for ``%s``."""
        try:
            if self.isEnabledFor(level):
                shown = [arg if isinstance(arg, int | float) else printable(str(arg)) for arg in args]
                error = kwargs.get("exc_info")
                error = sys.exception() if error is True else error
                if isinstance(error, BaseException):
                    plain, safe = "".join(traceback.format_exception(error)), _safe_traceback(error)
                    if plain != safe:
                        kwargs["exc_info"], msg = None, f"{msg}\n%s"
                        shown.append(safe.rstrip("\n"))
                super().log(level, msg, *shown, **{"stacklevel": 2, **kwargs})  # the record names who called us
        except (Exception, SystemExit) as raised:
            if is_of_a_signal(raised) or (isinstance(raised, SystemExit) and _is_main_thread()):
                raise
            self._complain(raised)

    def _complain(self, error: BaseException) -> None:
        """Once, to standard error, as ``logging`` does of handlers: whoever wrote the filter looks for its records."""
        if logging.raiseExceptions and sys.stderr is not None and not self._told:
            self._told = True
            with contextlib.suppress(Exception):  # it may be closed
                words = "embedqueue: a filter or handler of logging raised; such records are lost, and nothing else is"
                print(words, _safe_traceback(error), sep="\n", end="", file=sys.stderr)


def _safe_traceback(error: BaseException) -> str:
    """A traceback in which the words of each error, which come from outside, too, stand on one line."""
    whole = traceback.TracebackException.from_exception(error)
    todo = [whole]
    while todo:
        told = todo.pop()
        words = printable("".join(told.format_exception_only()).rstrip("\n"))  # with the notes
        told.format_exception_only = lambda said=words, **_: iter([f"{said}\n"])  # type: ignore[assignment, method-assign]
        todo += filter(None, (told.__cause__, told.__context__, *(told.exceptions or ())))
    return "\n".join(printable(line) for line in "".join(whole.format()).split("\n"))


def is_of_a_signal(error: BaseException) -> bool:
    """Whether it is Ctrl-C, or came out of one of this process's signal handlers, while other code of a user's ran.

    Args:
        error: just caught, by the thread in which it was raised.
    """
    if not _is_main_thread():
        return False
    if isinstance(error, KeyboardInterrupt):
        return True
    handlers = (signal.getsignal(number) for number in signal.valid_signals())
    codes = {getattr(handler, "__code__", None) for handler in handlers}
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


#: What takes records.
Log = QueueLog
#: For what is said of no queue in particular.
logger = QueueLog()
