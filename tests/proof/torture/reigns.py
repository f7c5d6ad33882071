"""Which model ruled when, and which one each process has: what the checker needs where models change. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tests.proof.torture.texts import MODELS

#: Seconds from a claim to the last try of its call, at most: a process may stand still, and a call fail thrice.
CALL_SECONDS = 30.0
#: Seconds for which a process is told that it is at odds after it is no more: a worker asks each half minute.
BARRED_SECONDS = 60.0


class Reigns:
    """Reads it from the lines of the journals.

    Args:
        lines: of the journals.
    """

    def __init__(self, lines: Sequence[dict]) -> None:
        self._of: dict[str, str] = {}
        told = sorted((line for line in lines if line["event"] in ("adopts", "adopted")), key=lambda line: line["at"])
        self._spans: dict[str, list[list[float]]] = defaultdict(list)  # by model: from, until
        self._spans[MODELS[0]].append([float("-inf"), float("inf")])
        for line in told:
            if not self._rules(line["model"]):
                self._spans[line["model"]].append([line["at"], float("inf")])
            if line["event"] == "adopted":
                for other in [model for model in self._spans if model != line["model"] and self._rules(model)]:
                    self._spans[other][-1][1] = line["at"]
        for line in lines:
            if line["event"] == "started" and "model" in line:
                self._of[line["process"]] = line["model"]
        self.changed = bool(told)

    def _rules(self, model: str) -> bool:
        return bool(self._spans[model]) and self._spans[model][-1][1] == float("inf")

    def of(self, process: str) -> str:
        """The model of a process, or of the one from which it was forked."""
        return self._of.get(process.partition(".")[0], MODELS[0])

    def ruled(self, model: str, since: float, until: float) -> bool:
        """Whether a model ruled at any moment of a time."""
        return any(start <= until and end >= since for start, end in self._spans[model])

    def began(self, since: float, until: float) -> bool:
        """Whether a model began to rule in a time: its processes may just have to come up."""
        return any(since <= start <= until for spans in self._spans.values() for start, _ in spans)

    def may_send(self, process: str, at: float) -> bool:
        """Whether a process may send a text: its model ruled when it could have been claimed."""
        return self.ruled(self.of(process), at - CALL_SECONDS, at)

    def was_at_odds(self, process: str, at: float) -> bool:
        """Whether another model than that of a process ruled shortly before."""
        others = [model for model in self._spans if model != self.of(process)]
        return any(self.ruled(model, at - BARRED_SECONDS, at) for model in others)
