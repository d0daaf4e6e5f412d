"""No write beyond the cluster: every write action on the cluster's resources and on others.

The rows are the requests that IAM decides for each action (resource types and condition keys of the
service authorization reference); the columns are places of a resource. Actions that cannot be
limited to the cluster are listed, with the reason, in `tools.docs.policy_reasons.WIDE`; there are
no others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest

from lambdas.common.names import CLUSTER_ID_TAG
from lambdas.onboarding import names
from lambdas.onboarding.policies import castai_identity
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.policies.scope import Permissions, Scope
from tests.support.iam_evaluator import Request, is_allowed
from tools.docs.policy_reasons import WIDE, Reach, Wide

ID = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER_ID = "bbbbbbbb-0000-4000-8000-000000000002"
BOUNDARY = "arn:aws:iam::111122223333:policy/boundary"
SCOPE = Scope("aws", "eu-west-1", "111122223333", "prod", ID, "vpc-1")


@dataclass(frozen=True)
class Place:
    """The place of a resource, and the cluster that it belongs to, if any."""

    scope: Scope
    tagged: bool = True
    vpc_owner: str = ""
    """The account that shares its VPC and subnets (RAM); empty: the same account."""

    @property
    def tags(self) -> dict[str, str]:
        if not self.tagged:
            return {}
        return {self.scope.cluster_tag: "owned", CLUSTER_ID_TAG: self.scope.cluster_id}

    def existing(self) -> dict[str, str | list[str]]:
        """The condition keys of a resource that exists in a VPC."""
        return {
            **{f"ec2:ResourceTag/{key}": value for key, value in self.tags.items()},
            **{f"aws:ResourceTag/{key}": value for key, value in self.tags.items()},
            "ec2:Vpc": self.vpc_arn,
        }

    @property
    def vpc_arn(self) -> str:
        return self.of_the_vpc(f"vpc/{self.scope.vpc_id}")

    def of_the_vpc(self, resource: str) -> str:
        """The ARN of a VPC, a subnet or a shared group: it has the account of the VPC's owner."""
        return replace(self.scope, account=self.vpc_owner or self.scope.account).ec2(resource)

    def wanted(self) -> dict[str, str | list[str]]:
        """The condition keys of a resource that the request creates."""
        return {f"aws:RequestTag/{key}": value for key, value in self.tags.items()}


OWN = Place(SCOPE)
SHARED_VPC = replace(OWN, vpc_owner="222233334444")
SECOND = Place(replace(SCOPE, cluster="prod-2", cluster_id=OTHER_ID))
UNTAGGED = replace(SECOND, tagged=False)
ELSEWHERE = {
    "another cluster in the VPC": SECOND,
    "untagged in the VPC": UNTAGGED,
    "another cluster in another VPC": Place(replace(SECOND.scope, vpc_id="vpc-2")),
    "untagged in another VPC": replace(UNTAGGED, scope=replace(SECOND.scope, vpc_id="vpc-2")),
    "another VPC of the account that shares ours": replace(
        UNTAGGED, scope=replace(SECOND.scope, vpc_id="vpc-2"), vpc_owner="222233334444"
    ),
    "the same name in another region": Place(
        replace(SCOPE, region="us-east-1", cluster_id=OTHER_ID, vpc_id="vpc-3")
    ),
    "the same name in another account": Place(replace(SCOPE, account="999900009999")),
}

Row = Callable[[Place], list[Request]]


def on(action: str, kind: str) -> Row:
    """An action on one existing EC2 resource."""
    return lambda place: [Request(action, place.scope.ec2(kind), place.existing())]


def launch(place: Place) -> list[Request]:
    scope = place.scope
    image = f"arn:{scope.partition}:ec2:{scope.region}::image/ami-1"
    return [
        Request("ec2:RunInstances", scope.ec2("instance/*"), place.wanted()),
        Request(
            "ec2:RunInstances", place.of_the_vpc("subnet/subnet-1"), {"ec2:Vpc": place.vpc_arn}
        ),
        Request("ec2:RunInstances", scope.ec2("security-group/sg-1"), place.existing()),
        Request("ec2:RunInstances", scope.ec2("network-interface/*")),
        Request("ec2:RunInstances", scope.ec2("volume/*")),
        Request("ec2:RunInstances", scope.ec2("key-pair/ours")),
        Request("ec2:RunInstances", image),
        *(
            Request("ec2:CreateTags", scope.ec2(kind), {"ec2:CreateAction": "RunInstances"})
            for kind in ("instance/*", "volume/*", "network-interface/*")
        ),
    ]


