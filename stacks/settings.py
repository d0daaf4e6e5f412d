"""Read the CDK context with the prefix `castai:` into types; one error has every fault.

A field is a setting: its name in camelCase is the context key, its type is what is allowed and its
description is the documentation: tools/docs writes docs/settings.md from them.
`castai:agentProperties` and `castai:onboardProperties` hold the properties of a
custom resource that are not settings. Their types and descriptions are in the function's code.

Values are JSON in cdk.json and text in `cdk -c castai:key=value`; both forms are accepted. To add a
stack's settings, add a Group and a field of Settings. Pure: no CDK, no network.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from lambdas.agent import properties as agent
from lambdas.agent.properties import Agent
from lambdas.common import properties
from lambdas.common.castai import DEFAULT_URL, checked_url
from lambdas.common.names import SPOT_HANDLER_GROUP, SPOT_ROLE
from lambdas.common.properties import Fault, default, fields
from lambdas.common.property_types import (
    ClusterName,
    SecretId,
    SecurityGroupId,
    TagKey,
    TagValue,
)
from lambdas.onboarding import properties as onboarding
from lambdas.onboarding.policies import agent_role, onboarder, spot_handler_role
from lambdas.onboarding.policies.document import ROLE_INLINE_LIMIT, DocumentTooLargeError, size
from lambdas.onboarding.policies.scope import FunctionScope, Scope
from lambdas.onboarding.properties import Onboarding
from lambdas.spot_handler import settings as spot
from stacks.constructs.bundling import LAMBDA_PYTHON, Target, lambda_target, local_target

PREFIX = "castai:"

# A stack has at most 200 outputs, and a cluster up to 8.
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
MOST_ONBOARD_CLUSTERS = 25
# Of the 4,096 bytes of a function's environment (Lambda quotas); the other variables have the rest.
CLUSTERS_CHARACTERS = 3_000

# Chosen by measurement: docs/benchmarks.md.
SPOT_MEMORY_MB = 1024

# IAM: a role name has at most 64 characters of this set.
RoleName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_+=,.@-]{1,64}$", title="an IAM role name (up to 64 characters)")
]
# Only AWS can publish events of a source that begins with "aws.", so it cannot start a drill.
DrillSource = Annotated[
    str,
    Meta(pattern=r"^(?!aws\.)[A-Za-z0-9_./-]{1,256}$", title='an event source that is not "aws.…"'),
]
SubnetId = Annotated[str, Meta(pattern=r"^subnet-([0-9a-f]{8}|[0-9a-f]{17})$", title="a subnet id")]
Region = Annotated[str, Meta(pattern=r"^[a-z]{2,}(-[a-z]+)+-\d+$", title="an AWS region")]
TopicArn = Annotated[
    str, Meta(pattern=r"^arn:[a-z-]+:sns:[a-z0-9-]+:\d{12}:.+$", title="the ARN of an SNS topic")
]
Email = Annotated[str, Meta(pattern=r"^[^@\s,]+@[^@\s,]+$", title="an e-mail address")]
Boundary = Annotated[
    str,
    Meta(
        pattern=r"^(arn:[a-z-]+:iam::(\d{12}|aws):policy/.+|[A-Za-z0-9_+=,.@/-]{1,128})$",
        title="the name or ARN of a managed policy",
    ),
]
Prefix = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z][A-Za-z0-9-]{0,31}$",
        title="up to 32 letters, digits and hyphens, a letter first",
    ),
]
AtLeastOne = Annotated[int, Meta(ge=1, title="a whole number from 1")]
KMS_KEY_ARN = r"^arn:[a-z-]+:kms:[a-z0-9-]+:\d{12}:key/.+$"
KmsKeyArn = Annotated[str, Meta(pattern=KMS_KEY_ARN, title="the ARN of a KMS key")]
JsonObject = Annotated[dict[str, Any], Meta(title="a JSON object")]
# CloudWatch Logs allows only these numbers of days.
RetentionDays = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
    3288, 3653,
]  # fmt: skip


class ContextError(ValueError):
    """The context is wrong. The message names every fault and what is allowed."""


Contradiction = tuple[tuple[str, ...], str]
"""Context keys without prefix, and what is wrong with them."""


class Group(Struct, frozen=True, kw_only=True, rename="camel"):
    """Settings that belong together. The class docstring is their heading in docs/settings.md."""

    def contradictions(self) -> Iterator[Contradiction]:
        """Faults of several values together."""
        return iter(())


class AppSettings(Group, frozen=True, kw_only=True):
    """Every stack"""

    name_prefix: Annotated[
        Prefix, Meta(description="First part of the names of stacks, functions, queues and rules.")
    ] = "castai"
    permissions_boundary: Annotated[
        Boundary | None,
        Meta(description="Permissions boundary of every role that the stacks create."),
    ] = None
    tags: Annotated[
        dict[TagKey, TagValue],
        Meta(description="Tags of every resource: JSON, or `team=a,stage=b`."),
    ] = {}
    bundling: Annotated[
        Literal["lambda", "local"],
        Meta(
            description="Target of the functions' zips: AWS Lambda (arm64), or the processor and "
            "Python of this machine, for the sandbox."
        ),
    ] = "lambda"


class FunctionSettings(Group, frozen=True, kw_only=True):
    """Every function"""

    python: Annotated[
        Literal["3.14", "3.13", "3.12", "3.11"],
        Meta(
            description="Python version of the functions. Their zips hold bytecode if this "
            "machine has that version or uv can download it."
        ),
    ] = LAMBDA_PYTHON
    log_level: spot.LogLevelSetting = default(spot.Environment, "log_level")
    log_retention_days: Annotated[
        RetentionDays, Meta(description="Days that a function's log is kept.")
    ] = 30
    subnet_ids: Annotated[
        tuple[SubnetId, ...],
        Meta(
            description="Private subnets of the functions, for clusters whose endpoint is private; "
            "docs/operations.md lists the endpoints that they need. Empty: no VPC."
        ),
    ] = ()
    security_group_ids: Annotated[
        tuple[SecurityGroupId, ...],
        Meta(description="Security groups of the functions in those subnets."),
    ] = ()

    def contradictions(self) -> Iterator[Contradiction]:
        if bool(self.subnet_ids) != bool(self.security_group_ids):
            yield (
                ("subnetIds", "securityGroupIds"),
                "give both for functions in a VPC, or neither",
            )


class SpotHandlerSettings(Group, frozen=True, kw_only=True):
    """Spot handler"""

    clusters: Annotated[
        tuple[ClusterName, ...],
        Meta(
            description="EKS clusters whose nodes are drained. Empty: every cluster of the account "
            "and region that gives the role access."
        ),
    ] = ()
    cluster_access: Annotated[
        bool,
        Meta(
            description="Create an access entry for the role in each listed and each onboarded "
            "cluster. The cluster needs the authentication mode `API` or `API_AND_CONFIG_MAP`; "
            "docs/operations.md says what to set for `CONFIG_MAP`. With false the onboarding gives "
            f"the role access, or you map the role to the group `{SPOT_HANDLER_GROUP}`."
        ),
    ] = True
    mode: spot.ModeSetting = default(spot.Environment, "mode")
    on_deadline: spot.OnDeadlineSetting = default(spot.Environment, "on_deadline")
    concurrency: spot.Concurrency = default(spot.Environment, "concurrency")
    margin_seconds: spot.Margin = default(spot.Environment, "margin")
    spot_role: Annotated[
        Literal["create", "import"],
        Meta(
            description="The role's name is account-wide: create it in one region, import it in "
            "the others. An imported role is not changed."
        ),
    ] = "create"
    spot_role_name: Annotated[RoleName, Meta(description="Name of the function's role.")] = (
        SPOT_ROLE
    )
    spot_role_regions: Annotated[
        tuple[Region, ...],
        Meta(
            description="All regions whose spot handlers share the created role, this one too. "
            "They need the same `castai:namePrefix`. Empty: the stack's own region only."
        ),
    ] = ()
    role_policies: Annotated[
        Literal["managed", "least-privilege"],
        Meta(
            description="`managed`: the three AWS managed policies that CAST AI documents for "
            "this role. `least-privilege`: exactly what the function uses."
        ),
    ] = "managed"
    drill_sources: Annotated[
        tuple[DrillSource, ...],
        Meta(
            description="Event sources of your own. Their events are handled like those of EC2. A "
            "drill needs one, because only AWS can publish as `aws.ec2`."
        ),
    ] = ()
    uncordon_returned: Annotated[
        bool,
        Meta(
            description="Uncordon the node of a spot instance that EC2 stopped or hibernated and "
            "starts again. The function is then called for every instance that starts in the "
            "region."
        ),
    ] = False
    memory_mb: Annotated[
        int,
        Meta(
            ge=128, le=10240, description="Memory of the function in MB. More memory is more CPU."
        ),
    ] = SPOT_MEMORY_MB
    snap_start: Annotated[
        bool,
        Meta(
            description="Start from a snapshot (SnapStart), which shortens cold starts. AWS "
            "charges for it, and some regions do not have it."
        ),
    ] = False
    tracing: Annotated[bool, Meta(description="Trace invocations with X-Ray.")] = False
    reserved_concurrency: Annotated[
        AtLeastOne | None,
        Meta(
            description="Concurrent executions that are reserved for the function. They are also "
            "its limit. A notice is one execution."
        ),
    ] = None
    alarm_topic_arn: Annotated[
        TopicArn | None, Meta(description="SNS topic that gets the alarms.")
    ] = None
    alarm_email: Annotated[
        Email | None, Meta(description="E-mail address that gets the alarms from a new SNS topic.")
    ] = None

    def contradictions(self) -> Iterator[Contradiction]:
        if self.alarm_topic_arn and self.alarm_email:
            yield (
                ("alarmTopicArn", "alarmEmail"),
                "give one of them: the address can subscribe to the topic",
            )
        if self.spot_role == "import" and self.spot_role_regions:
            yield (
                ("spotRole", "spotRoleRegions"),
                "give regions to the stack that creates the role: an imported role is not changed",
            )


class CastaiSettings(Group, frozen=True, kw_only=True):
    """CAST AI's API"""

    api_key_secret: Annotated[
        SecretId | None,
        Meta(
            description="Secrets Manager secret with CAST AI's API key. No setting, template or "
            "log holds the key itself."
        ),
    ] = None
    api_key_kms_key: Annotated[
        KmsKeyArn | None,
        Meta(description="KMS key of that secret, if it is not AWS's own key."),
    ] = None
    api_url: Annotated[
        str,
        Meta(
            description="URL of CAST AI's API. Organizations in Europe have another one.",
            extra={"check": checked_url},
        ),
    ] = DEFAULT_URL


