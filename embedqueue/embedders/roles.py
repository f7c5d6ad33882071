"""What a text is embedded as: a document that is searched, or a query that searches (docs/providers.md, "Roles")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embedqueue.values.errors import OptionTypeError
from embedqueue.values.provenance import model_name

#: This model takes no task type: the task is a part of the text. So is that of its variants, such as "-preview".
UNTYPED_MODEL = "gemini-embedding-2"
#: How the model's documentation puts documents without a title.
_UNTYPED_DOCUMENT = "title: none | text: "
#: Its words for the task types of the model before it.
_UNTYPED_TASKS = {
    "RETRIEVAL_QUERY": "search result",
    "QUESTION_ANSWERING": "question answering",
    "FACT_VERIFICATION": "fact checking",
    "CODE_RETRIEVAL_QUERY": "code retrieval",
    "CLASSIFICATION": "classification",
    "CLUSTERING": "clustering",
    "SEMANTIC_SIMILARITY": "sentence similarity",
}
DOCUMENT_TASK, QUERY_TASK = "RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY"


@dataclass(frozen=True)
class Role:
    """How a role reaches the provider.

    Attributes:
        prefix: stands before each text.
        fields: more fields of the request.
    """

    prefix: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str | None:
        """By which vectors of this role are told from others; None where the provider is told of no role."""
        fields = [f"{name}={_word(value)}" for name, value in sorted(self.fields.items())]
        return ",".join([*([self.prefix] if self.prefix else []), *fields]) or None


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def given_role(option: str, value: str | Mapping[str, Any] | None) -> Role | None:
    """The role that a user has given: a prefix, or fields of the request; None where there is none.

    Args:
        option: its name.
        value: what was given.

    Raises:
        OptionTypeError: neither.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return Role(prefix=value)
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return Role(fields=dict(value))
    raise OptionTypeError(option, f"must be a prefix or the fields of a request, not {type(value).__name__}")


def is_untyped(model: str) -> bool:
    """Whether a model takes its task as a part of the text."""
    return model_name(model).rpartition("/")[2].startswith(UNTYPED_MODEL)


def untyped_role(task_type: str | None) -> Role:
    """A task as :data:`UNTYPED_MODEL` takes it; none where its documentation has no words for it.

    Args:
        task_type: as the model before it takes it, or None for no task.
    """
    if task_type == DOCUMENT_TASK:
        return Role(prefix=_UNTYPED_DOCUMENT)
    task = _UNTYPED_TASKS.get(task_type or "")
    return Role(prefix=f"task: {task} | query: ") if task else Role()
