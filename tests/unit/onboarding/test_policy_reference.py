"""Every policy document: AWS's service reference, partitions, sizes, and what is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli import policy as policy_command
from lambdas.common.errors import PermanentError
from lambdas.common.names import CLUSTER_ID_TAG
from lambdas.onboarding.names import NameRefusedError
from lambdas.onboarding.policies import castai_identity, node_role, spot_handler_role
from lambdas.onboarding.policies.document import (
    MANAGED_LIMIT,
    ROLE_INLINE_LIMIT,
    USER_INLINE_LIMIT,
    DocumentTooLargeError,
    allow,
    deny,
    size,
)
from lambdas.onboarding.policies.scope import USER_CLUSTER_CHARACTERS, Mode, Permissions
from tests.support.iam_reference import faults, over_named, statements, wide_actions
from tests.support.policy_documents import REGIONS, Made, axes, everything, made, producers

ROOT = Path(__file__).parents[3]
TRUST_LIMIT = 2_048  # IAM quotas, without a request for more
ATTACHED_LIMIT = 10  # managed policies of a user or a role, IAM quotas

# By Sid: why actions that take resources are allowed on all of them.
WIDE = {
    "AttachToVpc": "Lambda creates a function in a VPC only with these on every resource; a Deny "
    "blocks them for the function's code",
}
# By Sid: why a statement has actions and resources that do not belong together. IAM ignores such a
# pair, and one statement is shorter than one for each kind of resource.
OVER_NAMED = {
    "Connect": "the agent's role has one such policy for each cluster, and 10,240 characters",
    "EKS": "CastEKSPolicy is close to 6,144 characters with the longest names",
    "FindByName": "the documents of the administrator are close to 6,144 characters",
    "VpcRestrictedActions": "a user's inline policies have 2,048 characters",
    "WriteOwnLog": "one statement for the log group and its streams",
}


@dataclass
class Survey:
    """What all documents together have."""

    functions: Counter[str] = field(default_factory=Counter)
    """Documents by the function that makes them."""
    statements: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    """Each different statement, by its JSON."""
    too_large: list[str] = field(default_factory=list)
    refused: list[Made] = field(default_factory=list)

    def add(self, made_of: Made) -> None:
        if made_of.refused:
            self.refused.append(made_of)
        for name, document in made_of.documents.items():
            self.functions[made_of.function] += 1
            if size(document) > limit(made_of):
                self.too_large.append(f"{name} of {made_of}")
            for statement in statements(document):
                self.statements.setdefault(msgspec.json.encode(statement), statement)


def limit(made_of: Made) -> int:
    """The characters that IAM allows for the documents of this call."""
    _, _, function = made_of.function.partition(".")
    if function.endswith("_trust"):
        return TRUST_LIMIT
    if function == "restricted_access" and made_of.arguments["mode"] is Mode.USER:
        return USER_INLINE_LIMIT
    inline = {"restricted_access", "node_ipv6_policy", "castai_function_policy", "spot_handler"}
    return ROLE_INLINE_LIMIT if function in {*inline, "agent_cluster"} else MANAGED_LIMIT


@pytest.fixture(scope="module")
def survey() -> Survey:
    found = Survey()
    for each in everything():
        found.add(each)
    return found


def all_faults(found: Iterable[dict[str, Any]]) -> list[str]:
    return [f"{each.get('Sid')}: {fault}" for each in found for fault in faults(each)]


# The documents ------------------------------------------------------------------------------------


def test_every_statement_is_valid_in_the_service_reference(survey: Survey) -> None:
    assert len(survey.statements) > 500
    assert all_faults(survey.statements.values()) == []


def test_every_function_that_makes_a_document_is_in_the_survey(survey: Survey) -> None:
    parts = {"functions.own_log"}  # a statement
    assert {name for name, _ in producers()} - parts == survey.functions.keys()
    assert sum(survey.functions.values()) > 10_000


def test_no_other_source_makes_a_statement() -> None:
    """The alarms' topic has one; the tests of the templates check it."""
    sources = [
        path for part in ("lambdas", "cli", "stacks") for path in (ROOT / part).rglob("*.py")
    ]
    made_in = {
        str(path.relative_to(ROOT))
        for path in sources
        if re.search(r"""["']Effect["']:|PolicyStatement\(""", path.read_text(encoding="utf-8"))
    }
    policies = {path for path in made_in if path.startswith("lambdas/onboarding/policies/")}
    assert made_in - policies == {"stacks/constructs/alarms.py"}