class AgentSettings(Group, frozen=True, kw_only=True):
    """Agent"""

    agent_clusters: Annotated[
        tuple[ClusterName, ...],
        Meta(description="EKS clusters that get the read-only castai-agent. Empty: none."),
    ] = ()
    agent_image: agent.Image = default(Agent, "image")
    agent_registry: agent.Registry = default(Agent, "registry")
    agent_replicas: agent.Replicas = default(Agent, "replicas")
    agent_key_version: agent.KeyVersion = default(Agent, "key_version")
    agent_properties: Annotated[
        JsonObject,
        Meta(
            description="Further properties of `Custom::CastEksAgent`, for all clusters: "
            '`{"HttpsProxy": "http://proxy:3128"}`.'
        ),
    ] = {}

    def properties(self) -> dict[str, Any]:
        """The properties of `Custom::CastEksAgent`, except those of the cluster and the API."""
        own = {
            "Image": self.agent_image,
            "Registry": self.agent_registry,
            "Replicas": self.agent_replicas,
            "KeyVersion": self.agent_key_version,
        }
        return {**_defaults(AGENT_PROPERTIES), **_without_empty(own), **self.agent_properties}

    @property
    def ready_within(self) -> int:
        """Seconds until the agent has to be available."""
        return int(self.agent_properties.get("ReadyWithin", default(Agent, "ready_within")))

    def contradictions(self) -> Iterator[Contradiction]:
        elsewhere = list(_set_elsewhere(self.agent_properties, AGENT_PROPERTIES.elsewhere))
        for fault in elsewhere:
            yield ("agentProperties",), str(fault)
        if not elsewhere:
            given = {"ClusterName": "any", "ApiKeySecret": "any", **self.properties()}
            for fault in agent.faults_of(given):
                key = AGENT_PROPERTIES.elsewhere.get(fault.name)
                yield ((key,), fault.what) if key else (("agentProperties",), str(fault))


