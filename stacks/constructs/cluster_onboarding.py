"""One cluster's onboarding: a function for this cluster only, and its custom resource."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from aws_cdk import Duration, Stack
from constructs import Construct

from lambdas.onboarding.policies import onboarder
from lambdas.onboarding.policies.functions import role_name
from lambdas.onboarding.policies.scope import Scope
from stacks.constructs.custom_resource import (
    CustomResourceFunction,
    RolePolicy,
)
from stacks.constructs.nag import FUNCTION_WILDCARDS
from stacks.settings import Settings

RESOURCE_TYPE: Final = "Custom::CastEksOnboarding"
SERVICE: Final = "castai-onboarding"

# A run takes one or two minutes. The rest is for slow answers of IAM, EKS and CAST AI, and for the
# rollback.
TIMEOUT: Final = Duration.minutes(10)

_WILDCARDS: Final = {
    **FUNCTION_WILDCARDS,
    "ReadNodes": "Describe takes no resource",
    "CreateSecurityGroup": "A new group has no id yet; tag and VPC limit the other actions",
    "TagSecurityGroup": "Tags on creation only, by the condition",
    "SecurityGroup": "Groups with CAST AI's tag of the cluster, by the condition",
    "AccessEntries": "Entries of the named principals; EKS generates the last part",
    "ClusterAdmins": "Entries of the named principals; EKS generates the last part",
}


class ClusterOnboarding(Construct):
    """Role, function, provider and `resource`, the custom resource with its attributes.

    `properties` are those of `Custom::CastEksOnboarding`. Each cluster has its own function, so
    that no function has permissions for another cluster.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,  # noqa: A002 - CDK's own name for it
        *,
        prefix: str,
        settings: Settings,
        properties: Mapping[str, Any],
    ) -> None:
        super().__init__(scope, id)
        self._settings = settings
        self._properties = properties
        self._cluster: str = properties["ClusterName"]
        self._name = onboarder.function_name(prefix, self._cluster)
        # CDK leaves "Default" out of the logical ids.
        function = CustomResourceFunction(
            self,
            "Default",
            settings=settings,
            package="onboarding",
            name=self._name,
            service=SERVICE,
            description=f"Gives CAST AI access to EKS cluster {self._cluster}, and removes it",
            role_description=f"Role of the function that onboards EKS cluster {self._cluster}",
            role_policies=self._policies(),
            wildcard_reasons=_WILDCARDS,
            timeout=TIMEOUT,
        )
        self.resource = function.resource(
            function, "Resource", resource_type=RESOURCE_TYPE, properties=properties
        )

    def _policies(self) -> Iterator[RolePolicy]:
        """The managed policies of the function's role."""
        stack = Stack.of(self)
        scope = Scope(
            partition=stack.partition,
            region=stack.region,
            account=stack.account,
            cluster=self._cluster,
            # Wildcards for every id that the cluster may get: after a new id the resources with the
            # former one are removed. Their names are narrow enough without the id.
            cluster_id="",
            vpc_id="",
            path=self._properties["Path"],
            spot_role=self._settings.spot_handler.spot_role_name,
        )
        documents = onboarder.onboarding_lambda(
            scope,
            own_role_arn=scope.iam(f"role/{role_name(self._name, stack.region)}"),
            function=self._name,
            measured=False,  # the settings check the size, with names instead of tokens
            **self._settings.function_options(self._properties),
        )
        for name, document in documents.items():
            part = name.rpartition("-")[2]
            description = f"Onboarding of EKS cluster {self._cluster}: {part}"
            yield RolePolicy(f"{part.capitalize()}Policy", description, document)
