"""Evaluate IAM permissions of roles, callers and services, by the emulator's evaluator."""

from typing import Any

import guard
from authorization import Check


class Permissions:
    """Checks that AWS makes inside its services and the emulator does not."""

    def __init__(self) -> None:
        self._evaluator = guard.module("ministack.core.iam_evaluator")
        self._actions = guard.module("ministack.core.iam_actions")
        self._runtime = guard.module("ministack.core.lambda_runtime")
        self._responses = guard.module("ministack.core.responses")
        self._iam = guard.module("ministack.services.iam")
        guard.function(self._evaluator, "resolve_principal", "access_key_id", "account_id")
        guard.function(self._evaluator, "evaluate", "ctx", "policies", "limits")
        guard.function(self._evaluator, "evaluate_resource_policy", "doc", "ctx", "service")
        guard.function(self._evaluator, "_gather_role_policies", "role_name", "account_id")
        guard.function(self._evaluator, "_permissions_boundary", "store", "name", "account_id")
        guard.function(
            self._actions, "identity_denial_message", "action", "principal_arn", "resource"
        )
        guard.function(self._runtime, "execution_credentials", "config")
        guard.value(self._iam, "_roles", object)

    def caller(self, access_key: str) -> Any:
        """Return the principal that has the access key; None if there is none."""
        principal = self._evaluator.resolve_principal(access_key, self._responses.get_account_id())
        return principal if hasattr(principal, "policies") else None  # else an AuthError

    def assumed(self, role_arn: str, service: str) -> Any:
        """Return the principal of a service's session; None if the service may not assume it."""
        account = self._responses.get_account_id()
        name = role_arn.rpartition("/")[2]
        role = self._iam._roles.get(name)
        if role is None or role["Arn"] != role_arn:
            return None
        evaluator = self._evaluator
        trust = evaluator.EvalContext(
            principal_arn="",
            principal_type="Service",
            principal_account=account,
            action="sts:AssumeRole",
            resource_arn="*",
            region="",
        )
        document = role["AssumeRolePolicyDocument"]
        if evaluator.evaluate_resource_policy(document, trust, service).decision != "Allow":
            return None
        return evaluator.PrincipalInfo(
            arn=f"arn:aws:sts::{account}:assumed-role/{name}/AWSCloudFormation",
            type="AssumedRole",
            account=account,
            policies=evaluator._gather_role_policies(name, account),
            limits=evaluator._permissions_boundary(self._iam._roles, name, account),
        )

    def refusal(self, principal: Any, check: Check, region: str) -> str:
        """Return why the principal may not do it; empty if it may."""
        if principal.policies is None:  # root
            return ""
        context = self._evaluator.EvalContext(
            principal_arn=principal.arn,
            principal_type=principal.type,
            principal_account=principal.account,
            action=check.action,
            resource_arn=check.resource,
            region=region,
            secure_transport=True,
            service_context={key.lower(): value for key, value in check.context.items()},
            principal_keys=principal.keys,
        )
        answer = self._evaluator.evaluate(context, principal.policies, *principal.limits)
        if answer.decision == "Allow":
            return ""
        return str(
            self._actions.identity_denial_message(
                check.action, principal.arn, check.resource, answer.decision == "Deny"
            )
        )

    def role_may(self, config: dict[str, Any], action: str, resource: str) -> bool:
        """Return whether the function's execution role may do the action on the resource."""
        account, region = config["FunctionArn"].split(":")[4], config["FunctionArn"].split(":")[3]
        key = self._runtime.execution_credentials(config)["AWS_ACCESS_KEY_ID"]
        principal = self._evaluator.resolve_principal(key, account)
        if not hasattr(principal, "policies"):  # an AuthError: the role does not exist
            return False
        return not self.refusal(principal, Check(action, resource), region)

    def service_may(
        self, service: str, policy: dict[str, Any] | str | None, check: Check, source_arn: str
    ) -> bool:
        """Return whether a resource's policy allows a service what it does for its own resource.

        source_arn: the ARN of the service's resource.
        """
        account, region = source_arn.split(":")[4], source_arn.split(":")[3]
        sources = {
            "aws:sourcearn": source_arn,
            "aws:sourceaccount": account,
            "aws:sourceowner": account,  # in the default policy of a topic
        }
        context = self._evaluator.EvalContext(
            principal_arn="",
            principal_type="Service",
            principal_account=account,
            action=check.action,
            resource_arn=check.resource,
            region=region,
            secure_transport=True,  # AWS services use TLS between each other
            service_context=sources,
        )
        answer = self._evaluator.evaluate_resource_policy(policy, context, service)
        return bool(answer.decision == "Allow")
