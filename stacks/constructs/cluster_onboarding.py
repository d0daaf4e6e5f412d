"""One cluster's onboarding: a function that may act on this cluster alone, and its resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from aws_cdk import CfnElement, CustomResource, Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import custom_resources as cr
from constructs import Construct

from lambdas.common.names import OWN_ROLE_VARIABLE
from lambdas.common.own_stack import STACK_ID
from lambdas.onboarding.policies import onboarder
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.policies.scope import Scope
from stacks.constructs.bundling import ROOT
from stacks.constructs.nag import acknowledge, wildcards
from stacks.constructs.python_function import PythonFunction
from stacks.settings import Settings

RESOURCE_TYPE: Final = "Custom::CastEksOnboarding"
SERVICE: Final = "castai-onboarding"
MEMORY_MB: Final = 512

# A run takes a minute or two; the rest is for an IAM, an EKS or a CAST AI that are slow, and for
# taking back what was made. The function ends before the framework, the framework before
# CloudFormation gives up.
TIMEOUT: Final = Duration.minutes(10)
SERVICE_TIMEOUT: Final = Duration.minutes(15)

_WILDCARDS: Final = {
    "ReadNodes": "Describe takes no resource",
    "CreateSecurityGroup": "A new group has no id yet; the tag and the VPC bind the rest",
    "TagSecurityGroup": "Tags on creation only, by the condition",
    "SecurityGroup": "Groups that carry CAST AI's tag of the cluster, by the condition",
    "AccessEntries": "Entries of the named principals; the last part is an id of EKS's",
    "ClusterAdmins": "Entries of the named principals; the last part is an id of EKS's",
    "WriteOwnLog": "The streams of the function's own log group",
    "AttachToVpc": "Lambda checks the role for these on every resource; its code is denied them",
}
_FRAMEWORK = "CDK's Provider framework makes it this way; the function is only CDK's own code"


class ClusterOnboarding(Construct):
    """Role, function, provider and `resource`, the custom resource with its attributes.

    properties: those of `Custom::CastEksOnboarding`. Each cluster has a function of its own, so
    that none can touch another's cluster.
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
        function = self._function(self._role())
        self.resource = CustomResource(
            self,
            "Resource",
            resource_type=RESOURCE_TYPE,
            service_token=self._provider(function).service_token,
            service_timeout=SERVICE_TIMEOUT,
            properties={**properties, "CodeVersion": function.code_version},
        )

    def _function(self, role: iam.Role) -> PythonFunction:
        common = self._settings.functions
        return PythonFunction(
            self,
            "Function",
            package="onboarding",
            requirements=ROOT / "lambdas" / "onboarding" / "requirements.txt",
            name=self._name,
            role=role,
            description=f"Gives CAST AI its access to EKS cluster {self._cluster}, and takes it",
            target=self._settings.target,
            memory_mb=MEMORY_MB,
            timeout=TIMEOUT,
            log_level=common.log_level,
            log_retention_days=common.log_retention_days,
            subnet_ids=common.subnet_ids,
            security_group_ids=common.security_group_ids,
            environment={
                OWN_ROLE_VARIABLE: role.role_arn,
                STACK_ID: Stack.of(self).stack_id,
                "POWERTOOLS_SERVICE_NAME": SERVICE,
                "POWERTOOLS_LOG_LEVEL": str(common.log_level),
            },
        )

    def _role(self) -> iam.Role:
        """What the function does for this cluster, and nothing else."""
        stack = Stack.of(self)
        # A name of its own, so that its policy can name it: it lets itself in and nobody else.
        name = f"{self._name}-{stack.region}"
        return iam.Role(
            self,
            "Role",
            role_name=name,
            description=f"Of the function that onboards EKS cluster {self._cluster}",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            managed_policies=[
                self._policy(part, document) for part, document in self._documents(name).items()
            ],
        )

    def _documents(self, role_name: str) -> dict[str, Document]:
        """By part: CAST AI's identity, the cluster, what runs the function."""
        stack, wish = Stack.of(self), self._properties
        scope = Scope(
            partition=stack.partition,
            region=stack.region,
            account=stack.account,
            cluster=self._cluster,
            # Every id that the cluster may come to have: with a new one, what the former named
            # has to be removed, and its name is narrow without it.
            cluster_id="",
            vpc_id="",
            path=wish.get("Path", "/"),
            spot_role=self._settings.spot_handler.spot_role_name,
        )
        documents = onboarder.onboarding_lambda(
            scope,
            own_role_arn=scope.iam(f"role/{role_name}"),
            function=self._name,
            measured=False,  # the settings were, with names instead of tokens
            **self._settings.function_options(wish),
        )
        return {name.rpartition("-")[2].capitalize(): each for name, each in documents.items()}

    def _policy(self, part: str, document: Document) -> iam.ManagedPolicy:
        policy = iam.ManagedPolicy(
            self,
            f"{part}Policy",
            description=f"Onboarding of EKS cluster {self._cluster}: {part.lower()}",
            document=iam.PolicyDocument.from_json(document),
        )
        acknowledge(policy, wildcards(policy, document, _WILDCARDS))
        return policy

    def _provider(self, function: lambda_.IFunction) -> cr.Provider:
        log_group = logs.LogGroup(
            self,
            "ProviderLog",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.DESTROY,
        )
        provider = cr.Provider(
            self,
            "Provider",
            on_event_handler=function,
            log_group=log_group,
            # Requests carry the ResponseURL, with which anyone may answer CloudFormation.
            framework_lambda_logging_level=lambda_.ApplicationLogLevel.FATAL,
        )
        child = cast("CfnElement", function.node.default_child)
        versions = f"<{Stack.of(self).get_logical_id(child)}.Arn>:*"
        acknowledge(
            provider,
            {
                "IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
                "AWSLambdaBasicExecutionRole]": _FRAMEWORK,
                "L1": _FRAMEWORK,
                f"IAM5[Resource::{versions}]": "All versions of one function",
            },
        )
        return provider
