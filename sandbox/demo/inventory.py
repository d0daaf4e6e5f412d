"""List what exists in the account and in the cluster, to find what was created or left."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from lightkube import Client
from lightkube.core.resource import GlobalResource, NamespacedResource
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import (
    ConfigMap,
    Namespace,
    ResourceQuota,
    Secret,
    ServiceAccount,
)
from lightkube.resources.policy_v1 import PodDisruptionBudget
from lightkube.resources.rbac_authorization_v1 import (
    ClusterRole,
    ClusterRoleBinding,
    Role,
    RoleBinding,
)

Thing = tuple[str, str]
"""Kind and name."""


class Account(Protocol):
    """An AWS account and region."""

    def client(self, service: str) -> Any: ...  # noqa: ANN401 - boto3's clients are dynamic


# Kind, service, operation, key of the answer, key of the name ("": the answer lists names).
_LISTS = (
    ("IAM user", "iam", "list_users", "Users", "UserName"),
    ("IAM role", "iam", "list_roles", "Roles", "RoleName"),
    ("instance profile", "iam", "list_instance_profiles", "InstanceProfiles",
     "InstanceProfileName"),
    ("security group", "ec2", "describe_security_groups", "SecurityGroups", "GroupName"),
    ("secret", "secretsmanager", "list_secrets", "SecretList", "Name"),
    ("function", "lambda", "list_functions", "Functions", "FunctionName"),
    ("state machine", "stepfunctions", "list_state_machines", "stateMachines", "name"),
    ("rule", "events", "list_rules", "Rules", "Name"),
    ("queue", "sqs", "list_queues", "QueueUrls", ""),
    ("alarm", "cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
    ("log group", "logs", "describe_log_groups", "logGroups", "logGroupName"),
)  # fmt: skip
_GONE = "DELETE_COMPLETE"  # CloudFormation also lists deleted stacks

Kind = type[GlobalResource | NamespacedResource]
KINDS: tuple[Kind, ...] = (
    Namespace,
    ResourceQuota,
    ServiceAccount,
    Secret,
    ConfigMap,
    ClusterRole,
    ClusterRoleBinding,
    Role,
    RoleBinding,
    PodDisruptionBudget,
    Deployment,
)

ACCOUNT = (*(kind for kind, *_ in _LISTS), "IAM policy", "access entry", "stack")
CLUSTER = tuple(kind.__name__ for kind in KINDS)


def account(aws: Account, cluster: str) -> set[Thing]:
    """Return all that onboarding, agent and spot handler could leave in the account."""
    found = {
        (kind, str(each[name] if name else each))
        for kind, service, operation, key, name in _LISTS
        for each in _listed(aws, service, operation, key)
    }
    policies = aws.client("iam").get_paginator("list_policies").paginate(Scope="Local")
    found |= {("IAM policy", each["PolicyName"]) for page in policies for each in page["Policies"]}
    entries = aws.client("eks").get_paginator("list_access_entries").paginate(clusterName=cluster)
    found |= {("access entry", arn) for page in entries for arn in page["accessEntries"]}
    stacks = _listed(aws, "cloudformation", "list_stacks", "StackSummaries")
    return found | {("stack", s["StackName"]) for s in stacks if s["StackStatus"] != _GONE}


def cluster(client: Client, kinds: Iterable[Kind] = KINDS) -> set[Thing]:
    """Return the objects of these kinds: by default of all that this project could leave."""
    found = set()
    for kind in kinds:
        everywhere = {"namespace": "*"} if issubclass(kind, NamespacedResource) else {}
        for each in client.list(kind, **everywhere):  # type: ignore[call-overload] # a union of kinds
            space = f"{each.metadata.namespace}/" if everywhere else ""
            found.add((kind.__name__, f"{space}{each.metadata.name}"))
    return found


def counted(things: Iterable[Thing]) -> str:
    """Return the number of each kind: `2 functions, 1 rule`."""
    kinds = Counter(kind for kind, _name in things)
    return ", ".join(f"{n} {kind if n == 1 else _plural(kind)}" for kind, n in kinds.items())


def named(things: Iterable[Thing]) -> str:
    """Return kind and name of each: `IAM role a, rule b`."""
    return ", ".join(f"{kind} {name}" for kind, name in sorted(things))


def _plural(word: str) -> str:
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def _listed(aws: Account, service: str, operation: str, key: str) -> Iterable[Any]:
    client = aws.client(service)
    call: Callable[..., Any] = getattr(client, operation)
    if not client.can_paginate(operation):
        return list(call().get(key, ()))
    return [
        each for page in client.get_paginator(operation).paginate() for each in page.get(key, ())
    ]
