"""The role that a request passes to a service: AWS requires iam:PassRole. The emulator does not.

Source: IAM user guide, "Granting a user permissions to pass a role to an AWS service".
"""

import json
from collections.abc import Iterator
from typing import Any

import guard
from authorization import Check, Parameters, first

_STACK_CHANGES = frozenset(
    ("CreateStack", "UpdateStack", "DeleteStack", "CreateChangeSet", "RollbackStack")
)


class PassRole:
    """Reads the passed role from a request."""

    def __init__(self) -> None:
        self._iam = guard.module("ministack.services.iam")
        guard.value(self._iam, "_roles", object)
        guard.value(self._iam, "_instance_profiles", object)

    def checks(
        self, service: str, method: str, path: str, body: bytes, params: Parameters
    ) -> Iterator[Check]:
        """Yield the check of iam:PassRole, if the request passes a role."""
        role, receiver = self._passed(service, method, path, body, params)
        if role:
            yield Check("iam:PassRole", role, {"iam:PassedToService": receiver})

    def _passed(
        self, service: str, method: str, path: str, body: bytes, params: Parameters
    ) -> tuple[str, str]:
        """Return the role that the request passes, and the service; empty if none."""
        action = first(params, "Action")
        if service == "lambda" and method in ("POST", "PUT") and "/functions" in path:
            return _json_member(body, "Role"), "lambda.amazonaws.com"
        if service == "cloudformation" and action in _STACK_CHANGES:
            return first(params, "RoleARN"), "cloudformation.amazonaws.com"
        if service == "iam" and action == "AddRoleToInstanceProfile":
            return self._arn(first(params, "RoleName")), "ec2.amazonaws.com"
        if service == "ec2" and action == "RunInstances":
            profile = first(params, "IamInstanceProfile.Name")
            profile = profile or first(params, "IamInstanceProfile.Arn").rpartition("/")[2]
            record = self._iam._instance_profiles.get(profile) or {}
            roles = record.get("Roles") or [""]
            return self._arn(str(roles[0])), "ec2.amazonaws.com"
        return "", ""

    def _arn(self, role: str) -> str:
        return str((self._iam._roles.get(role) or {}).get("Arn", ""))


def _json_member(body: bytes, name: str) -> str:
    try:
        decoded: Any = json.loads(body or b"{}")
    except (json.JSONDecodeError, UnicodeDecodeError):
        return ""
    return str(decoded.get(name) or "") if isinstance(decoded, dict) else ""
