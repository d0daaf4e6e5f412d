"""The read-only castai-agent: a custom resource for each cluster applies it."""

from __future__ import annotations

from aws_cdk import CfnOutput, CustomResource, Duration, Environment
from aws_cdk import aws_iam as iam
from constructs import Construct

from lambdas.onboarding.policies import agent_role
from lambdas.onboarding.policies.functions import role_name
from lambdas.onboarding.policies.scope import FunctionScope
from stacks.castai_stack import CastaiStack
from stacks.constructs.custom_resource import (
    CustomResourceFunction,
    RolePolicy,
)
from stacks.constructs.nag import FUNCTION_WILDCARDS, acknowledge, wildcards
from stacks.settings import Settings

RESOURCE_TYPE = "Custom::CastEksAgent"
SERVICE = "castai-agent"

# A removal returns when the namespace is deleted. The agent's pods have 30 s to end; finalizers can
# take longer.
TIMEOUT = Duration.minutes(5)

_WILDCARDS = {
    **FUNCTION_WILDCARDS,
    "Connect": "The role's own policy denies other regions and other principals' access entries",
}


class AgentStack(CastaiStack):
    """Function, its role, provider, a custom resource for each cluster, outputs."""

    PART = "agent"
    DESCRIPTION = "CAST AI on EKS: connects clusters with the read-only castai-agent"

    def __init__(
        self, scope: Construct, settings: Settings, *, env: Environment | None = None
    ) -> None:
        super().__init__(scope, settings, env=env)
        self.settings = settings
        # CDK leaves "Default" out of the logical ids.
        self.agent_function = CustomResourceFunction(
            self,
            "Default",
            settings=settings,
            package="agent",
            name=self.prefix,
            service=SERVICE,
            description="Applies the castai-agent to EKS clusters and removes it",
            role_description="Role of the function that connects clusters to CAST AI",
            role_policies=[self._policy()],
            wildcard_reasons=_WILDCARDS,
            timeout=TIMEOUT,
            waits=settings.agent.ready_within,
        )
        for cluster in settings.agent.agent_clusters:
            self._outputs(cluster, self._agent(cluster))

    @classmethod
    def wanted(cls, settings: Settings) -> bool:
        """Whether there are clusters that get the agent."""
        return bool(settings.agent.agent_clusters)

    def _policy(self) -> RolePolicy:
        """The permissions that are the same for all clusters, and those on the secret.

        It is a managed policy, because each inline policy of the role is for one cluster.
        """
        where = FunctionScope(self.partition, self.account, (self.region,), self.prefix)
        document = agent_role.agent_function(
            where,
            own_role=role_name(self.prefix, self.region),
            api_key_secret=self.settings.castai.api_key_secret,
            api_key_kms_key=self.settings.castai.api_key_kms_key,
            in_vpc=bool(self.settings.functions.subnet_ids),
        )
        description = "Connect EKS clusters to CAST AI: what is the same for all clusters"
        return RolePolicy("Policy", description, document)

    def _agent(self, cluster: str) -> CustomResource:
        castai = self.settings.castai
        agent = self.agent_function.resource(
            self,
            f"Agent-{cluster}",
            resource_type=RESOURCE_TYPE,
            properties={
                "ClusterName": cluster,
                "ApiKeySecret": str(castai.api_key_secret),
                "ApiUrl": castai.api_url,
                **self.settings.agent.properties(),
            },
        )
        # For a cluster that is no longer listed, CloudFormation then removes the agent before these
        # permissions.
        agent.node.add_dependency(self._rights(cluster))
        return agent

    def _rights(self, cluster: str) -> iam.Policy:
        """The role's permissions on one cluster."""
        document = agent_role.agent_cluster(self.partition, cluster)
        policy = iam.Policy(
            self,
            f"Rights-{cluster}",
            policy_name=f"cluster-{cluster}",
            document=iam.PolicyDocument.from_json(document),
            roles=[self.agent_function.role],
        )
        acknowledge(policy, wildcards(policy, document, _WILDCARDS))
        return policy

    def _outputs(self, cluster: str, agent: CustomResource) -> None:
        part = "".join(each.capitalize() for each in cluster.replace("_", "-").split("-"))
        for name, attribute, description in (
            ("ClusterId", "ClusterId", f"CAST AI's id of cluster {cluster}"),
            ("AgentImage", "Image", f"The agent's image in cluster {cluster}"),
        ):
            CfnOutput(
                self,
                f"{part}{name}",
                value=agent.get_att_string(attribute),
                description=description,
            )
        CfnOutput(
            self,
            f"{part}Savings",
            value=f"castai-eks savings {cluster} --region {self.region}",
            description=f"Run it to see what could be saved in cluster {cluster}; it only reads",
        )
