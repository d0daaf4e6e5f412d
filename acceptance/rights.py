"""The rights that a run needs, in IAM and in the cluster. Pure.

A test runs the whole acceptance with these rights and no other.
"""

from __future__ import annotations

from typing import Any

from acceptance.scope import Scope
from lambdas.common.names import AGENT, SPOT_HANDLER
from lambdas.onboarding import spot_rbac

_RBAC = "rbac.authorization.k8s.io"
_OBJECTS = ("clusterroles", "clusterrolebindings")

INVENTORY = (
    "cloudformation:ListStacks",
    "cloudwatch:DescribeAlarms",
    "ec2:DescribeSecurityGroups",
    "events:ListRules",
    "iam:ListInstanceProfiles",
    "iam:ListPolicies",
    "iam:ListRoles",
    "iam:ListUsers",
    "lambda:ListFunctions",
    "logs:DescribeLogGroups",
    "secretsmanager:ListSecrets",
    "sqs:ListQueues",
    "states:ListStateMachines",
)
"""The lists before and after. IAM restricts one of them, that of alarms: the run reads all."""


def policy(scope: Scope, *, partition: str, region: str, account: str) -> dict[str, Any]:
    """Return the IAM policy of the identity that runs the acceptance.

    CDK's bootstrap roles deploy: the identity only assumes them.
    """

    def arn(service: str, resource: str, *, where: str = region) -> str:
        return f"arn:{partition}:{service}:{where}:{account}:{resource}"

    statements: list[dict[str, Any]] = [
        _allow("Deploy", "sts:AssumeRole", arn("iam", f"role/cdk-{scope.qualifier}-*", where="")),
        _allow(
            "Bootstrapped",
            "ssm:GetParameter",
            arn("ssm", f"parameter/cdk-bootstrap/{scope.qualifier}/version"),
        ),
        _allow(
            "Stacks",
            "cloudformation:DescribeStacks",
            arn("cloudformation", f"stack/{scope.prefix}-*/*"),
        ),
        _allow("Instance", "ec2:DescribeInstances", "*"),
        _allow(
            "Cluster",
            ["eks:DescribeCluster", "eks:ListAccessEntries"],
            arn("eks", f"cluster/{scope.cluster}"),
        ),
        _allow(
            "Entry",
            "eks:DescribeAccessEntry",
            arn("eks", f"access-entry/{scope.cluster}/*"),
        ),
        _allow(
            "Targets", "events:ListTargetsByRule", arn("events", f"rule/{scope.spot_handler}-*")
        ),
        _allow("Drill", "events:PutEvents", arn("events", "event-bus/default"))
        | {"Condition": {"ForAllValues:StringEquals": {"events:source": [scope.source]}}},
        _allow(
            "Log",
            "logs:FilterLogEvents",
            arn("logs", f"log-group:/aws/lambda/{scope.spot_handler}*"),
        ),
        _allow("Inventory", list(INVENTORY), "*"),
    ]
    if scope.api_key_secret:
        statements += [
            _allow(
                "ApiKey",
                "secretsmanager:GetSecretValue",
                arn("secretsmanager", f"secret:{scope.api_key_secret}-??????"),
            ),
            _allow("Trust", "iam:GetRole", arn("iam", "role/*", where="")),
        ]
    return {"Version": "2012-10-17", "Statement": statements}


def cluster_role(scope: Scope) -> dict[str, Any]:
    """Return the ClusterRole of the same identity.

    It has the spot handler's own rules: an identity can grant only rules that it has.
    """
    rules: list[dict[str, Any]] = [
        _rule("", "nodes", ["get", "list", "watch", "patch"]),
        _rule("", "pods", ["list", "watch"]),
        _rule("", "namespaces", ["get", "list"]),
        _rule("policy", "poddisruptionbudgets", ["list", "watch"]),
        *spot_rbac.role()["rules"],
    ]
    if scope.api_key_secret:
        rules.append(_rule(_RBAC, "clusterroles", ["get"]) | {"resourceNames": [AGENT]})
    for plural in _OBJECTS:
        named = {"resourceNames": [SPOT_HANDLER]}
        rules += [
            _rule(_RBAC, plural, ["list", "create"]),
            _rule(_RBAC, plural, ["get", "delete"]) | named,
        ]
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": scope.prefix},
        "rules": rules,
    }


def _allow(sid: str, action: str | list[str], resource: str) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": action, "Resource": resource}


def _rule(group: str, resource: str, verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": [resource], "verbs": verbs}