def create_security_group(place: Place) -> list[Request]:
    scope, group = place.scope, place.scope.ec2("security-group/*")
    return [
        Request("ec2:CreateSecurityGroup", group, place.wanted()),
        Request("ec2:CreateSecurityGroup", place.vpc_arn, {"ec2:VpcID": scope.vpc_id}),
        Request("ec2:CreateTags", group, {"ec2:CreateAction": "CreateSecurityGroup"}),
    ]


def create_key_pair(action: str) -> Row:
    return lambda place: [
        Request(f"ec2:{action}", place.scope.ec2("key-pair/k"), place.wanted()),
        Request("ec2:CreateTags", place.scope.ec2("key-pair/k"), {"ec2:CreateAction": action}),
    ]


def on_node_role(action: str, **context: str) -> Row:
    return lambda place: [Request(action, place.scope.node_role_arn, context)]


def on_profile(action: str) -> Row:
    return lambda place: [Request(action, place.scope.instance_profile_arn)]


def on_auto_scaling_group(action: str) -> Row:
    def requests(place: Place) -> list[Request]:
        group = place.scope.regional("autoscaling", "autoScalingGroup:u:autoScalingGroupName/g")
        tags = {f"autoscaling:ResourceTag/{key}": value for key, value in place.tags.items()}
        return [Request(action, group, tags)]

    return requests


def on_node_group(action: str) -> Row:
    return lambda place: [
        Request(action, place.scope.regional("eks", f"nodegroup/{place.scope.cluster}/workers/u"))
    ]


def in_account(action: str, resource: str, service: str = "iam", **context: str) -> Row:
    """An action on a resource that an account (and region) has once."""

    def requests(place: Place) -> list[Request]:
        scope = place.scope
        arn = scope.iam(resource) if service == "iam" else scope.regional(service, resource)
        return [Request(action, arn, context)]

    return requests


NODE_POLICY = {"iam:PolicyARN": "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy"}
SPOT_SERVICE_ROLE = "role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"

