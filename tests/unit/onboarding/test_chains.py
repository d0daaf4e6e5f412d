"""Privilege escalation of CAST AI's identity over several steps, and what it can reach then.

`test_isolation` decides single requests. These tests follow permissions. A principal acts as a role
if it may pass the role to a function or an instance and start it. It acts as the role of one of our
functions if it may invoke the function, because the function trusts its event. It acts as
a principal if it may write the principal's policies, keys or trust policy. Permissions beyond the
cluster that are reached in this way are listed, with the reason, in
`tools.docs.policy_reasons.CHAINS`; there are no others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
from moto.iam.aws_managed_policies import aws_managed_policies_data

from lambdas.onboarding import names
from lambdas.onboarding.policies import (
    agent_role,
    castai_function,
    castai_identity,
    node_role,
    onboarder,
    spot_handler_role,
)
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.policies.scope import FunctionScope, Mode, Permissions, Scope
from lambdas.onboarding.properties import Onboarding
from tests.support.iam_evaluator import Request, is_allowed
from tests.unit.onboarding.test_isolation import OWN, SCOPE, SECOND, launch
from tools.docs.policy_reasons import CHAINS

OTHER = SECOND.scope
ACCOUNT_ADMINISTRATOR = "administrator of the account"
LAMBDA, EC2 = "lambda.amazonaws.com", "ec2.amazonaws.com"
ADMINISTRATOR_ACCESS = "arn:aws:iam::aws:policy/AdministratorAccess"


@cache
def aws_policies() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(aws_managed_policies_data)
    return found


def managed(arns: Iterable[str]) -> dict[str, Document]:
    """The documents of AWS managed policies by name."""
    policy_names = [arn.rpartition("/")[2] for arn in arns]
    return {name: aws_policies()[name]["Document"] for name in policy_names}


@dataclass(frozen=True)
class Principal:
    """A user or role of the account."""

    name: str
    arn: str
    named: dict[str, Document]
    service: str = ""
    """The service that may assume it."""

    @property
    def documents(self) -> list[Document]:
        return [*self.named.values()]

    def may(self, action: str, resource: str, **context: str | list[str]) -> bool:
        return is_allowed(self.documents, Request(action, resource, context))


@dataclass(frozen=True)
class Function:
    """A Lambda function that trusts its event, and the rules that invoke it."""

    arn: str
    role: str
    rules: str = ""


@dataclass(frozen=True)
class Account:
    """Two onboarded clusters, the app's functions, and principals of other teams."""

    identity: Principal
    others: list[Principal]
    functions: list[Function]
    in_clusters: dict[str, set[str]]
    """By cluster, the names of the principals with access to it."""