def test_actions_on_all_resources_have_a_reason(survey: Survey) -> None:
    found = {each["Sid"] for each in survey.statements.values() if wide_actions(each)}
    assert found == WIDE.keys()


def test_actions_with_resources_that_they_do_not_take_have_a_reason(survey: Survey) -> None:
    found = {each.get("Sid") for each in survey.statements.values() if over_named(each)}
    assert found == OVER_NAMED.keys()


@pytest.mark.parametrize("partition", REGIONS)
def test_every_arn_is_of_the_partition(partition: str) -> None:
    values = {**axes(partition), "path": ("/",)}
    arns = {
        part
        for name, function in producers()
        for each in made(name, function, values | {"scope": values["scope"][:1]})
        for document in each.documents.values()
        for part in json.dumps(document).split('"')
        if part.startswith("arn:")
    }
    managed = [
        *castai_identity.identity_managed_policies(partition, Permissions.FULL),
        *node_role.node_managed_policies(partition, ssm=True, ebs_csi=True),
        *spot_handler_role.spot_managed_policies(partition),
    ]
    assert len(arns) > 30
    assert {arn for arn in arns if not arn.startswith(f"arn:{partition}:")} == set()
    assert all(arn.startswith(f"arn:{partition}:iam::aws:policy/") for arn in managed)


# Sizes and refusals -------------------------------------------------------------------------------


def test_every_document_fits_with_the_longest_names(survey: Survey) -> None:
    assert survey.too_large == []


def test_a_role_has_space_for_all_attached_policies() -> None:
    identity = castai_identity.identity_managed_policies("aws", Permissions.FULL)
    nodes = node_role.node_managed_policies("aws", ssm=True, ebs_csi=True)
    assert len(identity) + len(["CastEKSPolicy"]) <= ATTACHED_LIMIT
    assert len(nodes) <= ATTACHED_LIMIT


def reason(arguments: dict[str, Any], function: str) -> type[Exception] | None:
    """Why this call has to be refused, as the class of its error."""
    scope, mode = arguments.get("scope"), arguments.get("mode", Mode.ROLE)
    account_wide = arguments.get("account_wide", False)
    if function in {"cast_eks_policy", "restricted_access"} and not scope.cluster_id:
        return ValueError
    if function == "cast_eks_policy" and account_wide:
        return PermanentError if arguments["permissions"] is Permissions.STRICT else None
    if function == "administrator" and Mode.USER in arguments["modes"]:
        return NameRefusedError if len(scope.cluster) > USER_CLUSTER_CHARACTERS else None
    if function == "restricted_access" and mode is Mode.USER:
        # With an account-wide policy the cluster's statements are in the inline one.
        long = len(scope.cluster) > USER_CLUSTER_CHARACTERS
        return DocumentTooLargeError if account_wide or long else None
    return None


def test_only_what_has_a_reason_is_refused(survey: Survey) -> None:
    refused = Counter(each.function for each in survey.refused)
    for each in survey.refused:
        _, _, function = each.function.partition(".")
        assert type(each.refused) is reason(dict(each.arguments), function), str(each)
    assert refused.keys() == {
        "castai_identity.cast_eks_policy",
        "castai_identity.restricted_access",
        "onboarder.administrator",
    }


# The command --------------------------------------------------------------------------------------


