"""cloudsplaining on every document, twice.

By default it checks statements without a condition or a resource: there must be no finding. Its
strict flags check all statements, so that the writes of an onboarding (roles, keys, policies) are
findings; each is acknowledged by name, with the reason why it is harmless.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cloudsplaining.scan.policy_document import PolicyDocument
from cloudsplaining.shared.exclusions import DEFAULT_EXCLUSIONS

from lambdas.onboarding.policies import (
    agent_role,
    castai_identity,
    onboarder,
    savings,
    spot_handler_role,
)
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.policies.scope import FunctionScope, Permissions, Scope

SCOPE = Scope(
    "aws", "eu-west-1", "111122223333", "prod", "aaaaaaaa-0000-4000-8000-000000000001", "vpc-1"
)


def documents() -> dict[str, Document]:
    found = dict(onboarder.administrator(SCOPE))
    found |= onboarder.onboarding_lambda(
        SCOPE,
        own_role_arn="arn:aws:iam::111122223333:role/onboarding",
        function="castai-onboarding-prod",
        api_key_secret="castai",
    )
    where = FunctionScope("aws", "111122223333", ("eu-west-1",), "castai-spot-handler")
    found["spot-handler"] = spot_handler_role.spot_handler(
        where, failure_queue="failures", least=True, api_key_secret="castai"
    )
    found["agent"] = agent_role.agent_function(where, own_role="agent", api_key_secret="castai")
    found["savings"] = savings.reader(where, "prod", api_key_secret="castai")
    found["agent-cluster"] = agent_role.agent_cluster("aws", "prod")
    found["cdk-deployer"] = onboarder.cdk_deployer("aws", "111122223333", "eu-west-1")
    for permissions in Permissions:
        found[f"managed-{permissions}"] = castai_identity.cast_eks_policy(
            SCOPE, permissions, manage_spot_lambda=False, boundary=None
        )
        found[f"inline-{permissions}"] = castai_identity.restricted_access(SCOPE, permissions)
    found["managed-full-spot-lambda"] = castai_identity.cast_eks_policy(
        SCOPE, Permissions.FULL, manage_spot_lambda=True, boundary=None
    )
    found["managed-account-wide"] = castai_identity.cast_eks_policy(
        SCOPE, Permissions.FULL, manage_spot_lambda=False, boundary=None, account_wide=True
    )
    return found


DOCUMENTS = documents()

ONE_NODE_ROLE = "only AWS's policies for nodes (iam:PolicyARN), and only to the node role"
LAUNCH_NODES = "CAST AI launches nodes; it may pass the node role only"
OWN_FUNCTION = "one function by name; its role may only describe instances"
MAKES_THE_USER = "only the user for CAST AI, with the boundary if it is set"
MAKES_THE_ROLES = "only the roles for CAST AI and the nodes, with the boundary if it is set"
MAKES_THE_POLICY = "only CastEKSPolicy of this cluster, which only CAST AI's identity has"
NAMED_SECRETS = "only the cluster's credentials, and the API key whose secret is named"
BOOTSTRAP_ROLES = "the roles of the CDK bootstrap stack are meant to be assumed by the deployer"

ONBOARDS = {
    "CreateAccessKey": MAKES_THE_USER,
    "CreateAndRotateAccessKey": MAKES_THE_USER,
    "AttachUserPolicy": MAKES_THE_USER,
    "AttachUserPolicyThenCreateAccessKey": MAKES_THE_USER,
    "PutUserPolicy": MAKES_THE_USER,
    "PutUserPolicyThenCreateAccessKey": MAKES_THE_USER,
    "AttachRolePolicy": MAKES_THE_ROLES,
    "AttachRolePolicyThenUpdateAssumeRolePolicy": MAKES_THE_ROLES,
    "PutRolePolicy": MAKES_THE_ROLES,
    "PutRolePolicyThenUpdateAssumeRolePolicy": MAKES_THE_ROLES,
    "UpdateRolePolicyToAssumeIt": MAKES_THE_ROLES,
    "CreateNewPolicyVersion": MAKES_THE_POLICY,
    "SetExistingDefaultPolicyVersion": MAKES_THE_POLICY,
    "CreatePolicyVersionThenUpdateAssumeRolePolicy": MAKES_THE_POLICY,
    "iam:CreateAccessKey": MAKES_THE_USER,
    "iam:UpdateAccessKey": MAKES_THE_USER,
}
MAKES_ROLES = dict.fromkeys(
    (
        "AttachRolePolicy",
        "AttachRolePolicyThenUpdateAssumeRolePolicy",
        "PutRolePolicy",
        "PutRolePolicyThenUpdateAssumeRolePolicy",
        "UpdateRolePolicyToAssumeIt",
    ),
    MAKES_THE_ROLES,
)
FULL = {"AttachRolePolicy": ONE_NODE_ROLE, "CreateEC2WithExistingIP": LAUNCH_NODES}

ACKNOWLEDGED: dict[str, dict[str, str]] = {
    "castai-eks-admin-iam": ONBOARDS,
    "castai-eks-admin-roles": MAKES_ROLES,
    "castai-eks-onboarding-roles": MAKES_ROLES,
    "castai-eks-admin-cluster": {"secretsmanager:GetSecretValue": NAMED_SECRETS},
    "castai-eks-onboarding-iam": ONBOARDS,
    "castai-eks-onboarding-cluster": {"secretsmanager:GetSecretValue": NAMED_SECRETS},
    "castai-eks-onboarding-run": {"secretsmanager:GetSecretValue": NAMED_SECRETS},
    "spot-handler": {"secretsmanager:GetSecretValue": NAMED_SECRETS},
    "agent": {"secretsmanager:GetSecretValue": NAMED_SECRETS},
    "savings": {"secretsmanager:GetSecretValue": NAMED_SECRETS},
    "cdk-deployer": {"sts:AssumeRole": BOOTSTRAP_ROLES},
    "managed-full": FULL,
    "managed-standard": {"CreateEC2WithExistingIP": LAUNCH_NODES},
    "managed-strict": {"CreateEC2WithExistingIP": LAUNCH_NODES},
    "managed-account-wide": FULL,
    "managed-full-spot-lambda": FULL
    | {
        "EditExistingLambdaFunctionWithRole": OWN_FUNCTION,
        "UpdateLambdaFunctionAndAddPermission": OWN_FUNCTION,
        "PassExistingRoleToNewLambdaThenAddPermission": OWN_FUNCTION,
    },
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_by_default_there_is_no_finding(name: str) -> None:
    policy = PolicyDocument(DOCUMENTS[name], exclusions=DEFAULT_EXCLUSIONS)
    assert list(risks(policy)) == []
    assert policy.permissions_management_without_constraints == []
    assert policy.write_actions_without_constraints == []
    assert policy.tagging_actions_without_constraints == []
    assert policy.service_wildcard == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_strict_findings_are_the_acknowledged_ones(name: str) -> None:
    policy = PolicyDocument(
        DOCUMENTS[name],
        exclusions=DEFAULT_EXCLUSIONS,
        flag_conditional_statements=True,
        flag_resource_arn_statements=True,
    )
    assert set(risks(policy)) == ACKNOWLEDGED.get(name, {}).keys()


def test_every_acknowledgement_is_for_an_existing_document() -> None:
    assert ACKNOWLEDGED.keys() <= DOCUMENTS.keys()


def risks(policy: PolicyDocument) -> Iterator[str]:
    yield from (str(found["type"]) for found in policy.allows_privilege_escalation)
    yield from policy.allows_data_exfiltration_actions
    yield from policy.credentials_exposure
