"""The policy documents: actions, sizes, partitions, trust. test_isolation decides requests."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from lambdas.common.errors import PermanentError
from lambdas.common.names import CLUSTER_ADMIN, VIEW
from lambdas.onboarding import policies
from lambdas.onboarding.names import NameRefusedError
from lambdas.onboarding.policies import (
    agent_role,
    castai_identity,
    functions,
    node_role,
    onboarder,
    spot_handler_role,
)
from lambdas.onboarding.policies.document import (
    Document,
    DocumentTooLargeError,
    size,
)
from lambdas.onboarding.policies.scope import FunctionScope, Mode, Permissions, Scope
from tests.support.iam_evaluator import Request, is_allowed

ID = "1a2b3c4d-0000-4000-8000-000000000001"
SCOPE = Scope("aws", "eu-west-1", "111122223333", "prod", ID, "vpc-0123456789abcdef0")
LONGEST = Scope(
    "aws-us-gov", "us-gov-west-1", "111122223333", "c" * 55, ID, "vpc-0123456789abcdef0"
)
BOUNDARY = "arn:aws-us-gov:iam::111122223333:policy/" + "b" * 128
OWN_ROLE = "arn:aws:iam::111122223333:role/onboarding"


def here(scope: Scope) -> FunctionScope:
    return FunctionScope(scope.partition, scope.account, (scope.region,), "f")


def actions(document: Document) -> set[str]:
    return {action for statement in document["Statement"] for action in statement["Action"]}


# Partitions ---------------------------------------------------------------------------------------


def test_in_china_ec2_has_another_service_principal() -> None:
    china = replace(SCOPE, partition="aws-cn", region="cn-north-1")
    trust = node_role.node_trust("aws-cn")["Statement"][0]
    assert trust["Principal"] == {"Service": "ec2.amazonaws.com.cn"}
    document = castai_identity.cast_eks_policy(
        china, Permissions.STRICT, manage_spot_lambda=False, boundary=None
    )
    for service in ("ec2.amazonaws.com", "ec2.amazonaws.com.cn"):
        passed = Request("iam:PassRole", china.node_role_arn, {"iam:PassedToService": service})
        assert is_allowed([document], passed)
    lambda_document = onboarder.onboarding_lambda(
        china,
        own_role_arn=china.iam("role/r"),
        function="f",
        credentials_kms_key="arn:aws-cn:kms:k",
    )
    assert "secretsmanager.cn-north-1.amazonaws.com.cn" in json.dumps(lambda_document)


# Managed policies and trust -----------------------------------------------------------------------


def test_the_attached_aws_managed_policies_are_these() -> None:
    aws = "arn:aws:iam::aws:policy/"
    assert castai_identity.identity_managed_policies("aws", Permissions.FULL) == (
        aws + "AmazonEC2ReadOnlyAccess",
        aws + "IAMReadOnlyAccess",
    )
    assert castai_identity.identity_managed_policies("aws", Permissions.STRICT) == (
        aws + "AmazonEC2ReadOnlyAccess",
    )
    nodes = (
        aws + "AmazonEKSWorkerNodePolicy",
        aws + "AmazonEC2ContainerRegistryReadOnly",
        aws + "AmazonEKS_CNI_Policy",
    )
    assert node_role.node_managed_policies("aws", ssm=False, ebs_csi=False) == nodes
    assert node_role.node_managed_policies("aws", ssm=True, ebs_csi=True) == (
        *nodes,
        aws + "AmazonSSMManagedInstanceCore",
        aws + "service-role/AmazonEBSCSIDriverPolicy",
    )
    assert spot_handler_role.spot_managed_policies("aws") == (
        aws + "CloudWatchLogsFullAccess",
        aws + "service-role/AWSLambdaRole",
        aws + "AmazonEC2ReadOnlyAccess",
    )


def test_only_castais_principal_with_the_clusters_id_may_assume_the_role() -> None:
    principal = f"arn:aws:iam::809060229965:user/cast-crossrole-{ID}"
    assert castai_identity.cross_account_trust(principal, ID)["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"AWS": principal},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:ExternalId": ID}},
        }
    ]


@pytest.mark.parametrize(
    ("trust", "service"),
    [
        (node_role.node_trust("aws"), "ec2.amazonaws.com"),
        (functions.lambda_trust("aws"), "lambda.amazonaws.com"),
    ],
)
def test_a_service_role_trusts_one_service(trust: Document, service: str) -> None:
    (statement,) = trust["Statement"]
    assert statement["Principal"] == {"Service": service}
    assert statement["Action"] == "sts:AssumeRole"


# Size ---------------------------------------------------------------------------------------------


def test_the_size_of_a_document_is_without_white_space() -> None:
    assert size({"Version": "2012-10-17", "Statement": []}) == 39


def test_a_document_that_is_too_large_is_refused_with_its_size_and_the_limit() -> None:
    with pytest.raises(DocumentTooLargeError, match=r"CastEKSRestrictedAccess has 2\d{3} .* 2048"):
        castai_identity.restricted_access(LONGEST, Permissions.FULL, account_wide=True)


def test_every_statement_is_in_the_managed_or_in_the_inline_policy() -> None:
    for account_wide in (False, True):
        managed = castai_identity.cast_eks_policy(
            SCOPE,
            Permissions.STANDARD,
            manage_spot_lambda=False,
            boundary=None,
            account_wide=account_wide,
        )
        inline = castai_identity.restricted_access(
            SCOPE, Permissions.STANDARD, mode=Mode.ROLE, account_wide=account_wide
        )
        sids = [s["Sid"] for document in (managed, inline) for s in document["Statement"]]
        assert len(sids) == len(set(sids))
        assert {"EKS", "AutoscalingActionsTagRestriction"} <= set(sids)
        assert ("prod" in json.dumps(managed)) is not account_wide


# Required values ----------------------------------------------------------------------------------


def test_castais_documents_need_the_cluster_id_and_the_vpc_id() -> None:
    for unknown in (replace(SCOPE, cluster_id=""), replace(SCOPE, vpc_id="")):
        with pytest.raises(ValueError, match="must be known"):
            castai_identity.restricted_access(unknown, Permissions.FULL)
        with pytest.raises(ValueError, match="must be known"):
            castai_identity.cast_eks_policy(
                unknown, Permissions.FULL, manage_spot_lambda=False, boundary=None
            )


def test_a_shared_policy_cannot_be_strict() -> None:
    with pytest.raises(PermanentError, match="policy per cluster"):
        castai_identity.cast_eks_policy(
            SCOPE, Permissions.STRICT, manage_spot_lambda=False, boundary=None, account_wide=True
        )


@pytest.mark.parametrize("fault", [{"cluster": "-"}, {"cluster_id": "prod"}, {"path": "castai"}])
def test_an_invalid_scope_is_refused(fault: dict[str, str]) -> None:
    with pytest.raises(NameRefusedError):
        replace(SCOPE, **fault)


def test_the_iam_path_is_in_the_arns_of_our_resources() -> None:
    scope = replace(SCOPE, path="/platform/castai/")
    assert scope.user_arn.endswith(":user/platform/castai/cast-eks-prod")
    assert scope.role_arn.endswith(":role/platform/castai/cast-eks-prod-cluster-role-1a2b3c4d")
    assert scope.node_role_arn.endswith(":role/platform/castai/cast-prod-eks-1a2b3c4d")
    assert scope.instance_profile_arn.endswith("/platform/castai/cast-prod-eks-1a2b3c4d")
    assert scope.policy_arn(account_wide=False).endswith("/platform/castai/CastEKSPolicy-prod")


@pytest.mark.parametrize(
    ("action", "arn"),
    [
        ("iam:GetUser", SCOPE.user_arn),
        ("iam:ListAccessKeys", SCOPE.user_arn),
        ("iam:GetPolicy", SCOPE.policy_arn(account_wide=False)),
        ("iam:GetRole", SCOPE.role_arn),
        ("iam:GetRole", SCOPE.node_role_arn),
        ("iam:GetRole", SCOPE.castai_function_role_arn),
        ("iam:GetInstanceProfile", SCOPE.instance_profile_arn),
    ],
)
def test_reads_are_allowed_without_the_path_too(action: str, arn: str) -> None:
    """For a resource that does not exist, IAM decides on an ARN without the path."""
    pathed = replace(SCOPE, path="/platform/castai/")
    for written in (function(pathed), [*onboarder.administrator(pathed).values()]):
        assert is_allowed(written, Request(action, arn))
        assert not is_allowed(written, Request(re.sub("Get|List", "Tag", action), arn))


# The administrator and the function ---------------------------------------------------------------

DOCUMENTED_BY_CASTAI = {
    "iam:CreateRole",
    "iam:CreatePolicy",
    "iam:GetPolicy",
    "iam:ListPolicyVersions",
    "iam:PutRolePolicy",
    "iam:AttachRolePolicy",
    "iam:CreateInstanceProfile",
    "iam:GetInstanceProfile",
    "iam:AddRoleToInstanceProfile",
    "iam:UpdateAssumeRolePolicy",
}
NOT_DOCUMENTED = {
    "iam:GetRole",
    "iam:GetPolicyVersion",
    "iam:CreatePolicyVersion",
    "iam:DeletePolicyVersion",
    "iam:ListPolicies",
    "iam:PassRole",
    "ec2:DescribeSecurityGroups",
    "ec2:CreateSecurityGroup",
    "ec2:CreateTags",
    "ec2:AuthorizeSecurityGroupIngress",
    "ec2:AuthorizeSecurityGroupEgress",
    "eks:DescribeCluster",
    "eks:ListAccessEntries",
    "eks:CreateAccessEntry",
    "sts:GetCallerIdentity",
}
USER_MODE = {
    "iam:GetUser",
    "iam:CreateUser",
    "iam:AttachUserPolicy",
    "iam:PutUserPolicy",
    "iam:CreateAccessKey",
}


def test_the_administrator_may_make_every_call_of_an_onboarding() -> None:
    granted = set[str]().union(*map(actions, onboarder.administrator(SCOPE).values()))
    assert granted >= DOCUMENTED_BY_CASTAI | NOT_DOCUMENTED | USER_MODE


def test_the_administrator_of_one_mode_has_no_permissions_of_the_other() -> None:
    granted = onboarder.administrator(SCOPE, modes=[Mode.ROLE]).values()
    assert not any("User" in action for document in granted for action in actions(document))
    user = onboarder.administrator(SCOPE, modes=[Mode.USER]).values()
    assert not is_allowed(user, Request("iam:DeleteRole", SCOPE.role_arn))
    assert is_allowed(user, Request("iam:DeleteRole", SCOPE.node_role_arn))


def function(scope: Scope = SCOPE, **options: Any) -> list[Document]:
    options = {"function": "castai-onboarding-prod", **options}
    return [*onboarder.onboarding_lambda(scope, own_role_arn=OWN_ROLE, **options).values()]


def test_the_function_may_change_resources_of_its_cluster_only() -> None:
    other = replace(SCOPE, cluster="prod-2", cluster_id="9" * 8 + ID[8:], vpc_id="vpc-2")
    for attribute in ("user_arn", "role_arn", "node_role_arn"):
        kind = "User" if attribute == "user_arn" else "Role"
        for verb in ("Delete", "Tag", "Get"):
            assert is_allowed(function(), Request(f"iam:{verb}{kind}", getattr(SCOPE, attribute)))
            assert not is_allowed(
                function(), Request(f"iam:{verb}{kind}", getattr(other, attribute))
            )
    key = Request("iam:CreateAccessKey", SCOPE.iam("user/root-admin"))
    assert not is_allowed(function(), key)
    secret = "secret:castai-eks/{}/credentials-AbCdEf"
    read = "secretsmanager:GetSecretValue"
    for cluster, allowed in (("prod", True), ("prod-2", False)):
        arn = SCOPE.regional("secretsmanager", secret.format(cluster))
        assert is_allowed(function(), Request(read, arn)) is allowed
        entry = SCOPE.regional("eks", f"access-entry/{cluster}/role/111122223333/onboarding/0a1b")
        assert is_allowed(function(), Request("eks:DeleteAccessEntry", entry)) is allowed


@pytest.mark.parametrize(
    ("target", "policy", "allowed"),
    [
        ("role_arn", "aws:policy/AmazonEC2ReadOnlyAccess", True),
        ("role_arn", "111122223333:policy/CastEKSPolicy-prod", True),
        ("role_arn", "111122223333:policy/CastEKSPolicy", False),
        ("role_arn", "aws:policy/AdministratorAccess", False),
        ("user_arn", "aws:policy/IAMReadOnlyAccess", True),
        ("user_arn", "aws:policy/AdministratorAccess", False),
        ("node_role_arn", "aws:policy/AmazonEKSWorkerNodePolicy", True),
        ("node_role_arn", "aws:policy/IAMReadOnlyAccess", False),
    ],
)
def test_the_function_may_attach_the_policies_of_an_onboarding_only(
    target: str, policy: str, allowed: bool
) -> None:
    action = "iam:AttachUserPolicy" if target == "user_arn" else "iam:AttachRolePolicy"
    attach = Request(action, getattr(SCOPE, target), {"iam:PolicyARN": f"arn:aws:iam::{policy}"})
    assert is_allowed(function(), attach) is allowed


def test_the_function_may_write_the_shared_policy_with_account_wide_only() -> None:
    shared = Request("iam:CreatePolicyVersion", SCOPE.policy_arn(account_wide=True))
    assert not is_allowed(function(), shared)
    assert is_allowed(function(account_wide=True), shared)


def test_without_account_wide_the_shared_policy_may_be_deleted_only() -> None:
    for written in (function(), [*onboarder.administrator(SCOPE).values()]):
        shared = SCOPE.policy_arn(account_wide=True)
        for action in ("GetPolicy", "ListEntitiesForPolicy", "DeletePolicyVersion", "DeletePolicy"):
            assert is_allowed(written, Request(f"iam:{action}", shared))
        for action in ("CreatePolicy", "CreatePolicyVersion", "SetDefaultPolicyVersion"):
            assert not is_allowed(written, Request(f"iam:{action}", shared))


def test_with_a_boundary_users_and_roles_need_it() -> None:
    bounded = function(boundary="arn:aws:iam::111122223333:policy/b")
    context = {"iam:PermissionsBoundary": "arn:aws:iam::111122223333:policy/b"}
    attached = {"iam:PolicyARN": "arn:aws:iam::aws:policy/AmazonEC2ReadOnlyAccess"}
    for action, resource, extra in (
        ("iam:CreateRole", SCOPE.role_arn, {}),
        ("iam:CreateRole", SCOPE.node_role_arn, {}),
        ("iam:CreateUser", SCOPE.user_arn, {}),
        ("iam:PutUserPolicy", SCOPE.user_arn, {}),
        ("iam:PutRolePolicy", SCOPE.role_arn, {}),
        ("iam:AttachUserPolicy", SCOPE.user_arn, attached),
        ("iam:AttachRolePolicy", SCOPE.role_arn, attached),
        ("iam:PutRolePermissionsBoundary", SCOPE.role_arn, {}),
    ):
        assert is_allowed(bounded, Request(action, resource, context | extra)), action
        assert not is_allowed(bounded, Request(action, resource, extra)), action


def test_the_function_may_create_and_change_its_security_group_in_a_shared_vpc() -> None:
    """With RAM, VPC and subnets have the owner's account; a security group has its creator's."""
    vpc = "arn:aws:ec2:eu-west-1:222233334444:vpc/vpc-0123456789abcdef0"
    group = SCOPE.ec2("security-group/sg-1")
    existing = {"ec2:Vpc": vpc, "ec2:ResourceTag/cast:cluster-id": ID}
    for written in (function(), [*onboarder.administrator(SCOPE).values()]):
        assert is_allowed(written, Request("ec2:CreateSecurityGroup", vpc))
        assert is_allowed(written, Request("ec2:CreateSecurityGroup", group))
        assert is_allowed(written, Request("ec2:AuthorizeSecurityGroupIngress", group, existing))


def test_the_function_may_pass_the_node_role_to_ec2_only() -> None:
    for resource, service, allowed in (
        (SCOPE.node_role_arn, "ec2.amazonaws.com", True),
        (SCOPE.node_role_arn, "lambda.amazonaws.com", False),
        (SCOPE.role_arn, "ec2.amazonaws.com", False),
        (SCOPE.iam("role/admin"), "ec2.amazonaws.com", False),
    ):
        passed = Request("iam:PassRole", resource, {"iam:PassedToService": service})
        assert is_allowed(function(), passed) is allowed


def test_the_function_may_give_access_to_its_principals_and_admin_to_two_of_them() -> None:
    for arn, allowed in (
        (SCOPE.node_role_arn, True),
        (SCOPE.user_arn, True),
        (SCOPE.spot_role_arn, True),
        (OWN_ROLE, True),
        (SCOPE.role_arn, False),
        (SCOPE.iam("user/somebody"), False),
    ):
        create = Request("eks:CreateAccessEntry", SCOPE.cluster_arn, {"eks:principalArn": arn})
        assert is_allowed(function(), create) is allowed, arn
    admin = {"eks:policyArn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"}
    view = {"eks:policyArn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSAdminViewPolicy"}
    for kind, name, context, allowed in (
        ("user", "cast-eks-prod", admin, True),
        ("role", "onboarding", admin, True),
        ("role", "onboarding", view, False),
        ("role", "cast-prod-eks-1a2b3c4d", admin, False),
        ("role", "CastLambdaRoleForSpot", admin, False),
    ):
        entry = SCOPE.regional("eks", f"access-entry/prod/{kind}/111122223333/{name}/0a1b")
        request = Request("eks:AssociateAccessPolicy", entry, context)
        assert is_allowed(function(), request) is allowed, name


CLIENTS = {"secrets": "secretsmanager", "functions": "lambda"}
"""The service of a field of `Clients` that has another name."""


BY_AWS = {
    "iam:PassRole": "iam:AddRoleToInstanceProfile passes the node role",
    "eks:TagResource": "eks:CreateAccessEntry with tags",
    "logs:CreateLogStream": "the runtime",
    "logs:PutLogEvents": "the runtime",
    "sqs:SendMessage": "Lambda, for a notice that failed",
}
"""Actions without a call of ours, and what needs them."""
LAMBDAS = Path(policies.__file__).parents[2]
FUNCTIONS: dict[str, tuple[list[Document], tuple[str, ...]]] = {
    "onboarding": (
        function(api_key_secret="castai/key", boundary=OWN_ROLE),
        ("onboarding/*.py", "common/*.py"),
    ),
    "agent": (
        [
            agent_role.agent_function(here(SCOPE), own_role="agent", api_key_secret="castai/key"),
            agent_role.agent_cluster("aws", "prod"),
        ],
        ("agent/*.py", "common/*.py"),
    ),
    "spot_handler": (
        [
            spot_handler_role.spot_handler(
                here(SCOPE), failure_queue="q", least=True, api_key_secret="castai/key"
            )
        ],
        ("spot_handler/*.py", "common/eks.py", "common/api_key.py"),
    ),
}
"""The documents of each function, with the sources that it runs."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_an_action_for_each_call_and_no_other(name: str) -> None:
    """The source names a client's method in each call: `ctx.call(iam.tag_policy, …)`."""
    documents, patterns = FUNCTIONS[name]
    granted = {
        action
        for document in documents
        for statement in document["Statement"]
        if statement["Effect"] == "Allow"
        for action in statement["Action"]
    }
    sources = [path for pattern in patterns for path in LAMBDAS.glob(pattern)]
    called = set[str]().union(*map(actions_called_in, sources))
    called -= set(onboarder.FINDS)  # only castai-eks searches names
    assert called
    assert called <= granted
    assert granted - called <= BY_AWS.keys()