def account(
    permissions: Permissions,
    mode: Mode,
    *,
    spot_lambda: bool,
    account_wide: bool = False,
    existing: str = "role of CAST AI's function of another cluster",
) -> Account:
    """`existing`: the principal whose role CAST AI's existing function has."""
    user = mode is Mode.USER
    identity = Principal(
        "CAST AI",
        SCOPE.user_arn if user else SCOPE.role_arn,
        {
            "managed": castai_identity.cast_eks_policy(
                SCOPE,
                permissions,
                manage_spot_lambda=spot_lambda,
                boundary=None,
                account_wide=account_wide,
            ),
            "inline": castai_identity.restricted_access(
                SCOPE, permissions, mode=Mode.ROLE, account_wide=account_wide
            ),
            **managed(castai_identity.identity_managed_policies("aws", permissions)),
        },
    )
    others = [
        role_of_nodes("node role", SCOPE, identity),
        role_of_nodes("node role of another cluster", OTHER, identity),
        castai_function_role("role of CAST AI's function", SCOPE),
        castai_function_role("role of CAST AI's function of another cluster", OTHER),
        our_function(
            "spot handler",
            SCOPE.spot_role_arn,
            spot_handler_role.spot_handler(
                here("castai-spot-handler"), failure_queue="failures", api_key_secret="castai"
            ),
            *managed(spot_handler_role.spot_managed_policies("aws")).values(),
        ),
        onboarding("onboarding of the cluster", SCOPE),
        onboarding("onboarding of another cluster", OTHER),
        our_function(
            "agent's function",
            SCOPE.iam("role/castai-agent-eu-west-1"),
            agent_role.agent_function(
                here("castai-agent"),
                own_role="castai-agent-eu-west-1",
                api_key_secret="castai",
            ),
            agent_role.agent_cluster("aws", "prod"),
            agent_role.agent_cluster("aws", "prod-2"),
        ),
        our_function("another team's function", SCOPE.iam("role/payments"), ANYTHING),
        Principal("another team's instances", SCOPE.iam("role/builds"), {"all": ANYTHING}, EC2),
        Principal("another user", SCOPE.iam("user/administrator"), {"all": ANYTHING}),
    ]
    rules = SCOPE.regional("events", "rule/castai-spot-handler-SpotInterruption")
    return Account(
        identity,
        others,
        [
            Function(function("castai-spot-handler"), "spot handler", rules),
            Function(function("castai-onboarding-prod"), "onboarding of the cluster"),
            Function(function("castai-onboarding-prod-2"), "onboarding of another cluster"),
            Function(function("castai-agent"), "agent's function"),
            Function(function("payments"), "another team's function"),
            Function(function(names.SPOT_FUNCTION), existing),
        ],
        {
            "prod": {"node role", "spot handler", *({"CAST AI"} if user else set())},
            "prod-2": {"node role of another cluster", "spot handler"},
        },
    )


ANYTHING: Document = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def function(name: str) -> str:
    return SCOPE.regional("lambda", f"function:{name}")


def here(name: str) -> FunctionScope:
    return FunctionScope(SCOPE.partition, SCOPE.account, (SCOPE.region,), name)


def our_function(name: str, arn: str, *documents: Document) -> Principal:
    return Principal(name, arn, dict(enumerated(documents)), LAMBDA)


def enumerated(documents: Iterable[Document]) -> Iterator[tuple[str, Document]]:
    return ((f"document {number}", document) for number, document in enumerate(documents))


def onboarding(name: str, scope: Scope) -> Principal:
    called = f"castai-onboarding-{scope.cluster}"
    arn = scope.iam(f"role/{called}-eu-west-1")
    documents = onboarder.onboarding_lambda(
        replace(scope, cluster_id="", vpc_id=""),
        own_role_arn=arn,
        function=called,
        api_key_secret="castai",
    )
    return our_function(name, arn, *documents.values())


def castai_function_role(name: str, scope: Scope) -> Principal:
    return our_function(
        name, scope.castai_function_role_arn, castai_function.castai_function_policy(scope)
    )


def role_of_nodes(name: str, scope: Scope, identity: Principal) -> Principal:
    """A node role with every policy that CAST AI may attach to it."""
    attachable = node_role.node_managed_policies("aws", ssm=True, ebs_csi=True)
    given = node_role.node_managed_policies("aws", ssm=False, ebs_csi=False)
    attached = [
        arn
        for arn in attachable
        if arn in given
        or identity.may("iam:AttachRolePolicy", scope.node_role_arn, **{"iam:PolicyARN": arn})
    ]
    ipv6 = node_role.node_ipv6_policy(scope.partition, scope.region, scope.account)
    documents = {**managed(attached), names.IPV6_POLICY: ipv6}
    return Principal(name, scope.node_role_arn, documents, EC2)


# Steps --------------------------------------------------------------------------------------------


def reached(it: Account) -> dict[str, str]:
    """Every principal that CAST AI can act as, with the last step to it."""
    found = {it.identity.name: ""}
    waiting = [it.identity]
    while waiting:
        actor = waiting.pop()
        for principal, how in next_steps(it, actor):
            if principal not in found:
                found[principal] = f"{actor.name}: {how}"
                waiting += [other for other in it.others if other.name == principal]
    return found