STRICT: dict[str, Row] = {
    "iam:PassRole": on_node_role("iam:PassRole", **{"iam:PassedToService": "ec2.amazonaws.com"}),
    "iam:CreateServiceLinkedRole": in_account("iam:CreateServiceLinkedRole", SPOT_SERVICE_ROLE),
    "ec2:RunInstances": launch,
    "ec2:TerminateInstances": on("ec2:TerminateInstances", "instance/i-1"),
    "ec2:StartInstances": on("ec2:StartInstances", "instance/i-1"),
    "ec2:StopInstances": on("ec2:StopInstances", "instance/i-1"),
    "ec2:CreateTags": on("ec2:CreateTags", "instance/i-1"),
    "ec2:AuthorizeSecurityGroupIngress": on(
        "ec2:AuthorizeSecurityGroupIngress", "security-group/sg-1"
    ),
    "ec2:AuthorizeSecurityGroupEgress": on(
        "ec2:AuthorizeSecurityGroupEgress", "security-group/sg-1"
    ),
    "ec2:RevokeSecurityGroupIngress": on("ec2:RevokeSecurityGroupIngress", "security-group/sg-1"),
    "ec2:RevokeSecurityGroupEgress": on("ec2:RevokeSecurityGroupEgress", "security-group/sg-1"),
    "ec2:DeleteSecurityGroup": on("ec2:DeleteSecurityGroup", "security-group/sg-1"),
    "ec2:DeleteNetworkInterface": on("ec2:DeleteNetworkInterface", "network-interface/eni-1"),
    "ec2:CreateKeyPair": create_key_pair("CreateKeyPair"),
    "ec2:ImportKeyPair": create_key_pair("ImportKeyPair"),
    "ec2:DeleteKeyPair": on("ec2:DeleteKeyPair", "key-pair/k"),
    **{
        action: on_auto_scaling_group(action)
        for action in (
            "autoscaling:UpdateAutoScalingGroup",
            "autoscaling:SuspendProcesses",
            "autoscaling:ResumeProcesses",
            "autoscaling:TerminateInstanceInAutoScalingGroup",
        )
    },
    **{
        action: on_node_group(action)
        for action in (
            "eks:UpdateNodegroupConfig",
            "eks:DeleteNodegroup",
            "eks:TagResource",
            "eks:UntagResource",
        )
    },
}
ONLY_FULL: dict[str, Row] = {
    "iam:CreateRole": on_node_role("iam:CreateRole", **{"iam:PermissionsBoundary": BOUNDARY}),
    "iam:DeleteRole": on_node_role("iam:DeleteRole"),
    "iam:AttachRolePolicy": on_node_role("iam:AttachRolePolicy", **NODE_POLICY),
    "iam:DetachRolePolicy": on_node_role("iam:DetachRolePolicy", **NODE_POLICY),
    "iam:CreateInstanceProfile": on_profile("iam:CreateInstanceProfile"),
    "iam:DeleteInstanceProfile": on_profile("iam:DeleteInstanceProfile"),
    "iam:AddRoleToInstanceProfile": on_profile("iam:AddRoleToInstanceProfile"),
    "iam:RemoveRoleFromInstanceProfile": on_profile("iam:RemoveRoleFromInstanceProfile"),
    "iam:DeleteServiceLinkedRole": in_account("iam:DeleteServiceLinkedRole", SPOT_SERVICE_ROLE),
    "ec2:CreateSecurityGroup": create_security_group,
}
SPOT_LAMBDA: dict[str, Row] = {
    "iam:PassRole": lambda place: request(
        "iam:PassRole",
        place.scope.castai_function_role_arn,
        **{"iam:PassedToService": "lambda.amazonaws.com"},
    ),
    **{
        action: in_account(action, f"function:{names.SPOT_FUNCTION}", "lambda")
        for action in (
            "lambda:CreateFunction",
            "lambda:DeleteFunction",
            "lambda:UpdateFunctionCode",
            "lambda:AddPermission",
        )
    },
    **{
        action: in_account(action, "rule/cast-ai-spot", "events")
        for action in (
            "events:PutRule",
            "events:DeleteRule",
            "events:PutTargets",
            "events:RemoveTargets",
        )
    },
}
ROWS = {
    Permissions.FULL: STRICT | ONLY_FULL,
    Permissions.STANDARD: STRICT,
    Permissions.STRICT: STRICT,
}
"""Every write action of each variant, without those of `SPOT_LAMBDA`."""


@cache
def documents(permissions: Permissions, *, spot_lambda: bool = True) -> list[Document]:
    return [
        castai_identity.cast_eks_policy(
            SCOPE, permissions, manage_spot_lambda=spot_lambda, boundary=BOUNDARY
        ),
        castai_identity.restricted_access(SCOPE, permissions),
    ]


def may(permissions: Permissions, requests: list[Request], *, spot_lambda: bool = True) -> bool:
    """Whether AWS allows the action: it needs every one of the requests."""
    written = documents(permissions, spot_lambda=spot_lambda)
    return all(is_allowed(written, request) for request in requests)


def reaches(wide: Wide, place: Place) -> bool:
    if place.scope.account != SCOPE.account:
        return False
    if wide.reach is Reach.VPC:
        return place.vpc_arn == OWN.vpc_arn
    # An account's IAM has no regions.
    return place.scope.region == SCOPE.region or all(a.startswith("iam:") for a in wide.actions)


def is_listed(
    action: str, permissions: Permissions, place: Place, *, spot_lambda: bool = False
) -> bool:
    return any(
        action in wide.actions
        and permissions in wide.permissions
        and wide.spot_lambda == spot_lambda
        and reaches(wide, place)
        for wide in WIDE
    )


ON_OWN = [(p, action, row) for p, rows in ROWS.items() for action, row in rows.items()]


@pytest.mark.parametrize(("permissions", "action", "row"), ON_OWN)
def test_every_action_is_allowed_on_the_own_cluster(
    permissions: Permissions, action: str, row: Row
) -> None:
    for own in (OWN, SHARED_VPC):
        assert may(permissions, row(own)), action


