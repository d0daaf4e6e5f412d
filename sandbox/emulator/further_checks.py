"""Evaluate each action and resource of a request, where the emulator evaluates only one."""

from typing import Any

import guard
from ec2_inventory import Ec2Inventory
from pass_role import PassRole


class FurtherChecks:
    """Checks the passed role and the resources of EC2 before the emulator dispatches a request."""

    def __init__(self) -> None:
        self._app = guard.module("ministack.app")
        self._evaluator = guard.module("ministack.core.iam_evaluator")
        self._actions = guard.module("ministack.core.iam_actions")
        self._dispatch = guard.function(
            self._app,
            "_dispatch_service_request",
            *("method", "path", "headers", "body", "query_params", "request_id"),
        )
        guard.function(self._app, "_routing_params", "method", "path", "headers", "body")
        guard.function(self._evaluator, "enforce", "access_key_id", "iam_action", "service")
        guard.function(self._evaluator, "pin_request_caller", "headers", "query_params")
        guard.function(self._actions, "access_denied_response", "service", "action")
        guard.function(
            self._actions, "identity_denial_message", "action", "principal_arn", "resource"
        )
        self._pass_role = PassRole()
        self._ec2 = Ec2Inventory()

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
        checks = [*self._pass_role.checks(service, method, path, body, params)]
        if service == "ec2":
            checks = [*self._ec2.request(params).checks(), *checks]
        for check in checks:
            self._evaluator.pin_request_caller(headers, query_params)
            denied = self._evaluator.enforce(
                self._app.extract_access_key_id(headers, query_params),
                check.action,
                check.action.partition(":")[0],
                self._app.extract_region(headers),
                resource_arn=check.resource,
                service_context=dict(check.context),
            )
            # The emulator itself answers a failed authentication, in the service's own format.
            if hasattr(denied, "decision"):
                explicit = denied.decision == "Deny"
                return self._actions.access_denied_response(
                    service,
                    check.action,
                    denied.principal_arn,
                    request_id,
                    message=self._actions.identity_denial_message(
                        check.action, denied.principal_arn, check.resource, explicit
                    ),
                    headers=headers,
                )
        return await self._dispatch(method, path, headers, body, query_params, request_id)
