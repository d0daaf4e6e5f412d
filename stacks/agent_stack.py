"""The read-only castai-agent: cluster → custom resource → agent that CAST AI sees."""

from __future__ import annotations

from aws_cdk import CfnOutput, CustomResource, Duration, Environment
from aws_cdk import aws_iam as iam
from constructs import Construct

from lambdas.common.names import OWN_ROLE_VARIABLE
from lambdas.common.own_stack import STACK_ID
from lambdas.onboarding.policies import agent_role
from lambdas.onboarding.policies.scope import FunctionScope
from stacks.castai_stack import CastaiStack
from stacks.constructs.bundling import ROOT
from stacks.constructs.custom_resource import PatientProvider
from stacks.constructs.nag import acknowledge, wildcards
from stacks.constructs.python_function import PythonFunction
from stacks.settings import Settings

RESOURCE_TYPE = "Custom::CastEksAgent"
SERVICE = "castai-agent"

# A removal returns when the namespace is gone: the agent's pods have 30 s to end, finalizers more.
TIMEOUT = Duration.minutes(5)
MEMORY_MB = 512

_WILDCARDS = {
    "Connect": "The role's own policy denies other regions and the entries of others",
    "WriteOwnLog": "The streams of the function's own log group",
    "AttachToVpc": "Lambda checks the role for these on every resource; its code is denied them",
}


class AgentStack(CastaiStack):
    """Function, its role, provider, a custom resource for each cluster, outputs."""

    PART = "agent"
    DESCRIPTION = "CAST AI on EKS: connects clusters by the read-only castai-agent"

    def __init__(
        self, scope: Construct, settings: Settings, *, env: Environment | None = None
    ) -> None:
        super().__init__(scope, settings, env=env)
        self.settings = settings
        clusters = settings.agent.agent_clusters
        secret = str(settings.castai.api_key_secret)
        role = self._role()
        function = self._function(role)
        provider = PatientProvider(
            self,
            "Provider",
            function=function,
            own_deadline=settings.agent.ready_within,
        )
        for cluster in clusters:
            agent = CustomResource(
                self,
                f"Agent-{cluster}",
                resource_type=RESOURCE_TYPE,
                service_token=provider.service_token,
                service_timeout=provider.service_timeout,
                properties={
                    "ClusterName": cluster,
                    "ApiKeySecret": secret,
                    "ApiUrl": settings.castai.api_url,
                    "CodeVersion": function.code_version,
                    **settings.agent.properties(),
                },
            )
            # CloudFormation removes the agent of a cluster that left the list before these rights.
            agent.node.add_dependency(self._rights(role, cluster))
            self._outputs(cluster, agent)

    @classmethod
    def wanted(cls, settings: Settings) -> bool:
        """Where there are clusters that get the agent."""
        return bool(settings.agent.agent_clusters)

    def _function(self, role: iam.Role) -> PythonFunction:
        common = self.settings.functions
        return PythonFunction(
            self,
            "Function",
            package="agent",
            requirements=ROOT / "lambdas" / "onboarding" / "requirements.txt",
            name=self.prefix,
            role=role,
            description="Puts the castai-agent into EKS clusters and takes it out again",
            target=self.settings.target,
            memory_mb=MEMORY_MB,
            timeout=TIMEOUT,
            log_level=common.log_level,
            log_retention_days=common.log_retention_days,
            subnet_ids=common.subnet_ids,
            security_group_ids=common.security_group_ids,
            environment={
                OWN_ROLE_VARIABLE: role.role_arn,
                STACK_ID: self.stack_id,
                "POWERTOOLS_SERVICE_NAME": SERVICE,
                "POWERTOOLS_LOG_LEVEL": str(common.log_level),
            },
        )

    def _role(self) -> iam.Role:
        """What the function does on every cluster, and with the one secret."""
        # A name of its own, so that its policy can name it: it lets itself in and nobody else.
        name = f"{self.prefix}-{self.region}"
        where = FunctionScope(self.partition, self.account, (self.region,), self.prefix)
        document = agent_role.agent_function(
            where,
            own_role=name,
            api_key_secret=self.settings.castai.api_key_secret,
            api_key_kms_key=self.settings.castai.api_key_kms_key,
            in_vpc=bool(self.settings.functions.subnet_ids),
        )
        # A managed policy: the role's inline policies are for the clusters.
        policy = iam.ManagedPolicy(
            self,
            "Policy",
            description="Connect EKS clusters to CAST AI: what is the same for all clusters",
            document=iam.PolicyDocument.from_json(document),
        )
        acknowledge(policy, wildcards(policy, document, _WILDCARDS))
        return iam.Role(
            self,
            "Role",
            role_name=name,
            description="Of the function that connects clusters to CAST AI",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            managed_policies=[policy],
        )

    def _rights(self, role: iam.Role, cluster: str) -> iam.Policy:
        """The role's rights on one cluster."""
        document = agent_role.agent_cluster(self.partition, cluster)
        policy = iam.Policy(
            self,
            f"Rights-{cluster}",
            policy_name=f"cluster-{cluster}",
            document=iam.PolicyDocument.from_json(document),
            roles=[role],
        )
        acknowledge(policy, wildcards(policy, document, _WILDCARDS))
        return policy

    def _outputs(self, cluster: str, agent: CustomResource) -> None:
        part = "".join(each.capitalize() for each in cluster.replace("_", "-").split("-"))
        for name, attribute, description in (
            ("ClusterId", "ClusterId", f"CAST AI's id of cluster {cluster}"),
            ("AgentImage", "Image", f"The agent that runs in cluster {cluster}"),
        ):
            CfnOutput(
                self,
                f"{part}{name}",
                value=agent.get_att_string(attribute),
                description=description,
            )
