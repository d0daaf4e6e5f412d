"""The spot handler: notice → rule → function → drained node; failures → queue → alarm."""

from __future__ import annotations

from aws_cdk import Annotations, CfnOutput, Duration, Environment
from aws_cdk import aws_eks as eks
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from lambdas.common.names import SPOT_HANDLER_GROUP
from stacks.castai_stack import CastaiStack
from stacks.constructs.alarms import SpotAlarms
from stacks.constructs.failure_queue import FailureQueue
from stacks.constructs.python_function import PythonFunction
from stacks.constructs.spot_role import SpotRole
from stacks.constructs.spot_rules import SpotRules
from stacks.settings import Settings

# The time from the notice to the interruption. An older notice is too late for a drain.
NOTICE = Duration.seconds(120)

# The handler stops at the deadline by itself. The rest is for its start and its report.
TIMEOUT = Duration.seconds(150)

# Lambda retries a failed invocation after one minute, and again two minutes later. The first retry
# still has one minute for the drain. The second would come after the interruption.
INVOCATION_RETRIES = 1


class SpotHandlerStack(CastaiStack):
    """Role, function, rules, cluster access, failure queue, alarms, outputs."""

    PART = "spot-handler"
    DESCRIPTION = "CAST AI on EKS: drains the nodes of interrupted spot instances"

    def __init__(
        self, scope: Construct, settings: Settings, *, env: Environment | None = None
    ) -> None:
        super().__init__(scope, settings, env=env)
        self.settings = settings
        self.spot = settings.spot_handler

        failures_name = f"{self.prefix}-failures"
        failures = FailureQueue(self, "Failures", name=failures_name)
        role = SpotRole(
            self,
            "Role",
            settings=self.spot,
            castai=settings.castai,
            function_name=self.prefix,
            failure_queue_name=failures_name,
            in_vpc=bool(settings.functions.subnet_ids),
        ).role
        function = self._function(role)
        self._warn_without_bytecode()
        target = self._target(function)
        target.configure_async_invoke(
            max_event_age=NOTICE,
            retry_attempts=INVOCATION_RETRIES,
            on_failure=destinations.SqsDestination(failures),
        )
        SpotRules(
            self,
            "Rules",
            name=self.prefix,
            target=target,
            drill_sources=self.spot.drill_sources,
            returned=self.spot.uncordon_returned,
            undelivered=failures,
            max_age=NOTICE,
        )
        self._cluster_access(role)
        SpotAlarms(
            self,
            "Alarms",
            name=self.prefix,
            settings=self.spot,
            function=function,
            failures=failures,
        )
        self._outputs(role, function, failures)

    def _function(self, role: iam.IRole) -> PythonFunction:
        return PythonFunction(
            self,
            "Handler",
            package="spot_handler",
            name=self.prefix,
            role=role,
            description="Cordons and drains the node of an interrupted spot instance",
            target=self.settings.target,
            memory_mb=self.spot.memory_mb,
            timeout=TIMEOUT,
            log_level=self.settings.functions.log_level,
            log_retention_days=self.settings.functions.log_retention_days,
            tracing=self.spot.tracing,
            snap_start=self.spot.snap_start,
            reserved_concurrency=self.spot.reserved_concurrency,
            subnet_ids=self.settings.functions.subnet_ids,
            security_group_ids=self.settings.functions.security_group_ids,
            environment={
                "MODE": str(self.spot.mode),
                "ON_DEADLINE": str(self.spot.on_deadline),
                "CONCURRENCY": str(self.spot.concurrency),
                "MARGIN_SECONDS": f"{self.spot.margin_seconds:g}",
                "CLUSTERS": ",".join(self.spot.clusters),
                "DRILL_SOURCES": ",".join(self.spot.drill_sources),
                "LOG_LEVEL": str(self.settings.functions.log_level),
                **self._castai(),
            },
        )

    def _warn_without_bytecode(self) -> None:
        """Warn in this stack only: cold starts of the other functions do not delay a drain."""
        target = self.settings.target
        if target.compiler is None:
            Annotations.of(self).add_warning_v2(
                "castai:bytecode",
                f"Cold starts take about 1.8 times as long: no Python {target.runtime} was found "
                "on this machine, and uv could not fetch one, so the functions' zips hold sources "
                f"only. Install it (uv python install {target.runtime}), then deploy again.",
            )

    def _castai(self) -> dict[str, str]:
        """URL and API key secret for reports to CAST AI; empty without a secret."""
        castai = self.settings.castai
        if castai.api_key_secret is None:
            return {}
        return {"CASTAI_API_KEY_SECRET": castai.api_key_secret, "CASTAI_API_URL": castai.api_url}

    def _target(self, function: lambda_.Function) -> lambda_.IFunction:
        """What the rules call: the function, or with SnapStart an alias of its newest version."""
        if not self.spot.snap_start:
            return function
        Annotations.of(function).acknowledge_warning(
            "@aws-cdk/aws-lambda:snapStartRequirePublish", "The alias is of a published version."
        )
        return lambda_.Alias(self, "Live", alias_name="live", version=function.current_version)

    def _cluster_access(self, role: iam.IRole) -> None:
        """Give the role access to the clusters, as a member of the group only."""
        for cluster in self.settings.entry_clusters:
            eks.CfnAccessEntry(
                self,
                f"Access-{cluster}",
                cluster_name=cluster,
                principal_arn=role.role_arn,
                type="STANDARD",
                kubernetes_groups=[SPOT_HANDLER_GROUP],
            )

    def _outputs(self, role: iam.IRole, function: PythonFunction, failures: sqs.IQueue) -> None:
        group = SPOT_HANDLER_GROUP
        for name, value, description in (
            ("FunctionName", function.function_name, "The spot handler's function"),
            (
                "RoleArn",
                role.role_arn,
                f"The spot handler's role; clusters not listed map it to group {group}",
            ),
            ("LogGroupName", function.own_log_group.log_group_name, "The spot handler's log"),
            (
                "FailureQueueUrl",
                failures.queue_url,
                "The queue of notices that were not handled, with the reason",
            ),
        ):
            CfnOutput(self, name, value=value, description=description)
