"""The spot handler's role: the managed policies that CAST AI documents, or least privilege."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aws_cdk import Stack, Tags
from aws_cdk import aws_iam as iam
from constructs import Construct

from lambdas.onboarding.policies import spot_handler_role
from lambdas.onboarding.policies.scope import FunctionScope
from stacks.constructs.nag import FUNCTION_WILDCARDS, acknowledge, wildcards
from stacks.settings import CastaiSettings, SpotHandlerSettings

_WILDCARDS = {
    **FUNCTION_WILDCARDS,
    "FindInstance": "DescribeInstances takes no resource",
    "FindCluster": "No clusters are listed, or other regions share the role: reading only",
    "Trace": "X-Ray's writes take no resource",
}


class SpotRole(Construct):
    """Create the role, or import an existing role of that name, without a lookup or a change.

    The role is account-wide: its statements name the resources of every region that shares it. The
    names are the same in every region. All statements are in the role itself and no grant adds
    others, so the function has exactly these permissions at any time.
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
        in_vpc: bool,
    ) -> None:
        super().__init__(scope, id)
        self._settings = settings
        self._castai = castai
        stack = Stack.of(self)
        self._where = FunctionScope(
            partition=stack.partition,
            account=stack.account,
            regions=settings.spot_role_regions or (stack.region,),
            function=function_name,
        )
        self._failure_queue_name = failure_queue_name
        self._in_vpc = in_vpc
        self.role: iam.IRole = (
            iam.Role.from_role_name(self, "Role", settings.spot_role_name, mutable=False)
            if settings.spot_role == "import"
            else self._created().without_policy_updates()
        )

    def _created(self) -> iam.Role:
        settings = self._settings
        least = settings.role_policies == "least-privilege"
        managed = () if least else spot_handler_role.SPOT_MANAGED_POLICIES
        document = spot_handler_role.spot_handler(
            self._where,
            failure_queue=self._failure_queue_name,
            # The clusters of other regions are not known here, so every cluster is allowed.
            clusters=() if settings.spot_role_regions else settings.clusters,
            least=least,
            api_key_secret=self._castai.api_key_secret,
            api_key_kms_key=self._castai.api_key_kms_key,
            tracing=settings.tracing,
            in_vpc=self._in_vpc,
        )
        role = iam.Role(
            self,
            "Role",
            role_name=settings.spot_role_name,
            description="CAST AI spot interruption handler: finds an instance's node and drains it",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            managed_policies=[
                iam.ManagedPolicy.from_aws_managed_policy_name(name) for name in managed
            ],
            inline_policies={"SpotHandler": iam.PolicyDocument.from_json(document)},
        )
        Tags.of(role).add("cast:managed-by", "cast.ai")
        acknowledge(
            role, {**dict(_managed_findings(managed)), **wildcards(role, document, _WILDCARDS)}
        )
        return role


def _managed_findings(managed: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in managed:
        yield (
            f"IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{name}]",
            "CAST AI documents it for this role; castai:rolePolicies=least-privilege removes it.",
        )