def next_steps(it: Account, actor: Principal) -> Iterator[tuple[str, str]]:
    for other in it.others:
        yield from ((other.name, how) for how in ways_into(it, actor, other))
    for each in it.functions:
        for action in ("lambda:UpdateFunctionCode", "lambda:InvokeFunction"):
            if actor.may(action, each.arn):
                yield each.role, f"{action} {each.arn}"
        for action in ("events:PutRule", "events:PutTargets"):
            if each.rules and actor.may(action, each.rules):
                yield each.role, f"{action} {each.rules}"
    for principal in (actor, *it.others):
        if may_fill(actor, principal):
            yield ACCOUNT_ADMINISTRATOR, f"writes the policies of {principal.name}"


def ways_into(it: Account, actor: Principal, other: Principal) -> Iterator[str]:
    passed = {
        service: actor.may("iam:PassRole", other.arn, **{"iam:PassedToService": service})
        for service in (LAMBDA, EC2)
    }
    makes = [names.SPOT_FUNCTION, "new", *(each.arn.rpartition(":")[2] for each in it.functions)]
    creates = any(actor.may("lambda:CreateFunction", function(name)) for name in makes)
    launches = all(is_allowed(actor.documents, request) for request in launch(OWN))
    if (other.service == LAMBDA and passed[LAMBDA] and creates) or (
        other.service == EC2 and passed[EC2] and launches
    ):
        yield f"passes {other.arn} to {other.service}"
    if actor.may("iam:UpdateAssumeRolePolicy", other.arn):
        yield "iam:UpdateAssumeRolePolicy"
    if actor.may("iam:CreateAccessKey", other.arn):
        yield "iam:CreateAccessKey"


def may_fill(actor: Principal, principal: Principal) -> bool:
    kind = "User" if ":user/" in principal.arn else "Role"
    attach = {"iam:PolicyARN": ADMINISTRATOR_ACCESS}
    return actor.may(f"iam:Put{kind}Policy", principal.arn) or actor.may(
        f"iam:Attach{kind}Policy", principal.arn, **attach
    )


# Permissions beyond the cluster -------------------------------------------------------------------

FOREIGN = [
    function("payments"),
    *(SCOPE.regional("logs", f"log-group:/aws/lambda/{name}:*") for name in ("payments", "prod")),
    SCOPE.secret("castai"),
    SCOPE.secret(names.credentials_secret_name("prod-2")),
    SCOPE.regional("eks", "cluster/prod-2"),
    SCOPE.regional("eks", "access-entry/prod-2/role/111122223333/CastLambdaRoleForSpot/1"),
    SCOPE.regional("ssm", "parameter/payments"),
    SCOPE.regional("ecr", "repository/payments"),
    SCOPE.regional("sqs", "payments"),
    SCOPE.regional("events", "rule/payments"),
    SCOPE.iam("role/payments"),
    *(
        SCOPE.ec2(thing)
        for thing in (
            "instance/i-2", "network-interface/eni-2", "volume/vol-2", "snapshot/snap-2",
            "security-group/sg-2", "key-pair/k",
        )
    ),
]  # fmt: skip
# Names and states of resources: the identity's AWS managed policies allow these reads.
READS = re.compile(r"(ec2|eks|ecr|ssm):(Describe|List)\w+")


def beyond(document: Document) -> set[str]:
    """The actions of a document that match resources of others, without regard to conditions."""
    found = set()
    for statement in document["Statement"]:
        free = [{"Statement": [{k: v for k, v in statement.items() if k != "Condition"}]}]
        for action in _list(statement["Action"]):
            fits = any(is_allowed(free, Request(action, arn)) for arn in FOREIGN)
            if fits and not READS.fullmatch(action):
                found.add(action)
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


EVERY = [(permissions, mode) for permissions in Permissions for mode in Mode]