class OnboardingSettings(Group, frozen=True, kw_only=True):
    """Onboarding"""

    onboard_clusters: Annotated[
        tuple[ClusterName, ...],
        Meta(description="EKS clusters that CAST AI gets access to. Empty: none."),
    ] = ()
    onboard_mode: onboarding.ModeProperty = default(Onboarding, "mode")
    onboard_permissions: onboarding.PermissionsProperty = default(Onboarding, "permissions")
    onboard_permissions_boundary: onboarding.PolicyArn | None = None
    onboard_rotation_id: onboarding.RotationId = default(Onboarding, "rotation_id")
    onboard_spot_handler: Annotated[
        bool,
        Meta(description="Give this app's spot handler access to the clusters."),
    ] = True
    onboard_properties: Annotated[
        JsonObject,
        Meta(
            description="Further properties of `Custom::CastEksOnboarding`, for all clusters: "
            '`{"Path": "/castai/", "SsmOnNodes": true}`.'
        ),
    ] = {}
    onboard_by_cluster: Annotated[
        dict[ClusterName, JsonObject],
        Meta(
            description="Properties of `Custom::CastEksOnboarding` for single clusters. They "
            "replace those for all clusters: "
            '`{"prod": {"ClusterId": "…", "SecurityGroup": ["sg-…"]}}`.'
        ),
    ] = {}

    def properties(
        self, cluster: str, castai: CastaiSettings, tags: Mapping[str, str]
    ) -> dict[str, Any]:
        """The properties of one cluster's `Custom::CastEksOnboarding`.

        `tags` are those of the app. The tags in the properties are added.
        """
        of_settings = {
            "SchemaVersion": onboarding.SCHEMA_VERSION,
            "ClusterName": cluster,
            "ApiUrl": castai.api_url,
            "ApiKeySecret": castai.api_key_secret,
            "Mode": str(self.onboard_mode),
            "Permissions": str(self.onboard_permissions),
            "PermissionsBoundary": self.onboard_permissions_boundary,
            "RotationId": self.onboard_rotation_id,
        }
        own = self.onboard_by_cluster.get(cluster, {})
        every = [{"Tags": tags}, self.onboard_properties, own]
        all_tags = [each.get("Tags", {}) for each in every]
        # A value of another type stays as it is: the check of the properties names it.
        merged = (
            {"Tags": {key: tag for each in all_tags for key, tag in each.items()}}
            if any(all_tags) and all(isinstance(each, Mapping) for each in all_tags)
            else {}
        )
        return {
            **_defaults(ONBOARD_PROPERTIES),
            **_without_empty(of_settings),
            **self.onboard_properties,
            **own,
            **merged,
        }

    def cluster_access_of(self, cluster: str) -> str:
        """How principals get access to one cluster: `auto`, `access-entries`, …"""
        usual = self.onboard_properties.get("ClusterAccess", default(Onboarding, "cluster_access"))
        return str(self.onboard_by_cluster.get(cluster, {}).get("ClusterAccess", usual))


