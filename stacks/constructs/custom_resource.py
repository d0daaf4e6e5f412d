"""The function of a custom resource: role, log, Provider framework, cdk-nag acknowledgments.

The function's `lambda_handler` serves both calls of the framework, onEvent and isComplete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

from aws_cdk import CfnElement, CustomResource, Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import custom_resources as cr
from constructs import Construct, IConstruct

from lambdas.common.names import OWN_ROLE_VARIABLE, STACK_ID_VARIABLE
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.policies.functions import role_name
from stacks.constructs.nag import acknowledge, wildcards
from stacks.constructs.python_function import PythonFunction
from stacks.settings import Settings

MEMORY_MB: Final = 512
QUERY_INTERVAL: Final = Duration.seconds(15)

# The function times out first, then the framework, then CloudFormation, so that CloudFormation
# shows the function's error.
AFTER_OWN_DEADLINE: Final = 300  # s from the function's timeout to the framework's
BEFORE_GIVING_UP: Final = 300  # s from the framework's timeout to CloudFormation's

_PARTS: Final = ("isComplete", "onTimeout")
_FRAMEWORK: Final = (
    "CDK's Provider framework creates it this way; the function has only CDK's own code"
)


class RolePolicy(NamedTuple):
    """A managed policy of the function's role."""

    id: str
    """The construct's id."""
    description: str
    document: Document


class CustomResourceFunction(Construct):
    """`function`, its `role`, and `resource` for the custom resources that it serves."""

    def __init__(
        self,
        scope: Construct,
        id: str,  # noqa: A002 - CDK's own name for it
        *,
        settings: Settings,
        package: str,
        name: str,
        service: str,
        description: str,
        role_description: str,
        role_policies: Iterable[RolePolicy],
        wildcard_reasons: Mapping[str, str],
        timeout: Duration,
        waits: int | None = None,
    ) -> None:
        """Create function, role and provider.

        `wildcard_reasons` has the reason for each wildcard in `role_policies`, by Sid. `waits` is
        the number of seconds after which isComplete fails; None: onEvent does all of the work.
        """
        super().__init__(scope, id)
        self.role = self._role(name, role_description, role_policies, wildcard_reasons)
        common = settings.functions
        self.function = PythonFunction(
            self,
            "Function",
            package=package,
            name=name,
            role=self.role,
            description=description,
            target=settings.target,
            memory_mb=MEMORY_MB,
            timeout=timeout,
            log_level=common.log_level,
            log_retention_days=common.log_retention_days,
            subnet_ids=common.subnet_ids,
            security_group_ids=common.security_group_ids,
            environment={
                OWN_ROLE_VARIABLE: self.role.role_arn,
                STACK_ID_VARIABLE: Stack.of(self).stack_id,
                "POWERTOOLS_SERVICE_NAME": service,
                "POWERTOOLS_LOG_LEVEL": str(common.log_level),
            },
        )
        self._service_token = self._provider(waits)
        work = timeout.to_seconds() if waits is None else waits + AFTER_OWN_DEADLINE
        self._service_timeout = Duration.seconds(work + BEFORE_GIVING_UP)

    def resource(
        self,
        scope: Construct,
        id: str,  # noqa: A002 - CDK's own name for it
        *,
        resource_type: str,
        properties: Mapping[str, Any],
    ) -> CustomResource:
        """A custom resource that the function serves."""
        return CustomResource(
            scope,
            id,
            resource_type=resource_type,
            service_token=self._service_token,
            service_timeout=self._service_timeout,
            properties={**properties, "CodeVersion": self.function.code_version},
        )

    def _role(
        self,
        name: str,
        description: str,
        role_policies: Iterable[RolePolicy],
        wildcard_reasons: Mapping[str, str],
    ) -> iam.Role:
        policies = []
        for each in role_policies:
            policy = iam.ManagedPolicy(
                self,
                each.id,
                description=each.description,
                document=iam.PolicyDocument.from_json(each.document),
            )
            acknowledge(policy, wildcards(policy, each.document, wildcard_reasons))
            policies.append(policy)
        return iam.Role(
            self,
            "Role",
            role_name=role_name(name, Stack.of(self).region),
            description=description,
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            managed_policies=policies,
        )

    def _provider(self, waits: int | None) -> str:
        """Create the Provider framework around the function; returns its service token."""
        function = self.function
        # The framework's parts have ids in a scope of their own.
        own_scope = Construct(self, "Provider")
        log_group = logs.LogGroup(
            own_scope,
            "Log",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.DESTROY,
        )
        waiting: dict[str, Any] = (
            {}
            if waits is None
            else {
                "is_complete_handler": function,
                "framework_complete_and_timeout_role": _framework_role(
                    own_scope, "WaiterRole", log_group
                ),
                "query_interval": QUERY_INTERVAL,
                "total_timeout": Duration.seconds(waits + AFTER_OWN_DEADLINE),
                "disable_waiter_state_machine_logging": True,
            }
        )
        provider = cr.Provider(
            own_scope,
            "Framework",
            on_event_handler=function,
            log_group=log_group,
            framework_on_event_role=_framework_role(own_scope, "OnEventRole", log_group),
            # Requests contain the ResponseURL, with which anyone can answer CloudFormation.
            framework_lambda_logging_level=lambda_.ApplicationLogLevel.FATAL,
            **waiting,
        )
        parts = () if waits is None else _PARTS
        called = [function, *(provider.node.find_child(f"framework-{part}") for part in parts)]
        acknowledge(
            own_scope,
            {
                "L1": _FRAMEWORK,
                **{
                    f"IAM5[Resource::<{_logical_id(each)}.Arn>:*]": "All versions of one function"
                    for each in called
                },
            },
        )
        if waits is not None:
            acknowledge(
                provider,
                {
                    "SF1": "The waiter's executions would log requests with their ResponseURL",
                    "SF2": "It only waits; the function that it calls can be traced",
                },
            )
        return provider.service_token


def _framework_role(scope: Construct, id: str, log_group: logs.LogGroup) -> iam.Role:  # noqa: A002 - CDK's own name for it
    """A role for a part of the Provider framework.

    By default the framework attaches AWSLambdaBasicExecutionRole. With its right to create log
    groups, the last lines of a Delete create the group again that the stack has just deleted.
    """
    role = iam.Role(
        scope,
        id,
        description="Passes requests of CloudFormation to a function of castai-eks-cdk",
        assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
    )
    log_group.grant_write(role)
    return role


def _logical_id(function: IConstruct) -> str:
    return str(Stack.of(function).get_logical_id(cast("CfnElement", function.node.default_child)))
