"""Add condition keys and resource ARNs that our policies use and the emulator does not set.

Without them a statement such as "attach these policies only" never matches: the emulator denies
what AWS allows. Keys: service authorization reference, "Condition keys for Amazon EC2", "… EKS" and
"… IAM".
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import guard

_EC2_RESOURCE = re.compile(
    r"(?:ResourceId|InstanceId|GroupId|NetworkInterfaceId|KeyPairId|SecurityGroupId)(?:\.\d+)?"
)
_ACCESS_ENTRY = re.compile(r"/clusters/([^/]+)/access-entries/(.+?)(?:/access-policies.*)?")
_EC2_KINDS = {"i": "instance", "sg": "security-group", "eni": "network-interface"}


class ConditionKeys:
    """Adds to the condition keys and the resource that the emulator reads from a request."""

    def __init__(self) -> None:
        self._actions = guard.module("ministack.core.iam_actions")
        self._tags_of_request = guard.function(
            self._actions, "request_tag_context", "service", "iam_action", "body", "params"
        )
        self._resource_of_request = guard.function(
            self._actions, "extract_resource_arn", "service", "method", "path", "headers", "body"
        )
        self._members = guard.value(self._actions, "_TAG_MEMBERS", frozenset)
        self._iam = guard.module("ministack.services.iam")
        self._ec2 = guard.module("ministack.services.ec2")
        self._eks = guard.module("ministack.services.eks")
        for owner, store in (
            (self._iam, "_roles"),
            (self._iam, "_users"),
            (self._ec2, "_tags"),
            (self._ec2, "_security_groups"),
            (self._ec2, "_subnets"),
            (self._eks, "_access_entries"),
        ):
            guard.value(owner, store, object)

    def install(self) -> None:
        """Patch the emulator's functions that read a request."""
        self._actions._TAG_MEMBERS = self._members | {"TagSpecifications"}  # type: ignore[attr-defined]
        self._actions.request_tag_context = self._context  # type: ignore[attr-defined]
        self._actions.extract_resource_arn = self._resource  # type: ignore[attr-defined]

    def _context(
        self, service: str, iam_action: str, body: bytes, params: dict[str, Any]
    ) -> dict[str, Any]:
        context: dict[str, Any] = dict(self._tags_of_request(service, iam_action, body, params))
        if service == "iam":
            context.update(self._iam_context(params))
        elif service == "ec2":
            context.update(self._ec2_context(params))
        elif service == "eks":
            context.update(_eks_context(body))
        elif service == "events":
            context.update(_events_context(body))
        return context

    def _iam_context(self, params: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        if policy := _first(params, "PolicyArn"):
            yield "iam:PolicyARN", policy
        boundary = _first(params, "PermissionsBoundary")
        if not boundary:
            # IAM evaluates a change of a role or user with the boundary that it has.
            role = self._iam._roles.get(_first(params, "RoleName")) or {}
            user = self._iam._users.get(_first(params, "UserName")) or {}
            boundary = role.get("PermissionsBoundary") or user.get("PermissionsBoundary")
        if boundary:
            yield "iam:PermissionsBoundary", boundary

    def _ec2_context(self, params: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        ids = [_first(params, name) for name in params if _EC2_RESOURCE.fullmatch(name)]
        tags = [
            {tag["Key"]: tag["Value"] for tag in self._ec2._tags.get(found) or []} for found in ids
        ]
        # AWS evaluates each resource separately: only a tag that all have can allow the request.
        for key, value in tags[0].items() if tags else ():
            if all(other.get(key) == value for other in tags):
                yield f"ec2:ResourceTag/{key}", value
                yield f"aws:ResourceTag/{key}", value
        vpcs = {self._vpc(found) for found in [*ids, _first(params, "SubnetId")]} - {""}
        if len(vpcs) == 1:
            responses = guard.module("ministack.core.responses")
            where = f"{responses.get_region()}:{responses.get_account_id()}"
            yield "ec2:Vpc", f"arn:aws:ec2:{where}:vpc/{vpcs.pop()}"

    def _vpc(self, resource: str) -> str:
        for store in (self._ec2._security_groups, self._ec2._subnets):
            if found := store.get(resource):
                return str(found.get("VpcId", ""))
        return ""

    def _resource(  # noqa: PLR0917 - the emulator's own signature
        self,
        service: str,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        query_params: dict[str, Any],
        region: str,
        account_id: str,
    ) -> str:
        if service == "eks" and (entry := _ACCESS_ENTRY.fullmatch(path)):
            return self._access_entry(entry.group(1), unquote(entry.group(2)), region, account_id)
        if service == "ec2" and (resource := _first(query_params, "ResourceId.1")):
            kind = _EC2_KINDS.get(resource.partition("-")[0], resource.partition("-")[0])
            return f"arn:aws:ec2:{region}:{account_id}:{kind}/{resource}"
        if service == "iam" and (own := _iam_resource(query_params, account_id)):
            return own
        if service == "events" and (rule := _rule(body)):
            return f"arn:aws:events:{region}:{account_id}:rule/{rule}"
        found: str = self._resource_of_request(
            service, method, path, headers, body, query_params, region, account_id
        )
        target = next((v for k, v in headers.items() if k.lower() == "x-amz-target"), "")
        if target == "secretsmanager.CreateSecret":
            return f"{found}-000000"  # the characters that Secrets Manager appends
        return found

    def _access_entry(self, cluster: str, principal: str, region: str, account: str) -> str:
        """Return the entry's ARN: access-entry/CLUSTER/KIND/ACCOUNT/NAME/ID."""
        record = self._eks._access_entries.get(f"{cluster}\x00{principal}") or {}
        entry = record.get("accessEntryArn", "").rpartition("/")[2] or "none"
        kind, _, name = principal.rpartition(":")[2].partition("/")
        name = name.rpartition("/")[2]
        return (
            f"arn:aws:eks:{region}:{account}:access-entry/{cluster}/{kind}/{account}/{name}/{entry}"
        )


def _eks_context(body: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the principal and the policy of a request on access entries."""
    try:
        request = json.loads(body or b"{}")
    except ValueError:
        return
    for field in ("principalArn", "policyArn"):
        if isinstance(request, dict) and isinstance(request.get(field), str):
            yield f"eks:{field}", request[field]


def _first(params: dict[str, Any], name: str) -> str:
    value = params.get(name, "")
    return str(value[0] if isinstance(value, list) and value else value or "")


def _events_context(body: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the sources of the events that a PutEvents publishes. The key has several values."""
    try:
        request = json.loads(body or b"{}")
    except ValueError:
        return
    entries = request.get("Entries") if isinstance(request, dict) else None
    if isinstance(entries, list):
        yield "events:source", [str(each.get("Source")) for each in entries]


def _rule(body: bytes) -> str:
    """Return the rule of the default bus that a request names. Its ARN does not have the bus."""
    try:
        request = json.loads(body or b"{}")
    except ValueError:
        return ""
    if not isinstance(request, dict) or request.get("EventBusName", "default") != "default":
        return ""
    return str(request.get("Rule") or request.get("Name") or "")


def _iam_resource(params: dict[str, Any], account: str) -> str:
    """Return the ARN where the emulator uses `*`: of an instance profile or a new policy."""
    path = _first(params, "Path") or "/"
    if profile := _first(params, "InstanceProfileName"):
        return f"arn:aws:iam::{account}:instance-profile{path}{profile}"
    if _first(params, "Action") == "CreatePolicy":
        return f"arn:aws:iam::{account}:policy{path}{_first(params, 'PolicyName')}"
    return ""