def actions_called_in(path: Path) -> set[str]:
    """The IAM action of every method of a client in the source."""
    tree = ast.parse(path.read_text())
    called = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (client := client_of(node.value)):
            called.add(action(client, node.attr))
        elif isinstance(node, ast.Constant) and re.fullmatch(r"\w*\{kind\}\w*", str(node.value)):
            called |= {action("iam", node.value.format(kind=kind)) for kind in ("user", "role")}
        elif isinstance(node, ast.Call) and name_of(node.func) == "self._call":
            assert isinstance(node.args[0], ast.Constant)
            if "{kind}" not in node.args[0].value:
                called.add(action("iam", node.args[0].value))
    return called


def client_of(node: ast.expr) -> str:
    """The service of this expression, if it is a client; else empty."""
    name = name_of(node).rpartition(".")[2]
    service = CLIENTS.get(name, name)
    return service if service in {"iam", "ec2", "eks", "secretsmanager", "lambda"} else ""


def name_of(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def action(service: str, method: str) -> str:
    return f"{service}:{api_names(service)[method]}"


@cache
def api_names(service: str) -> dict[str, str]:
    """The operation of each method of a client."""
    model = botocore.session.Session().get_service_model(service)
    return {xform_name(name): name for name in model.operation_names}


def test_without_a_cluster_id_the_permissions_are_limited_by_the_pattern_of_the_names() -> None:
    unknown = function(replace(SCOPE, cluster_id="", vpc_id=""))
    for name, allowed in (
        ("cast-prod-eks-1a2b3c4d", True),
        ("cast-prod-eks-1a2b3c4d5", False),
        ("cast-prod-2-eks-1a2b3c4d", False),
        ("admin", False),
    ):
        request = Request("iam:DeleteRole", SCOPE.iam(f"role/{name}"))
        assert is_allowed(unknown, request) is allowed, name


def test_a_name_too_long_for_user_mode_gives_the_permissions_of_role_mode_only() -> None:
    granted = set[str]().union(*map(actions, function(replace(SCOPE, cluster="c" * 56))))
    assert "iam:CreateUser" not in granted
    assert "iam:CreateRole" in granted


def test_the_secret_of_the_api_key_may_be_read_only_if_it_is_given() -> None:
    arn = SCOPE.regional("secretsmanager", "secret:castai/key-AbCdEf")
    read = Request("secretsmanager:GetSecretValue", arn)
    assert not is_allowed(function(), read)
    assert is_allowed(function(api_key_secret="castai/key"), read)
    assert is_allowed(function(api_key_secret=arn), read)
    write = Request("secretsmanager:PutSecretValue", arn)
    assert not is_allowed(function(api_key_secret=arn), write)


@pytest.mark.parametrize("purpose", ["api_key_kms_key", "credentials_kms_key"])
def test_a_customer_kms_key_may_be_used_through_secrets_manager_only(purpose: str) -> None:
    key = SCOPE.regional("kms", "key/k")
    options: dict[str, Any] = {"api_key_secret": "castai/key", purpose: key}
    documents = [function(**options), [*onboarder.administrator(SCOPE, **options).values()]]
    if purpose == "api_key_kms_key":
        documents += [
            [spot_handler_role.spot_handler(here(SCOPE), failure_queue="q", **options)],
            [agent_role.agent_function(here(SCOPE), own_role="r", **options)],
        ]
    via = {"kms:ViaService": "secretsmanager.eu-west-1.amazonaws.com"}
    for written in documents:
        assert is_allowed(written, Request("kms:Decrypt", key, via))
        assert not is_allowed(written, Request("kms:Decrypt", key))


class TestAgent:
    """The function's policy and the policy of one cluster together."""

    ROLE = SCOPE.iam("role/castai-agent-eu-west-1")
    ENTRY = SCOPE.regional(
        "eks", "access-entry/prod/role/111122223333/castai-agent-eu-west-1/0a1b2c3d"
    )
    CLUSTER = SCOPE.regional("eks", "cluster/prod")
    POLICY = "arn:aws:eks::aws:cluster-access-policy/"

    def allows(self, action: str, resource: str, **context: str) -> bool:
        documents = [
            agent_role.agent_function(
                here(SCOPE), own_role="castai-agent-eu-west-1", api_key_secret="castai/key"
            ),
            agent_role.agent_cluster("aws", "prod"),
        ]
        keys = {f"eks:{key}": value for key, value in context.items()}
        return is_allowed(documents, Request(f"eks:{action}", resource, keys))

    def test_it_may_give_itself_access_to_its_cluster(self) -> None:
        assert self.allows("DescribeCluster", self.CLUSTER)
        assert self.allows("CreateAccessEntry", self.CLUSTER, principalArn=self.ROLE)
        for action in ("DescribeAccessEntry", "DeleteAccessEntry", "TagResource"):
            assert self.allows(action, self.ENTRY)
        for policy in (CLUSTER_ADMIN, VIEW):
            assert self.allows("AssociateAccessPolicy", self.ENTRY, policyArn=self.POLICY + policy)

    def test_it_may_read_an_access_entry_that_does_not_exist(self) -> None:
        nothing = self.ENTRY.rpartition("/")[0] + "/*"
        assert self.allows("DescribeAccessEntry", nothing)

    @pytest.mark.parametrize(
        ("part", "other"),
        [("prod", "prod-2"), ("eu-west-1:", "us-east-1:"), ("111122223333:", "444455556666:")],
    )
    def test_it_may_not_use_another_cluster(self, part: str, other: str) -> None:
        cluster, entry = (each.replace(part, other, 1) for each in (self.CLUSTER, self.ENTRY))
        assert not self.allows("DescribeCluster", cluster)
        assert not self.allows("CreateAccessEntry", cluster, principalArn=self.ROLE)
        for action in ("DescribeAccessEntry", "DeleteAccessEntry", "TagResource"):
            assert not self.allows(action, entry)
        assert not self.allows(
            "AssociateAccessPolicy", entry, policyArn=self.POLICY + CLUSTER_ADMIN
        )

    def test_it_may_not_use_the_access_entry_of_another_principal(self) -> None:
        others = (
            self.ENTRY.replace("castai-agent-eu-west-1", "castai-agent-eu-west-10"),
            self.ENTRY.replace("/role/", "/user/"),
        )
        for entry in others:
            for action in ("DescribeAccessEntry", "DeleteAccessEntry", "TagResource"):
                assert not self.allows(action, entry)
            assert not self.allows(
                "AssociateAccessPolicy", entry, policyArn=self.POLICY + CLUSTER_ADMIN
            )
        for context in ({"principalArn": SCOPE.iam("role/other")}, {}):
            assert not self.allows("CreateAccessEntry", self.CLUSTER, **context)

    def test_it_may_associate_no_other_access_policy_and_not_change_the_cluster(self) -> None:
        for context in ({"policyArn": self.POLICY + "AmazonEKSAdminPolicy"}, {}):
            assert not self.allows("AssociateAccessPolicy", self.ENTRY, **context)
        for action in ("TagResource", "UpdateAccessEntry", "DeleteCluster", "UpdateClusterConfig"):
            assert not self.allows(action, self.CLUSTER)
        assert not self.allows("UpdateAccessEntry", self.ENTRY)


def test_the_code_of_a_function_may_not_use_lambdas_permission_for_network_interfaces() -> None:
    make = "ec2:CreateNetworkInterface", SCOPE.ec2("network-interface/*")
    arn = SCOPE.regional("lambda", "function:f")
    spot = spot_handler_role.spot_handler(here(SCOPE), failure_queue="q", in_vpc=True)
    assert is_allowed([spot], Request(*make))
    for running in (arn, f"{arn}:7"):
        assert not is_allowed([spot], Request(*make, {"lambda:SourceFunctionArn": running}))


def test_a_cdk_deployer_may_assume_the_roles_of_the_bootstrap_stack_only() -> None:
    document = onboarder.cdk_deployer("aws", "111122223333", "eu-west-1")
    assert actions(document) == {"sts:AssumeRole"}
    deploy = SCOPE.iam("role/cdk-hnb659fds-deploy-role-111122223333-eu-west-1")
    assert is_allowed([document], Request("sts:AssumeRole", deploy))
    assert not is_allowed([document], Request("sts:AssumeRole", SCOPE.iam("role/admin")))
