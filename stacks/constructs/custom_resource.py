"""The Provider framework around one of our functions: CloudFormation gets its answer on every path.

The function's `lambda_handler` serves both calls of the framework, onEvent and isComplete.
"""

from __future__ import annotations

from typing import cast

from aws_cdk import CfnElement, Duration, RemovalPolicy, Stack
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import custom_resources as cr
from constructs import Construct, IConstruct

from stacks.constructs.nag import acknowledge

QUERY_INTERVAL = Duration.seconds(15)

# Beyond the function's own patience, so that its words are heard and not the framework's.
AFTER_OWN_DEADLINE = 300  # s
BEFORE_GIVING_UP = 300  # s between the framework's end and CloudFormation's

_PARTS = ("isComplete", "onTimeout")
_FRAMEWORK = "CDK's Provider framework makes it this way; the function is only CDK's own code"


class PatientProvider(Construct):
    """`service_token` and `service_timeout` are what a CustomResource needs.

    own_deadline: seconds after which the function itself gives up waiting.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,  # noqa: A002 - CDK's own name for it
        *,
        function: lambda_.IFunction,
        own_deadline: int,
        log_retention: logs.RetentionDays = logs.RetentionDays.ONE_MONTH,
    ) -> None:
        super().__init__(scope, id)
        log_group = logs.LogGroup(
            self, "Log", retention=log_retention, removal_policy=RemovalPolicy.DESTROY
        )
        provider = cr.Provider(
            self,
            "Framework",
            on_event_handler=function,
            is_complete_handler=function,
            query_interval=QUERY_INTERVAL,
            total_timeout=Duration.seconds(own_deadline + AFTER_OWN_DEADLINE),
            log_group=log_group,
            # Requests carry the ResponseURL, with which anyone may answer CloudFormation.
            framework_lambda_logging_level=lambda_.ApplicationLogLevel.FATAL,
            disable_waiter_state_machine_logging=True,
        )
        self.service_token = provider.service_token
        self.service_timeout = Duration.seconds(
            own_deadline + AFTER_OWN_DEADLINE + BEFORE_GIVING_UP
        )
        acknowledge(
            provider,
            {
                "IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
                "AWSLambdaBasicExecutionRole]": _FRAMEWORK,
                "L1": _FRAMEWORK,
                "SF1": "The waiter's executions would log requests with their ResponseURL",
                "SF2": "It only waits; the function that it calls can be traced",
                **{
                    f"IAM5[Resource::<{_logical_id(each)}.Arn>:*]": "All versions of one function"
                    for each in (
                        function,
                        *(provider.node.find_child(f"framework-{part}") for part in _PARTS),
                    )
                },
            },
        )


def _logical_id(function: IConstruct) -> str:
    return str(Stack.of(function).get_logical_id(cast("CfnElement", function.node.default_child)))
