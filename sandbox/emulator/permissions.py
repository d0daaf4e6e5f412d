"""Evaluate IAM permissions of functions' roles and of services, by the emulator's evaluator."""

from typing import Any

import guard


class Permissions:
    """Checks that AWS makes inside its services and the emulator does not."""

    def __init__(self) -> None:
        self._iam = guard.module("ministack.core.iam_evaluator")
        self._runtime = guard.module("ministack.core.lambda_runtime")
        self._responses = guard.module("ministack.core.responses")
        guard.function(self._iam, "resolve_principal", "access_key_id", "account_id")
        guard.function(self._iam, "evaluate", "ctx", "policies", "limits")
        guard.function(self._iam, "evaluate_resource_policy", "doc", "ctx", "service")
        guard.function(self._runtime, "execution_credentials", "config")

    def role_may(self, config: dict[str, Any], action: str, resource: str) -> bool:
        """Return whether the function's execution role may do the action on the resource."""
        account, region = config["FunctionArn"].split(":")[4], config["FunctionArn"].split(":")[3]
        key = self._runtime.execution_credentials(config)["AWS_ACCESS_KEY_ID"]
        principal = self._iam.resolve_principal(key, account)
        if not hasattr(principal, "policies"):  # an AuthError: the role does not exist
            return False
        context = self._iam.EvalContext(
            principal_arn=principal.arn,
            principal_type=principal.type,
            principal_account=principal.account,
            action=action,
            resource_arn=resource,
            region=region,
            principal_keys=principal.keys,
        )
        decision = self._iam.evaluate(context, principal.policies or [], *principal.limits).decision
        return principal.policies is None or bool(decision == "Allow")

    def events_may(
        self, policy: dict[str, Any] | str | None, action: str, resource: str, rule_arn: str
    ) -> bool:
        """Return whether a resource's policy allows EventBridge the action for the rule."""
        account, region = rule_arn.split(":")[4], rule_arn.split(":")[3]
        context = self._iam.EvalContext(
            principal_arn="",
            principal_type="Service",
            principal_account=account,
            action=action,
            resource_arn=resource,
            region=region,
            secure_transport=True,  # AWS services use TLS between each other
            service_context={"aws:sourcearn": rule_arn, "aws:sourceaccount": account},
        )
        answer = self._iam.evaluate_resource_policy(policy, context, "events.amazonaws.com")
        return bool(answer.decision == "Allow")
