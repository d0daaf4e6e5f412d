"""The parts of an IAM document and its size: statements as plain dicts, IAM's limits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lambdas.common.errors import PermanentError

Document = dict[str, Any]
Tags = dict[str, str | list[str]]
Condition = Mapping[str, Mapping[str, str | list[str]]]
VERSION: Final = "2012-10-17"
MANAGED_LIMIT: Final = 6144  # characters without white space, IAM quotas
USER_INLINE_LIMIT: Final = 2048  # all inline policies of a user together, IAM quotas
ROLE_INLINE_LIMIT: Final = 10240  # all inline policies of a role together, IAM quotas


class DocumentTooLargeError(PermanentError):
    """A policy document is larger than IAM allows. Nothing was created."""


def size(document: Document) -> int:
    """Characters as IAM counts them: without white space."""
    return len(json.dumps(document, separators=(",", ":")))


def all_checked(documents: Mapping[str, Iterable[Document]]) -> dict[str, Document]:
    return {
        name: checked(document_of(statements), MANAGED_LIMIT, name)
        for name, statements in documents.items()
    }


def checked(document: Document, limit: int, name: str) -> Document:
    """Return the document unchanged.

    Raises DocumentTooLargeError if it has more than `limit` characters.
    """
    characters = size(document)
    if characters > limit:
        raise DocumentTooLargeError(
            f"Use a shorter cluster name or path: policy {name} has {characters} characters; "
            f"IAM allows {limit}."
        )
    return document


def document_of(statements: Iterable[Document]) -> Document:
    return {"Version": VERSION, "Statement": list(statements)}


def allow(
    sid: str, actions: list[str], resources: list[str], condition: Condition | None = None
) -> Document:
    statement: Document = {
        "Sid": sid,
        "Effect": "Allow",
        "Action": actions,
        "Resource": resources,
    }
    if condition:
        statement["Condition"] = {operator: dict(values) for operator, values in condition.items()}
    return statement


def deny(sid: str, actions: Sequence[str], condition: Condition) -> Document:
    """A Deny on all resources, which overrides the Allow of another policy."""
    return allow(sid, [*actions], ["*"], condition) | {"Effect": "Deny"}


def deny_elsewhere(sid: str, actions: Sequence[str], resources: list[str]) -> Document:
    """A Deny on all resources but these."""
    return {"Sid": sid, "Effect": "Deny", "Action": [*actions], "NotResource": resources}
