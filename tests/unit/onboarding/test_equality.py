"""Policy documents are compared by meaning: another notation is equal, another value is not."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.onboarding.policies import castai_identity, node_role
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.policies.equality import NotADocumentError, meaning, same
from lambdas.onboarding.policies.scope import Permissions, Scope

ID = "1a2b3c4d-0000-4000-8000-000000000001"
SCOPE = Scope("aws", "eu-west-1", "111122223333", "prod", ID, "vpc-1")
DOCUMENTS: list[Document] = [
    castai_identity.cast_eks_policy(
        SCOPE, Permissions.FULL, manage_spot_lambda=True, boundary=None
    ),
    castai_identity.restricted_access(SCOPE, Permissions.STRICT),
    castai_identity.cross_account_trust("arn:aws:iam::809060229965:user/cast", ID),
    node_role.node_trust("aws"),
]


def rewritten(value: Any, rng: Random, key: str = "") -> Any:
    """The same document in another notation."""
    if isinstance(value, dict):
        result = {name: rewritten(value[name], rng, name) for name in shuffled(value, rng)}
        if "Effect" in result:
            result["Sid"] = rng.choice(["", "Other"])
        return result
    if isinstance(value, list):
        items = [rewritten(item, rng, f"one {key}") for item in shuffled(value, rng)]
        return items[0] if len(items) == 1 and rng.random() < 0.5 else items
    if key in {"Action", "one Action"} and rng.random() < 0.5:
        value = str(value).upper()
    return [value] if key in {"Action", "Resource"} and rng.random() < 0.5 else value


def shuffled(values: Any, rng: Random) -> list[Any]:
    return rng.sample(list(values), len(values))


@given(document=st.sampled_from(DOCUMENTS), rng=st.randoms(use_true_random=True))
def test_a_document_in_another_notation_is_the_same(document: Document, rng: Random) -> None:
    other = rewritten(document, rng)
    assert same(document, other)
    assert same(json.dumps(other), document)
    assert same(quote(json.dumps(document)), other)


def places(value: Any) -> list[tuple[Any, Any]]:
    """The container and key of every string in the document, without Sids."""
    found: list[tuple[Any, Any]] = []
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in entries:
        if isinstance(item, dict | list):
            found += places(item)
        elif key != "Sid":
            found.append((value, key))
    return found


@given(document=st.sampled_from(DOCUMENTS), data=st.data())
def test_a_change_of_any_string_is_a_difference(document: Document, data: st.DataObject) -> None:
    changed = copy.deepcopy(document)
    holder, key = data.draw(st.sampled_from(places(changed)))
    holder[key] += "x"
    assert not same(document, changed)


@given(document=st.sampled_from(DOCUMENTS), data=st.data())
def test_a_removed_statement_or_condition_is_a_difference(
    document: Document, data: st.DataObject
) -> None:
    changed = copy.deepcopy(document)
    statement = data.draw(st.sampled_from(changed["Statement"]))
    if "Condition" in statement and data.draw(st.booleans()):
        del statement["Condition"]
    else:
        changed["Statement"].remove(statement)
    assert not same(document, changed)


def trust(principal: Any, **more: Any) -> Document:
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"} | more
    return {"Version": "2012-10-17", "Statement": statement}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (trust("*"), trust({"AWS": "*"})),
        (trust({"AWS": "111122223333"}), trust({"AWS": "arn:aws:iam::111122223333:root"})),
        (trust({"AWS": "111122223333"}), trust({"AWS": ["111122223333"]})),
        (trust({"Service": ["a", "b"]}), trust({"Service": ["b", "a"]})),
        (trust("*"), trust("*", Condition={})),
        (
            trust("*", Condition={"Bool": {"aws:SecureTransport": True}}),
            trust("*", Condition={"bool": {"AWS:securetransport": ["true"]}}),
        ),
        (
            {"Statement": []},
            {"Version": "2008-10-17", "Id": "x", "Statement": []},
        ),
    ],
)
def test_two_notations_of_one_meaning_are_the_same(one: Document, other: Document) -> None:
    assert same(one, other)
    assert hash(meaning(one)) == hash(meaning(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (trust("*"), trust({"Service": "*"})),
        (trust({"AWS": "111122223333"}), trust({"AWS": "111122223333", "Service": "a"})),
        (trust({"AWS": "111122223333"}), trust({"AWS": "arn:aws:iam::111122223333:user/root"})),
        (trust("*"), trust("*") | {"Version": "2008-10-17"}),
        (trust("*"), trust("*", Effect="Deny")),
        (
            trust("*", Condition={"StringEquals": {"k": "v"}}),
            trust("*", Condition={"StringEqualsIfExists": {"k": "v"}}),
        ),
        (
            trust("*", Condition={"StringEquals": {"k": "v"}}),
            trust("*", Condition={"StringEquals": {"k": "V"}}),
        ),
        (
            {"Statement": {"Effect": "Allow", "Action": "a:b", "Resource": "x"}},
            {"Statement": {"Effect": "Allow", "Action": "a:b", "NotResource": "x"}},
        ),
        (
            {"Statement": {"Effect": "Allow", "Action": "a:b", "Resource": "x"}},
            {"Statement": {"Effect": "Allow", "Action": "a:b", "Resource": "X"}},
        ),
    ],
)
def test_similar_documents_of_other_meanings_are_not_the_same(
    one: Document, other: Document
) -> None:
    assert not same(one, other)


@pytest.mark.parametrize(
    "document",
    [
        "not JSON",
        "[]",
        {},
        {"Statement": "x"},
        {"Statement": ["x"]},
        {"Statement": [{}]},
        {"Statement": [{"Effect": "Allow", "Actions": "typo"}]},
        {"Statement": [{"Effect": "Allow", "Action": [{}]}]},
        {"Statement": [{"Effect": "Allow", "Principal": "someone"}]},
        {"Statement": [{"Effect": "Allow", "Condition": {"StringEquals": "v"}}]},
    ],
)
def test_what_is_no_policy_document_is_refused(document: Any) -> None:
    with pytest.raises(NotADocumentError, match=r"^Give"):
        meaning(document)
