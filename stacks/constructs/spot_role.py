"""The spot handler's role: the managed policies CAST AI documents, or exactly what is used."""

from __future__ import annotations

from collections.abc import Iterator

from aws_cdk import ArnFormat, Stack, Tags
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.constructs.acknowledged import acknowledge
from stacks.constructs.api_key import api_key_statements
from stacks.settings import CastaiSettings, SpotHandlerSettings

# What CAST AI documents for CastLambdaRoleForSpot.
MANAGED_POLICIES = (
    "CloudWatchLogsFullAccess",
    "service-role/AWSLambdaRole",
    "AmazonEC2ReadOnlyAccess",
)

# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
NETWORK_INTERFACE_ACTIONS = (
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
)

TRACING_ACTIONS = ("xray:PutTraceSegments", "xray:PutTelemetryRecords")


class SpotRole(Construct):
    """Create the role, or take an existing one of that name as it is, without a lookup.

    The role is account-wide: its statements name the resources of every region that shares it, by
    the names that are the same everywhere. They stand in the role itself and no grant adds to them,
    so the function never exists without its permissions nor with more of them.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,  # noqa: A002 - CDK's own name for it
        *,
        settings: SpotHandlerSettings,
        castai: CastaiSettings,
        function_name: str,
        failure_queue_name: str,
    ) -> None:
        super().__init__(scope, id)
        self._settings = settings
        self._castai = castai
        self._function_name = function_name
        self._failure_queue_name = failure_queue_name
        self._regions = settings.spot_role_regions or (Stack.of(self).region,)
        self.role: iam.IRole = (
            iam.Role.from_role_name(self, "Role", settings.spot_role_name, mutable=False)
            if settings.spot_role == "import"
            else self._created().without_policy_updates()
        )

    def _created(self) -> iam.Role:
        managed = () if self._least else MANAGED_POLICIES
        role = iam.Role(
            self,
            "Role",
            role_name=self._settings.spot_role_name,
            description="CAST AI spot interruption handler: finds an instance's node and drains it",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            managed_policies=[
                iam.ManagedPolicy.from_aws_managed_policy_name(name) for name in managed
            ],
            inline_policies={"SpotHandler": iam.PolicyDocument(statements=[*self._statements()])},
        )
        Tags.of(role).add("cast:managed-by", "cast.ai")
        acknowledge(role, dict(self._findings()))
        return role

    @property
    def _least(self) -> bool:
        return self._settings.role_policies == "least-privilege"

    @property
    def _clusters(self) -> tuple[str, ...]:
        """Names of the clusters to be read. Those of other regions are not known here: any."""
        return ("*",) if self._settings.spot_role_regions else self._settings.clusters or ("*",)

    def _statements(self) -> Iterator[iam.PolicyStatement]:
        if self._least:
            yield iam.PolicyStatement(
                sid="WriteOwnLog",
                actions=["logs:CreateLogStream", "logs:PutLogEvents"],
                resources=self._log_arns(),
            )
            yield iam.PolicyStatement(
                sid="FindInstance", actions=["ec2:DescribeInstances"], resources=["*"]
            )
        yield iam.PolicyStatement(
            sid="FindCluster", actions=["eks:DescribeCluster"], resources=self._cluster_arns()
        )
        yield iam.PolicyStatement(
            sid="KeepFailedNotices",
            actions=["sqs:SendMessage"],
            resources=self._arns("sqs", self._failure_queue_name, form=ArnFormat.NO_RESOURCE_NAME),
        )
        yield from api_key_statements(self, self._castai, regions=self._regions)
        if self._settings.tracing:
            yield iam.PolicyStatement(sid="Trace", actions=list(TRACING_ACTIONS), resources=["*"])
        if self._settings.subnet_ids:
            yield iam.PolicyStatement(
                sid="AttachToVpc", actions=list(NETWORK_INTERFACE_ACTIONS), resources=["*"]
            )

    def _log_arns(self) -> list[str]:
        streams = f"/aws/lambda/{self._function_name}:*"
        return self._arns("logs", "log-group", streams, ArnFormat.COLON_RESOURCE_NAME)

    def _cluster_arns(self) -> list[str]:
        return [arn for name in self._clusters for arn in self._arns("eks", "cluster", name)]

    def _arns(
        self,
        service: str,
        resource: str,
        name: str | None = None,
        form: ArnFormat = ArnFormat.SLASH_RESOURCE_NAME,
    ) -> list[str]:
        return [
            Stack.of(self).format_arn(
                service=service,
                resource=resource,
                resource_name=name,
                region=region,
                arn_format=form,
            )
            for region in self._regions
        ]

    def _findings(self) -> Iterator[tuple[str, str]]:
        for name in () if self._least else MANAGED_POLICIES:
            yield (
                f"IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{name}]",
                "CAST AI documents it for this role; castai:rolePolicies=least-privilege drops it.",
            )
        if self._least:
            for arn in self._log_arns():
                yield f"IAM5[Resource::{arn}]", "The streams of the function's own log group."
        if "*" in self._clusters:
            for arn in self._cluster_arns():
                yield (
                    f"IAM5[Resource::{arn}]",
                    "No clusters are listed, or other regions share the role: reading only.",
                )
        if self._least or self._settings.tracing or self._settings.subnet_ids:
            yield (
                "IAM5[Resource::*]",
                "EC2's reads and network interfaces and X-Ray's writes take no resource.",
            )
