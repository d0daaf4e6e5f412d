"""Require iam:PassRole to pass a role to a service, as on AWS. The emulator does not.

Source: IAM user guide, "Granting a user permissions to pass a role to an AWS service".
"""

import json
from typing import Any

import guard


class PassRole:
    """Checks iam:PassRole before the emulator dispatches a request."""

    def __init__(self) -> None:
        self._app = guard.module("ministack.app")
        self._evaluator = guard.module("ministack.core.iam_evaluator")
        self._actions = guard.module("ministack.core.iam_actions")
        self._iam = guard.module("ministack.services.iam")
        self._dispatch = guard.function(
            self._app,
            "_dispatch_service_request",
            *("method", "path", "headers", "body", "query_params", "request_id"),
        )
        guard.function(self._app, "_routing_params", "method", "path", "headers", "body")
        guard.function(self._evaluator, "enforce", "access_key_id", "iam_action", "service")
        guard.function(self._evaluator, "pin_request_caller", "headers", "query_params")
        guard.function(self._actions, "access_denied_response", "service", "action")
        guard.value(self._iam, "_roles", object)
        guard.value(self._iam, "_instance_profiles", object)

    def install(self) -> None:
        """Patch the emulator's dispatch."""
        self._app._dispatch_service_request = self._check_first  # type: ignore[attr-defined]

    async def _check_first(  # noqa: PLR0917 - the emulator's own signature
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        query_params: dict[str, Any],
        request_id: str,
    ) -> Any:
        params = self._app._routing_params(method, path, headers, body, query_params)
        service = self._app.detect_service(method, path, headers, params)
        role, receiver = self._passed(service, method, path, body, params)
        if role:
            self._evaluator.pin_request_caller(headers, query_params)
            denied = self._evaluator.enforce(
                self._app.extract_access_key_id(headers, query_params),
                "iam:PassRole",
                "iam",
                self._app.extract_region(headers),
                resource_arn=role,
                service_context={"iam:PassedToService": receiver},
            )
            # The emulator itself answers a failed authentication, in the service's own format.
            if hasattr(denied, "decision"):
                return self._actions.access_denied_response(
                    service,
                    "iam:PassRole",
                    denied.principal_arn,
                    request_id,
                    headers=headers,
                    resource_arn=role,
                )
        return await self._dispatch(method, path, headers, body, query_params, request_id)

    def _passed(
        self, service: str, method: str, path: str, body: bytes, params: dict[str, Any]
    ) -> tuple[str, str]:
        """Return the role that the request passes, and the service; empty if none."""
        action = _first(params, "Action")
        if service == "lambda" and method in ("POST", "PUT") and "/functions" in path:
            return _json_member(body, "Role"), "lambda.amazonaws.com"
        if service == "iam" and action == "AddRoleToInstanceProfile":
            return self._arn(_first(params, "RoleName")), "ec2.amazonaws.com"
        if service == "ec2" and action == "RunInstances":
            profile = _first(params, "IamInstanceProfile.Name")
            profile = profile or _first(params, "IamInstanceProfile.Arn").rpartition("/")[2]
            record = self._iam._instance_profiles.get(profile) or {}
            roles = record.get("Roles") or [""]
            return self._arn(str(roles[0])), "ec2.amazonaws.com"
        return "", ""

    def _arn(self, role: str) -> str:
        return str((self._iam._roles.get(role) or {}).get("Arn", ""))


def _json_member(body: bytes, name: str) -> str:
    try:
        decoded = json.loads(body or b"{}")
    except (json.JSONDecodeError, UnicodeDecodeError):
        return ""
    return str(decoded.get(name) or "") if isinstance(decoded, dict) else ""


def _first(params: dict[str, Any], name: str) -> str:
    value = params.get(name, "")
    return str(value[0] if isinstance(value, list) and value else value or "")
