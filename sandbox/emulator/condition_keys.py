"""Add condition keys and resource ARNs that our policies use and the emulator does not set.

Without them a statement such as "attach these policies only" never matches: the emulator denies
what AWS allows. Keys: service authorization reference, "Condition keys for Amazon EKS" and "… IAM".
Those of EC2 are in ec2_requests.py; further_checks.py evaluates all resources of a request to EC2.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import guard
from authorization import first
from ec2_inventory import Ec2Inventory

_ACCESS_ENTRY = re.compile(r"/clusters/([^/]+)/access-entries/(.+?)(?:/access-policies.*)?")


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
        self._iam = guard.module("ministack.services.iam")
        self._ec2 = Ec2Inventory()
        self._eks = guard.module("ministack.services.eks")
        for owner, store in (
            (self._iam, "_roles"),
            (self._iam, "_users"),
            (self._iam, "_instance_profiles"),
            (self._eks, "_access_entries"),
        ):
            guard.value(owner, store, object)

    def install(self) -> None:
        """Patch the emulator's functions that read a request."""
        self._actions.request_tag_context = self._context  # type: ignore[attr-defined]
        self._actions.extract_resource_arn = self._resource  # type: ignore[attr-defined]

    def _context(
        self, service: str, iam_action: str, body: bytes, params: dict[str, Any]
    ) -> dict[str, Any]:
        if service == "ec2":
            return dict(self._ec2.request(params).checks()[0].context)
        context: dict[str, Any] = dict(self._tags_of_request(service, iam_action, body, params))
        if service == "iam":
            context.update(self._iam_context(params))
        elif service == "eks":
            context.update(_eks_context(body))
        elif service == "events":
            context.update(_events_context(body))
        return context

    def _iam_context(self, params: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        if policy := first(params, "PolicyArn"):
            yield "iam:PolicyARN", policy
        boundary = first(params, "PermissionsBoundary")
        if not boundary:
            # IAM evaluates a change of a role or user with the boundary that it has.
            role = self._iam._roles.get(first(params, "RoleName")) or {}
            user = self._iam._users.get(first(params, "UserName")) or {}
            boundary = role.get("PermissionsBoundary") or user.get("PermissionsBoundary")
        if boundary:
            yield "iam:PermissionsBoundary", boundary

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
        if service == "ec2":
            return self._ec2.request(query_params).checks()[0].resource
        if service == "iam" and (own := self._iam_resource(query_params, account_id)):
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

    def _iam_resource(self, params: dict[str, Any], account: str) -> str:
        """Return the ARN with its path, which the emulator omits; empty for other resources."""
        path = first(params, "Path") or "/"
        if first(params, "Action") == "CreatePolicy":
            return f"arn:aws:iam::{account}:policy{path}{first(params, 'PolicyName')}"
        for field, kind, store in (
            ("InstanceProfileName", "instance-profile", self._iam._instance_profiles),
            ("RoleName", "role", self._iam._roles),
            ("UserName", "user", self._iam._users),
        ):
            if (name := first(params, field)) and not first(params, "GroupName"):
                existing = (store.get(name) or {}).get("Arn")
                return str(existing or f"arn:aws:iam::{account}:{kind}{path}{name}")
        return ""

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