@pytest.mark.parametrize("spot_lambda", [Onboarding(cluster_name="prod").manage_spot_lambda, True])
@pytest.mark.parametrize(("permissions", "mode"), EVERY)
def test_castai_can_act_as_the_listed_principals_only(
    permissions: Permissions, mode: Mode, spot_lambda: bool
) -> None:
    it = account(permissions, mode, spot_lambda=spot_lambda)
    found = reached(it)
    assert found.keys() == {
        "CAST AI",
        "node role",
        *(CAST_AIS_FUNCTION if spot_lambda else ()),
    }, found


# By PassRole for a function that it creates, and by the code of the function of another cluster.
CAST_AIS_FUNCTION = (
    "role of CAST AI's function",
    "role of CAST AI's function of another cluster",
)


def test_a_function_of_castais_script_would_give_the_spot_handlers_role() -> None:
    """This is why an onboarding refuses it."""
    it = account(Permissions.STRICT, Mode.ROLE, spot_lambda=True, existing="spot handler")
    assert {"spot handler", ACCOUNT_ADMINISTRATOR} <= reached(it).keys()


@pytest.mark.parametrize(("permissions", "mode"), EVERY)
def test_permissions_beyond_the_cluster_are_the_listed_ones(
    permissions: Permissions, mode: Mode
) -> None:
    it = account(permissions, mode, spot_lambda=True)
    found = reached(it)
    wide = {
        (other.name, name)
        for other in it.others
        for name, document in other.named.items()
        if other.name in found and beyond(document)
    }
    assert wide == {(c.becomes, c.policy) for c in CHAINS if permissions in c.permissions}


@pytest.mark.parametrize(("permissions", "mode"), EVERY)
def test_castai_gets_access_to_no_other_cluster(permissions: Permissions, mode: Mode) -> None:
    it = account(permissions, mode, spot_lambda=True)
    inside = {name for name, members in it.in_clusters.items() if members & reached(it).keys()}
    assert inside == {"prod"}


def test_a_shared_policy_adds_the_node_roles_of_other_clusters() -> None:
    it = account(Permissions.FULL, Mode.ROLE, spot_lambda=True, account_wide=True)
    assert reached(it).keys() == {
        "CAST AI",
        "node role",
        "node role of another cluster",
        "role of CAST AI's function",
        "role of CAST AI's function of another cluster",
    }


# The model itself: each kind of step is found -----------------------------------------------------


def allowing(*actions: str, resource: str = "*") -> Document:
    return {"Statement": [{"Effect": "Allow", "Action": [*actions], "Resource": resource}]}


@pytest.mark.parametrize(
    ("actions", "principal"),
    [
        (["iam:PassRole", "lambda:CreateFunction"], "spot handler"),
        (["lambda:UpdateFunctionCode"], "agent's function"),
        (["lambda:InvokeFunction"], "onboarding of another cluster"),
        (["events:PutTargets"], "spot handler"),
        (["iam:PassRole", "ec2:RunInstances", "ec2:CreateTags"], "another team's instances"),
        (["iam:UpdateAssumeRolePolicy"], "another team's function"),
        (["iam:CreateAccessKey"], "another user"),
        (["iam:PutRolePolicy"], ACCOUNT_ADMINISTRATOR),
        (["iam:AttachUserPolicy"], ACCOUNT_ADMINISTRATOR),
    ],
)
def test_a_step_that_is_possible_is_found(actions: list[str], principal: str) -> None:
    it = account(Permissions.STRICT, Mode.ROLE, spot_lambda=False)
    it.identity.named["more"] = allowing(*actions)
    assert principal in reached(it)


def test_the_spot_handlers_role_would_give_every_function_and_cluster() -> None:
    """This is why CAST AI's function has a role of its own."""
    it = account(Permissions.STRICT, Mode.ROLE, spot_lambda=True)
    it.identity.named["more"] = allowing("iam:PassRole", resource=SCOPE.spot_role_arn)
    assert {"onboarding of another cluster", ACCOUNT_ADMINISTRATOR} <= reached(it).keys()