class PropertiesSetting(NamedTuple):
    """A setting that holds a custom resource's properties as JSON."""

    key: str
    """Its context key, without prefix."""
    prefix: str
    """First part of the context keys that set single properties."""
    resource: str
    struct: type[Struct]
    elsewhere: Mapping[str, str]
    """Properties that are not in the JSON → the context key, without prefix, that sets them."""


AGENT_PROPERTIES = PropertiesSetting(
    key="agentProperties",
    prefix="agent",
    resource="Custom::CastEksAgent",
    struct=Agent,
    elsewhere={
        "ClusterName": "agentClusters",
        "ApiKeySecret": "apiKeySecret",
        "ApiUrl": "apiUrl",
        "Image": "agentImage",
        "Registry": "agentRegistry",
        "Replicas": "agentReplicas",
        "KeyVersion": "agentKeyVersion",
    },
)
ONBOARD_PROPERTIES = PropertiesSetting(
    key="onboardProperties",
    prefix="onboard",
    resource="Custom::CastEksOnboarding",
    struct=Onboarding,
    elsewhere={
        "ClusterName": "onboardClusters",
        "ClusterId": "onboardByCluster",
        "ApiKeySecret": "apiKeySecret",
        "ApiUrl": "apiUrl",
        "Mode": "onboardMode",
        "Permissions": "onboardPermissions",
        "PermissionsBoundary": "onboardPermissionsBoundary",
        "RotationId": "onboardRotationId",
        "SpotHandlerRoleArn": "onboardSpotHandler",
        "SpotHandlerEntry": "onboardSpotHandler",
    },
)
BY_PROPERTIES = (AGENT_PROPERTIES, ONBOARD_PROPERTIES)


