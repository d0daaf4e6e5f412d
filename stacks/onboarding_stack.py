"""The onboarding: CAST AI's identity, policies, node role, access and credentials per cluster."""

from __future__ import annotations

from collections.abc import Iterator

from aws_cdk import CfnOutput, CustomResource, Environment, Stack
from constructs import Construct

from stacks.agent_stack import AgentStack
from stacks.castai_stack import CastaiStack
from stacks.constructs.cluster_onboarding import ClusterOnboarding
from stacks.settings import Settings, shares_policy
from stacks.spot_handler_stack import SpotHandlerStack

Output = tuple[str, str]


class OnboardingStack(CastaiStack):
    """For each cluster a function with its role, a provider, a custom resource and its outputs."""

    PART = "onboarding"
    DESCRIPTION = "CAST AI on EKS: identity, permissions, nodes, cluster access and credentials"

    def __init__(
        self, scope: Construct, settings: Settings, *, env: Environment | None = None
    ) -> None:
        super().__init__(scope, settings, env=env)
        self.settings = settings
        self._after(scope)
        sharing: CustomResource | None = None
        for cluster in settings.onboarding.onboard_clusters:
            properties = settings.onboarding_properties(cluster)
            onboarding = ClusterOnboarding(
                self,
                f"Cluster-{cluster}",
                prefix=self.prefix,
                settings=settings,
                properties={**self._spot_handler(cluster), **properties},
            )
            self._outputs(cluster, properties, onboarding.resource)
            if shares_policy(properties):
                # Two resources that write the policy at the same time overwrite each other.
                if sharing:
                    onboarding.resource.node.add_dependency(sharing)
                sharing = onboarding.resource

    @classmethod
    def wanted(cls, settings: Settings) -> bool:
        """Whether there are clusters to onboard."""
        return bool(settings.onboarding.onboard_clusters)

    def _after(self, scope: Construct) -> None:
        """Deploy after the stacks of the agent and of the spot handler's role, if they exist."""
        for stack in (AgentStack, SpotHandlerStack):
            made = scope.node.try_find_child(f"{self.settings.app.name_prefix}-{stack.PART}")
            if isinstance(made, Stack):
                self.add_stack_dependency(made, reason="the onboarding needs it")

    def _spot_handler(self, cluster: str) -> dict[str, str]:
        if not self.settings.onboarding.onboard_spot_handler:
            return {}
        name = self.settings.spot_handler.spot_role_name
        role = {"SpotHandlerRoleArn": f"arn:{self.partition}:iam::{self.account}:role/{name}"}
        if cluster in self.settings.entry_clusters:
            role["SpotHandlerEntry"] = "false"
        return role

    def _outputs(self, cluster: str, properties: dict[str, str], resource: CustomResource) -> None:
        part = "".join(each.capitalize() for each in cluster.replace("_", "-").split("-"))
        for attribute, description in _described(properties):
            CfnOutput(
                self,
                f"{part}{attribute}",
                value=resource.get_att_string(attribute),
                description=f"{description} {cluster}",
            )


def _described(properties: dict[str, str]) -> Iterator[Output]:
    """The attributes that the resource has with these properties."""
    yield "ClusterId", "CAST AI's id of cluster"
    if properties["Mode"] == "user":
        yield "UserArn", "The IAM user that CAST AI uses for cluster"
        yield "CredentialsSecretArn", "The secret that holds the user's access key for cluster"
    else:
        yield "RoleArn", "The IAM role that CAST AI assumes for cluster"
    yield "PolicyArn", "The managed policy of CAST AI's identity for cluster"
    yield "NodeRoleArn", "The role of the nodes that CAST AI adds to cluster"
    yield "InstanceProfileArn", "The instance profile of the nodes that CAST AI adds to cluster"
    yield "SecurityGroupId", "The security group of the nodes that CAST AI adds to cluster"
    if "ApiKeySecret" not in properties:
        yield "NextStep", "What to do by hand for cluster"