COMMANDS = {
    each.callback.__name__: each.callback for each in policy_command.app.registered_commands
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_document_that_the_command_prints_is_valid(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    printed: list[dict[str, Any]] = []
    monkeypatch.setattr(policy_command, "_print", lambda found, **_: printed.append(found))

    @wraps(COMMANDS[command])
    def printing(**arguments: Any) -> dict[str, Any]:
        COMMANDS[command](**arguments)
        return printed.pop()

    found: dict[str, dict[str, Any]] = {}
    for partition in REGIONS:
        for each in made(command, printing, axes(partition)):
            assert bool(each.documents) is not bool(each.refused)
            for document in each.documents.values():
                found |= {json.dumps(one): one for one in statements(document)}
    assert found
    assert all_faults(found.values()) == []


# The check itself ---------------------------------------------------------------------------------

GROUP = "arn:aws:ec2:eu-west-1:111122223333:security-group/*"
ROLE = "arn:aws:iam::111122223333:role/r"
INSTANCE = GROUP.replace("security-group", "instance")
TAG = f"aws:RequestTag/{CLUSTER_ID_TAG}"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (allow("S", ["ec2:DescribeInstance"], ["*"]), "no such action"),
        (allow("S", ["ec2:Nothing*"], ["*"]), "no such action"),
        (allow("S", ["ec3:DescribeInstances"], ["*"]), "no such action"),
        (allow("S", ["iam:GetRole"], [ROLE, GROUP]), "no action of the statement takes it"),
        (allow("S", ["iam:GetRole", "iam:GetUser"], [ROLE]), "iam:GetUser: takes none"),
        (allow("S", ["ec2:DescribeInstances"], [INSTANCE]), "takes none"),
        (allow("S", ["iam:GetRole"], [ROLE, "*"]), "the other resources say nothing"),
        (allow("S", ["iam:GetRole"], [ROLE], {"ArnLike": {"ec2:Vpc": "*"}}), "no such key"),
        (
            allow("S", ["ec2:RunInstances"], [INSTANCE], {"ArnLike": {"ec2:Vpc": "*"}}),
            "RunInstances has no such key on these resources",  # the subnet's key
        ),
        (
            allow("S", ["ec2:DeleteSecurityGroup"], [GROUP], {"StringEquals": {"ec2:Vpc": "*"}}),
            "the key is of type ARN",
        ),
        (
            allow("S", ["iam:PassRole"], [ROLE], {"ArnLike": {"iam:PassedToService": "*"}}),
            "the key is of type String",
        ),
        (
            allow("S", ["ec2:CreateTags"], [GROUP], {"StringEquals": {"aws:TagKeys": "a"}}),
            "the key is of type ArrayOfString",
        ),
        (
            allow("S", ["ec2:CreateTags"], [GROUP], {"ForAnyValue:StringLike": {"ec2:Vpc": "a"}}),
            "the key is of type ARN",
        ),
        (deny("S", ["eks:CreateCluster"], {"ArnNotEquals": {"eks:policyArn": "*"}}), "no such key"),
    ],
)
def test_a_fault_is_found(statement: dict[str, Any], said: str) -> None:
    assert said in "\n".join(faults(statement))


@pytest.mark.parametrize(
    "statement",
    [
        allow("S", ["ec2:*SecurityGroupIngress"], [GROUP]),
        allow("S", ["iam:GetRole"], ["arn:aws:iam::111122223333:*"]),
        allow("S", ["IAM:getrole"], [ROLE], {"Null": {"IAM:ResourceTag/Team": "true"}}),
        allow(
            "S",
            ["ec2:CreateTags"],
            [GROUP],
            {"ForAllValues:StringLikeIfExists": {"aws:TagKeys": ["a"]}},
        ),
        allow("S", ["ec2:CreateTags"], ["*"], {"Bool": {"aws:SecureTransport": "true"}}),
        allow("S", ["ec2:DeleteSecurityGroup"], [GROUP], {"ArnLikeIfExists": {"ec2:Vpc": "*"}}),
        allow("S", ["ec2:CreateTags"], [GROUP], {"StringLike": {TAG: "*"}}),
    ],
)
def test_a_valid_statement_has_no_fault(statement: dict[str, Any]) -> None:
    assert faults(statement) == ()


def test_wide_and_over_named_actions_are_found() -> None:
    assert wide_actions(allow("S", ["iam:GetRole", "iam:ListRoles"], ["*"])) == {"iam:GetRole"}
    assert wide_actions(deny("S", ["iam:GetRole"], {})) == set()
    both = allow("S", ["ec2:DeleteSecurityGroup", "ec2:CreateTags"], [GROUP, INSTANCE])
    assert over_named(both) == {"ec2:DeleteSecurityGroup"}


def test_a_parameter_without_values_is_an_error() -> None:
    def document(color: str) -> dict[str, Any]:
        return {"Statement": [], "color": color}

    with pytest.raises(LookupError, match="values for the parameter color"):
        list(made("document", document, axes("aws")))
