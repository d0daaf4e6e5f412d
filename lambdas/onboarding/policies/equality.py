"""Compare policy and trust documents by their meaning. Pure.

IAM returns a document in another order or form than the one it received (a list of one item as a
string, an account as the ARN of its root), and people write the same statement in many ways. Two
documents are equal here only if IAM's policy language surely gives them the same meaning. A wrong
"different" causes a write that is not needed. A wrong "equal" would leave a wrong permission.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from lambdas.common.errors import PermanentError

Meaning = frozenset[Any]
"""Two documents mean the same if and only if these are equal."""

_ACTIONS: Final = frozenset({"Action", "NotAction"})
_RESOURCES: Final = frozenset({"Resource", "NotResource"})
_PRINCIPALS: Final = frozenset({"Principal", "NotPrincipal"})
_KNOWN: Final = frozenset({"Effect", "Sid", "Condition"}) | _ACTIONS | _RESOURCES | _PRINCIPALS
_OLD_VERSION: Final = "2008-10-17"  # IAM's default for a document without a version
_ROOT: Final = re.compile(r"arn:[a-z-]+:iam::(\d{12}):root")


class NotADocumentError(PermanentError):
    """The given text or value is not a policy document."""


def decoded(document: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the document as a map. IAM's API percent-encodes it; botocore decodes it mostly.

    Raises NotADocumentError if it is not a JSON object.
    """
    if isinstance(document, str):
        text = unquote(document) if document.lstrip().startswith("%") else document
        try:
            document = json.loads(text)
        except ValueError as error:
            raise NotADocumentError(f"Give a policy document as JSON: {error}.") from error
    if not isinstance(document, Mapping):
        raise NotADocumentError("Give a policy document: a JSON object with a Statement.")
    return document


def same(one: str | Mapping[str, Any], other: str | Mapping[str, Any]) -> bool:
    """Whether both documents allow and deny the same.

    Raises NotADocumentError if one of them is not a policy document.
    """
    return meaning(one) == meaning(other)


def meaning(document: str | Mapping[str, Any]) -> Meaning:
    """The document's normal form: sets where order means nothing, one case, no Sid and no Id.

    Raises NotADocumentError if it is not a policy document.
    """
    document = decoded(document)
    statements = document.get("Statement")
    if isinstance(statements, Mapping):
        statements = [statements]
    if not isinstance(statements, list):
        raise NotADocumentError("Give a policy document: a JSON object with a Statement.")
    # The version decides whether ${…} is a variable, so it is a part of each statement's meaning.
    version = document.get("Version", _OLD_VERSION)
    return frozenset((version, _statement(statement)) for statement in statements)


def _statement(statement: object) -> Meaning:
    if not isinstance(statement, Mapping) or "Effect" not in statement:
        raise NotADocumentError("Give statements that are JSON objects with an Effect.")
    if unknown := sorted(statement.keys() - _KNOWN):
        raise NotADocumentError(
            f"Give statements without {', '.join(unknown)}: IAM has no such element."
        )
    return frozenset(
        (element, _element(element, value))
        for element, value in statement.items()
        if element != "Sid" and not (element == "Condition" and not value)
    )


def _element(element: str, value: object) -> Meaning | str:
    if element in _ACTIONS:
        return frozenset(item.lower() for item in _strings(value))
    if element in _RESOURCES:
        return frozenset(_strings(value))
    if element in _PRINCIPALS:
        return _principals(value)
    if element == "Condition":
        return _conditions(value)
    return _string(value)


def _principals(value: object) -> Meaning:
    if value == "*":
        value = {"AWS": "*"}
    if not isinstance(value, Mapping):
        raise NotADocumentError('Give a Principal that is a JSON object or "*".')
    return frozenset(
        (kind, frozenset(_principal(name) for name in _strings(names)))
        for kind, names in value.items()
    )


def _principal(name: str) -> str:
    if root := _ROOT.fullmatch(name):
        return root.group(1)
    return name


def _conditions(value: object) -> Meaning:
    if not isinstance(value, Mapping) or not all(isinstance(k, Mapping) for k in value.values()):
        raise NotADocumentError("Give a Condition that maps operators to keys.")
    return frozenset(  # operators and keys are case-insensitive, also tag keys
        (operator.lower(), key.lower(), frozenset(_strings(values)))
        for operator, keys in value.items()
        for key, values in keys.items()
    )


def _strings(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [_string(item) for item in values]


def _string(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise NotADocumentError(f"Give a string, not {value!r}, where a policy needs a string.")