@pytest.mark.parametrize("permissions", Permissions)
def test_a_shared_security_group_can_be_used_and_not_changed(permissions: Permissions) -> None:
    group = SHARED_VPC.of_the_vpc("security-group/sg-2")
    at_launch = Request("ec2:RunInstances", group, {"ec2:Vpc": SHARED_VPC.vpc_arn})
    assert may(permissions, [*launch(SHARED_VPC), at_launch])
    elsewhere = Request("ec2:RunInstances", group, {"ec2:Vpc": OTHER_VPC.vpc_arn})
    assert not may(permissions, [*launch(SHARED_VPC), elsewhere])
    change = Request("ec2:AuthorizeSecurityGroupIngress", group, SHARED_VPC.existing())
    assert not may(permissions, [change])


@pytest.mark.parametrize("where", ELSEWHERE)
@pytest.mark.parametrize("permissions", Permissions)
def test_a_write_beyond_the_cluster_is_allowed_only_if_it_is_listed(
    permissions: Permissions, where: str
) -> None:
    place = ELSEWHERE[where]
    allowed = {action: may(permissions, row(place)) for action, row in ROWS[permissions].items()}
    assert allowed == {action: is_listed(action, permissions, place) for action in allowed}


@pytest.mark.parametrize("permissions", Permissions)
@pytest.mark.parametrize("action", SPOT_LAMBDA)
def test_the_actions_on_castais_function_are_allowed_on_request_only(
    permissions: Permissions, action: str
) -> None:
    row = SPOT_LAMBDA[action]
    assert may(permissions, row(OWN))
    assert not may(permissions, row(OWN), spot_lambda=False)
    for place in ELSEWHERE.values():
        listed = is_listed(action, permissions, place, spot_lambda=True)
        assert may(permissions, row(place)) is listed


@pytest.mark.parametrize("permissions", Permissions)
def test_every_write_action_of_a_document_is_a_row(permissions: Permissions) -> None:
    rows = {*ROWS[permissions], *SPOT_LAMBDA}
    for document in documents(permissions):
        for statement in document["Statement"]:
            for action in statement["Action"]:
                if action not in {"eks:Describe*", "eks:List*"}:
                    assert any(fits(action, row) for row in rows), f"no row for {action}"


def fits(pattern: str, action: str) -> bool:
    head, star, tail = pattern.partition("*")
    return action == pattern or bool(star and action.startswith(head) and action.endswith(tail))


def test_actions_of_full_are_denied_in_other_variants() -> None:
    for action, row in ONLY_FULL.items():
        for permissions in (Permissions.STANDARD, Permissions.STRICT):
            assert not may(permissions, row(OWN)), action


# Privilege escalation -----------------------------------------------------------------------------


def request(action: str, resource: str, **context: str) -> list[Request]:
    return [Request(action, resource, context)]


ATTEMPTS: dict[str, list[Request]] = {
    "pass another role to an instance": request(
        "iam:PassRole", SCOPE.iam("role/admin"), **{"iam:PassedToService": "ec2.amazonaws.com"}
    ),
    "pass the node role to a function": request(
        "iam:PassRole", SCOPE.node_role_arn, **{"iam:PassedToService": "lambda.amazonaws.com"}
    ),
    "attach AdministratorAccess to the node role": request(
        "iam:AttachRolePolicy",
        SCOPE.node_role_arn,
        **{"iam:PolicyARN": "arn:aws:iam::aws:policy/AdministratorAccess"},
    ),
    "create the node role without the boundary": request("iam:CreateRole", SCOPE.node_role_arn),
    "write an inline policy": request("iam:PutRolePolicy", SCOPE.node_role_arn),
    "change its own policy": request(
        "iam:CreatePolicyVersion", SCOPE.policy_arn(account_wide=False)
    ),
    "create an access key": request("iam:CreateAccessKey", SCOPE.user_arn),
    "claim an untagged instance by tagging it": [
        Request(
            "ec2:CreateTags",
            SCOPE.ec2("instance/i-1"),
            UNTAGGED.existing() | OWN.wanted(),
        )
    ],
    "claim a security group by tagging it": [
        Request(
            "ec2:CreateTags", SCOPE.ec2("security-group/sg-1"), UNTAGGED.existing() | OWN.wanted()
        )
    ],
    "tag the VPC": request("ec2:CreateTags", OWN.vpc_arn),
    "create an access entry": request("eks:CreateAccessEntry", SCOPE.cluster_arn),
    "delete the cluster": request("eks:DeleteCluster", SCOPE.cluster_arn),
    "pass the spot handler's role to a function": request(
        "iam:PassRole", SCOPE.spot_role_arn, **{"iam:PassedToService": "lambda.amazonaws.com"}
    ),
    "pass its function's role to an instance": request(
        "iam:PassRole",
        SCOPE.castai_function_role_arn,
        **{"iam:PassedToService": "ec2.amazonaws.com"},
    ),
    "change another function": request(
        "lambda:UpdateFunctionCode", SCOPE.regional("lambda", "function:payments")
    ),
    "delete another rule": request("events:DeleteRule", SCOPE.regional("events", "rule/payments")),
    "delete another service's role": request(
        "iam:DeleteServiceLinkedRole",
        SCOPE.iam("role/aws-service-role/eks.amazonaws.com/AWSServiceRoleForAmazonEKS"),
    ),
}