class Settings(Struct, frozen=True, kw_only=True):
    """All settings of the app. A key belongs to one group."""

    app: AppSettings = AppSettings()
    functions: FunctionSettings = FunctionSettings()
    spot_handler: SpotHandlerSettings = SpotHandlerSettings()
    castai: CastaiSettings = CastaiSettings()
    agent: AgentSettings = AgentSettings()
    onboarding: OnboardingSettings = OnboardingSettings()

    @classmethod
    def from_context(cls, context: Mapping[str, object]) -> Settings:
        """Read every key of the CDK context that begins with `castai:`.

        Raises ContextError with all faults.
        """
        given = {
            key.removeprefix(PREFIX): value
            for key, value in context.items()
            if key.startswith(PREFIX)
        }
        faults = list(_unknown(given))
        values: dict[str, Any] = {}
        for name, group in groups().items():
            read, wrong = properties.read(group, given, text=True)
            values[name] = group(**read)
            faults += wrong
        settings = cls(**values)
        wrong_keys = {fault.name for fault in faults}
        faults += [
            Fault(f" and {PREFIX}".join(keys), what)
            for keys, what in settings.contradictions()
            if not wrong_keys & set(keys)
        ]
        if faults:
            raise ContextError(_message(faults))
        return settings

    @property
    def target(self) -> Target:
        """The target of the functions' zips."""
        local = self.app.bundling == "local"
        return (local_target if local else lambda_target)(self.functions.python)

    @property
    def entry_clusters(self) -> tuple[str, ...]:
        """Clusters in which the spot handler's stack creates the access entry of its role.

        It creates those of listed and of onboarded clusters. If the lists decided the entry's
        owner, a changed list would create the entry twice, or not until the next deployment. With
        `aws-auth` the onboarding maps the role, because the cluster may have no access entries.
        """
        if not self.spot_handler.cluster_access:
            return ()
        chosen = self.onboarding
        onboarded = {
            cluster: chosen.cluster_access_of(cluster)
            for cluster in chosen.onboard_clusters
            if chosen.onboard_spot_handler
        }
        mine = [each for each, way in onboarded.items() if way in {"auto", "access-entries"}]
        return tuple(
            cluster
            for cluster in dict.fromkeys([*self.spot_handler.clusters, *mine])
            if onboarded.get(cluster) != "aws-auth"
        )

    def contradictions(self) -> Iterator[Contradiction]:
        """Faults of each group, and of two groups together."""
        for name in groups():
            yield from getattr(self, name).contradictions()
        if self.agent.agent_clusters and not self.castai.api_key_secret:
            yield ("agentClusters", "apiKeySecret"), "the agent needs the secret with the API key"
        if self.spot_handler.snap_start and self.functions.python == "3.11":
            yield ("snapStart", "python"), "SnapStart needs Python 3.12 or newer"
        yield from self._onboarding_contradictions()
        yield from self._too_many_clusters()
        yield from self._clusters_of_one_id()

    def _too_many_clusters(self) -> Iterator[Contradiction]:
        agents = self.agent.agent_clusters
        for key, clusters, most in (
            ("agentClusters", agents, agent_role.agent_clusters_that_fit(agents)),
            ("onboardClusters", self.onboarding.onboard_clusters, MOST_ONBOARD_CLUSTERS),
            ("clusters", self.spot_handler.clusters, self._named_clusters_that_fit()),
        ):
            if len(clusters) > most:
                yield (
                    (key,),
                    (
                        f"one stack has room for the first {most} of these {len(clusters)} "
                        "clusters by the limits of CloudFormation, IAM and Lambda: deploy the "
                        f"others under another {PREFIX}namePrefix"
                    ),
                )

    def _named_clusters_that_fit(self) -> int:
        """Count the listed clusters that fit into the function's environment and role."""
        handler = self.spot_handler
        in_environment = _fitting((f",{each}" for each in handler.clusters), CLUSTERS_CHARACTERS)
        if handler.spot_role == "import" or handler.spot_role_regions:
            return in_environment  # no policy here names a cluster
        where = FunctionScope("aws-us-gov", "0" * 12, ("ap-southeast-1",), "f" * 64)
        document = spot_handler_role.spot_handler(
            where,
            failure_queue="q" * 80,
            clusters=("",),  # the ARN of each cluster adds to this one
            least=handler.role_policies == "least-privilege",
            api_key_secret=self.castai.api_key_secret,
            api_key_kms_key=self.castai.api_key_kms_key,
            tracing=handler.tracing,
            in_vpc=bool(self.functions.subnet_ids),
        )
        arns = (f'"{where.arns("eks", f"cluster/{each}")[0]}",' for each in handler.clusters)
        return min(in_environment, _fitting(arns, ROLE_INLINE_LIMIT - size(document)))

    def _clusters_of_one_id(self) -> Iterator[Contradiction]:
        """CloudFormation's ids have letters and digits only, and these ids have no hash."""
        for keys, clusters in (
            (("agentClusters",), self.agent.agent_clusters),
            (("onboardClusters",), self.onboarding.onboard_clusters),
            (("clusters", "onboardClusters"), self.entry_clusters),
        ):
            by_id: dict[str, list[str]] = {}
            for cluster in clusters:
                by_id.setdefault(re.sub("[-_]", "", cluster).lower(), []).append(cluster)
            for same in by_id.values():
                if len(same) > 1:
                    yield (
                        keys,
                        (
                            f"{' and '.join(same)} differ in hyphens, underscores and capitals "
                            "only, which CloudFormation's ids do not have: deploy one of them "
                            f"under another {PREFIX}namePrefix"
                        ),
                    )

    def _onboarding_contradictions(self) -> Iterator[Contradiction]:
        """Faults that the custom resource itself would refuse, found at synth."""
        chosen = self.onboarding
        common = chosen.onboard_properties
        elsewhere = list(_set_elsewhere(common, ONBOARD_PROPERTIES.elsewhere))
        wrong = elsewhere or onboarding.faults_of({"ClusterName": "any", **common}, complete=False)
        for fault in wrong:
            yield ("onboardProperties",), str(fault)
        for cluster in chosen.onboard_by_cluster:
            if cluster not in chosen.onboard_clusters:
                yield ("onboardByCluster",), f"{cluster} is not one of castai:onboardClusters"
        if wrong:
            return  # every cluster would repeat them
        for cluster in chosen.onboard_clusters:
            given = self.onboarding_properties(cluster)
            faults = [str(fault) for fault in onboarding.faults_of(given)] or [
                *_wrong_key(given),
                *self._too_large(cluster, given),
            ]
            for what in faults:
                keys = ("onboardClusters", "onboardProperties", "onboardByCluster")
                yield keys, f"{cluster}: {what}"
            if onboarding.parse(given, tolerant=True).manage_spot_lambda:
                yield from self._spot_lambda_contradictions(cluster)
        yield from self._shared_policy_contradictions()

    def onboarding_properties(self, cluster: str) -> dict[str, Any]:
        """The properties of one cluster's `Custom::CastEksOnboarding`."""
        return self.onboarding.properties(cluster, self.castai, self.app.tags)

    def _too_large(self, cluster: str, properties: Mapping[str, Any]) -> Iterator[str]:
        """Check the size of the policies of the onboarding's function, with the longest names."""
        scope = Scope(
            partition="aws-us-gov",
            region="ap-southeast-1",
            account="0" * 12,
            cluster=cluster,
            cluster_id="",
            vpc_id="",
            path=properties["Path"],
            spot_role=self.spot_handler.spot_role_name,
        )
        try:
            onboarder.onboarding_lambda(
                scope,
                own_role_arn=scope.iam("role/" + "r" * 64),
                function="f" * 64,
                **self.function_options(properties),
            )
        except DocumentTooLargeError as error:
            yield str(error)

    def function_options(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """The settings on which the policies of the onboarding's function depend."""
        return {
            "account_wide": shares_policy(properties),
            "boundary": properties.get("PermissionsBoundary"),
            "api_key_secret": self.castai.api_key_secret,
            "api_key_kms_key": self.castai.api_key_kms_key,
            "credentials_kms_key": properties.get("KmsKey"),
            "in_vpc": bool(self.functions.subnet_ids),
        }

    def _shared_policy_contradictions(self) -> Iterator[Contradiction]:
        """Clusters that share one policy need the same properties for it."""
        clusters = self.onboarding.onboard_clusters
        every = {each: self.onboarding_properties(each) for each in clusters}
        sharing = {each: given for each, given in every.items() if shares_policy(given)}
        first = next(iter(sharing), "")
        for cluster, given in sharing.items():
            for name in ("Permissions", "ManageSpotLambda", "PermissionsBoundary", "Path"):
                if str(given.get(name)).lower() != str(sharing[first].get(name)).lower():
                    yield (
                        ("onboardProperties", "onboardByCluster"),
                        f"{cluster}: give {name} as for {first}: they share one CastEKSPolicy",
                    )

    def _spot_lambda_contradictions(self, cluster: str) -> Iterator[Contradiction]:
        """Names of resources of this app that CAST AI could change with ManageSpotLambda."""
        if fault := onboarding.fault_of_spot_role(self.spot_handler.spot_role_name):
            yield ("spotRoleName", "onboardProperties"), f"{cluster}: {fault}"
        if self.app.name_prefix.startswith("cast-"):
            yield (
                ("namePrefix", "onboardProperties"),
                f"{cluster}: choose another prefix: CAST AI may change every rule named cast-*",
            )


def shares_policy(properties: Mapping[str, Any]) -> bool:
    """Whether an onboarding uses the one CastEKSPolicy of the account."""
    return onboarding.parse(properties, tolerant=True).account_wide_policy


def _fitting(texts: Iterable[str], characters: int) -> int:
    """Count the texts, from the first on, that have no more characters together."""
    return sum(used <= characters for used in accumulate(map(len, texts)))


T = TypeVar("T")


def groups() -> dict[str, type[Group]]:
    """The groups by their field in Settings, in the order of the documentation."""
    return {field.name: field.type for field in fields(Settings)}


def _without_empty(values: Mapping[str, T]) -> dict[str, T]:
    """Remove empty values: they are the defaults of text, lists and maps."""
    return {name: value for name, value in values.items() if value not in (None, "", (), [], {})}


def _defaults(setting: PropertiesSetting) -> dict[str, Any]:
    """The defaults of the properties in the JSON, so that the template shows what is deployed."""
    return _without_empty(
        {
            field.encode_name: msgspec.to_builtins(default(setting.struct, field.name))
            for field in fields(setting.struct)
            if field.encode_name not in setting.elsewhere
        }
    )


def _set_elsewhere(given: Collection[str], elsewhere: Mapping[str, str]) -> Iterator[Fault]:
    """Properties in a JSON setting that have a setting of their own."""
    for name in given:
        if name in elsewhere:
            yield Fault(name, f"set {PREFIX}{elsewhere[name]} instead")


def _wrong_key(given: Mapping[str, Any]) -> Iterator[str]:
    """Only a key's ARN: the function's policy names the key, and a policy takes no alias."""
    key = given.get("KmsKey")
    if key and not re.fullmatch(KMS_KEY_ARN, str(key)):
        yield "KmsKey: give the ARN of a KMS key: the function's policy names it"


def _unknown(given: Mapping[str, object]) -> Iterator[Fault]:
    known = [name for group in groups().values() for name in properties.names(group)]
    for fault in properties.unknown(known, given, noun="setting", prefix=PREFIX):
        yield Fault(fault.name, _now(fault.name) or fault.what)


def _now(key: str) -> str:
    """The present name of a former setting; empty if there is none."""
    for each in BY_PROPERTIES:
        name = key.removeprefix(each.prefix)
        if name != key and name in properties.names(each.struct):
            now = each.elsewhere.get(name)
            return f"is now {PREFIX}{now}" if now else f"is now {name} in {PREFIX}{each.key}"
    return ""


def _message(faults: list[Fault]) -> str:
    return "\n".join(
        [
            "Correct these settings (context in cdk.json, or cdk -c key=value):",
            *(f"  {PREFIX}{fault}" for fault in faults),
            "All settings: docs/settings.md",
        ]
    )