@pytest.mark.parametrize("permissions", Permissions)
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_attempt_to_get_more_permissions_is_denied(
    permissions: Permissions, attempt: str
) -> None:
    assert not may(permissions, ATTEMPTS[attempt])


OTHER_VPC = ELSEWHERE["another cluster in another VPC"]


@pytest.mark.parametrize("permissions", Permissions)
@pytest.mark.parametrize(
    ("resource", "context"),
    [
        ("instance/*", SECOND.wanted()),
        ("instance/*", {}),
        ("subnet/subnet-2", {"ec2:Vpc": OTHER_VPC.vpc_arn}),
        ("security-group/sg-2", OTHER_VPC.existing()),
        ("network-interface/eni-2", OTHER_VPC.existing()),
    ],
)
def test_a_launch_with_one_resource_of_another_place_is_denied(
    permissions: Permissions, resource: str, context: dict[str, str | list[str]]
) -> None:
    kind = resource.partition("/")[0]
    rest = [r for r in launch(OWN) if not r.resource.endswith((f":{kind}/*", f"{kind}/{kind}-1"))]
    assert may(permissions, rest)
    foreign = Request("ec2:RunInstances", SCOPE.ec2(resource), context)
    assert not may(permissions, [*rest, foreign])


def test_strict_permissions_need_both_tags() -> None:
    for tag in OWN.tags:
        one = {f"ec2:ResourceTag/{tag}": OWN.tags[tag]}
        terminate = Request("ec2:TerminateInstances", SCOPE.ec2("instance/i-1"), one)
        assert not may(Permissions.STRICT, [terminate])
        launched = Request(
            "ec2:RunInstances", SCOPE.ec2("instance/*"), {f"aws:RequestTag/{tag}": OWN.tags[tag]}
        )
        assert not may(Permissions.STRICT, [launched])


def test_a_shared_instance_of_the_cluster_can_be_stopped() -> None:
    shared = {f"ec2:ResourceTag/{SCOPE.cluster_tag}": "shared"}
    stop = Request("ec2:StopInstances", SCOPE.ec2("instance/i-1"), shared)
    assert may(Permissions.FULL, [stop])


# A policy that all clusters of the account share --------------------------------------------------


def test_an_account_wide_policy_is_the_same_for_every_cluster_and_region() -> None:
    for permissions in (Permissions.FULL, Permissions.STANDARD):
        one, other, elsewhere = (
            castai_identity.cast_eks_policy(
                scope, permissions, manage_spot_lambda=True, boundary=None, account_wide=True
            )
            for scope in (SCOPE, OTHER_VPC.scope, replace(OTHER_VPC.scope, region="us-east-1"))
        )
        assert one == other == elsewhere


@pytest.mark.parametrize("where", ELSEWHERE)
def test_an_account_wide_policy_adds_other_node_roles_and_other_regions_key_pairs(
    where: str,
) -> None:
    shared = [
        castai_identity.cast_eks_policy(
            SCOPE,
            Permissions.STANDARD,
            manage_spot_lambda=False,
            boundary=None,
            account_wide=True,
        ),
        castai_identity.restricted_access(SCOPE, Permissions.STANDARD, account_wide=True),
    ]
    place = ELSEWHERE[where]
    for action, row in ROWS[Permissions.STANDARD].items():
        assert all(is_allowed(shared, r) for r in row(OWN)), action
        allowed = all(is_allowed(shared, r) for r in row(place))
        # The document is the same in every region, and so are the rights to key pairs.
        wide = action == "iam:PassRole" or action.endswith("KeyPair")
        passes = wide and place.scope.account == SCOPE.account
        assert allowed is (passes or is_listed(action, Permissions.STANDARD, place)), action
