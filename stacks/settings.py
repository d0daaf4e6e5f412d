"""CDK context with the prefix `castai:` → typed settings, or one error that names every fault.

A field is a setting: its name in camelCase is the context key, its type is what is allowed and its
description is the documentation. `python3 -m stacks.settings` prints the table for the README.

Values come as JSON from cdk.json and as text from `cdk -c castai:key=value`; both forms are taken.
Another stack's settings are another Group and a field of Settings. Pure: no CDK, no network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, inspect

from lambdas.agent import properties as agent_properties
from lambdas.agent.properties import (
    AGENT_IMAGE,
    AUTOSCALER_IMAGE,
    LONGEST_READY_WITHIN,
    READY_WITHIN,
)
from lambdas.common.castai import DEFAULT_URL, checked_url
from lambdas.common.errors import CastaiError
from lambdas.common.names import CLUSTER_NAME_PATTERN, SPOT_HANDLER_GROUP, SPOT_ROLE
from lambdas.onboarding import properties as onboarding_properties
from lambdas.onboarding.policies import agent_role, onboarder
from lambdas.onboarding.policies.document import DocumentTooLargeError
from lambdas.onboarding.policies.scope import Scope
from stacks.constructs.bundling import LAMBDA_PYTHON, Target, lambda_target, local_target

PREFIX = "castai:"

# A stack has at most 200 outputs, and a cluster up to 8.
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
MOST_ONBOARD_CLUSTERS = 25

# Chosen by measurement: docs/benchmarks.md.
SPOT_MEMORY_MB = 1024

# IAM: a role name has at most 64 characters of this set.
RoleName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_+=,.@-]{1,64}$", title="an IAM role name (up to 64 characters)")
]
ClusterName = Annotated[str, Meta(pattern=CLUSTER_NAME_PATTERN, title="an EKS cluster name")]
# A source that begins with "aws." cannot be published by anyone but AWS: it would be no drill.
DrillSource = Annotated[
    str,
    Meta(pattern=r"^(?!aws\.)[A-Za-z0-9_./-]{1,256}$", title='an event source that is not "aws.…"'),
]
SubnetId = Annotated[str, Meta(pattern=r"^subnet-([0-9a-f]{8}|[0-9a-f]{17})$", title="a subnet id")]
SecurityGroupId = Annotated[
    str, Meta(pattern=r"^sg-([0-9a-f]{8}|[0-9a-f]{17})$", title="a security group id")
]
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
# https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html
TagKey = Annotated[
    str,
    Meta(pattern=r"^(?!aws:)[\w\s.:/=+@-]{1,128}$", title="a tag key"),
]
TagValue = Annotated[str, Meta(pattern=r"^[\w\s.:/=+@-]{0,256}$", title="a tag value")]
AtLeastOne = Annotated[int, Meta(ge=1, title="a whole number from 1")]
SecretId = Annotated[
    str,
    Meta(
        pattern=r"^(arn:[a-z-]+:secretsmanager:[a-z0-9-]+:\d{12}:secret:.+|[\w/+=.@-]{1,512})$",
        title="the name or ARN of a Secrets Manager secret",
    ),
]
KmsKeyArn = Annotated[
    str,
    Meta(pattern=r"^arn:[a-z-]+:kms:[a-z0-9-]+:\d{12}:key/.+$", title="the ARN of a KMS key"),
]
PolicyArn = Annotated[
    str,
    Meta(pattern=r"^arn:[a-z-]+:iam::(\d{12}|aws):policy/.+$", title="the ARN of a managed policy"),
]
# CloudWatch Logs takes these numbers of days and no others.
RetentionDays = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
    3288, 3653,
]  # fmt: skip


class SettingsError(ValueError):
    """The context is wrong. The message names every fault, what is allowed and where to look."""


class Group(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Settings that belong together: a heading in the documentation, an argument of a stack."""

    def contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Pairs of (context keys without prefix, what is wrong) that no single value shows."""
        return iter(())


class AppSettings(Group, frozen=True, kw_only=True):
    """Every stack"""

    name_prefix: Annotated[
        Prefix, Meta(description="First part of the names of stacks, functions, queues and rules.")
    ] = "castai"
    permissions_boundary: Annotated[
        Boundary | None,
        Meta(description="Managed policy that bounds every role the stacks create."),
    ] = None
    tags: Annotated[
        dict[TagKey, TagValue],
        Meta(description="Tags of everything that is created: JSON, or `team=a,stage=b`."),
    ] = {}
    bundling: Annotated[
        Literal["lambda", "local"],
        Meta(
            description="What the functions' zips are built for: AWS Lambda (arm64), or this "
            "machine's own processor and Python, for the sandbox."
        ),
    ] = "lambda"


class FunctionSettings(Group, frozen=True, kw_only=True):
    """Every function"""

    python: Annotated[
        Literal["3.14", "3.13", "3.12", "3.11"],
        Meta(
            description="Python of the functions' runtime. The zips hold its bytecode where this "
            "machine has that Python, or uv can fetch it."
        ),
    ] = LAMBDA_PYTHON
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        Meta(description="Least severity that a function logs; libraries log warnings and errors."),
    ] = "INFO"
    log_retention_days: Annotated[
        RetentionDays, Meta(description="Days that a function's log is kept.")
    ] = 30
    subnet_ids: Annotated[
        tuple[SubnetId, ...],
        Meta(
            description="Private subnets of the functions, for clusters whose endpoint is private; "
            "docs/operations.md lists what they have to reach. Empty: no VPC."
        ),
    ] = ()
    security_group_ids: Annotated[
        tuple[SecurityGroupId, ...],
        Meta(description="Security groups of the functions in those subnets."),
    ] = ()

    def contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if bool(self.subnet_ids) != bool(self.security_group_ids):
            yield (
                ("subnetIds", "securityGroupIds"),
                "a function in a VPC needs both, one outside neither",
            )


class SpotHandlerSettings(Group, frozen=True, kw_only=True):
    """Spot handler"""

    clusters: Annotated[
        tuple[ClusterName, ...],
        Meta(
            description="EKS clusters whose nodes are drained. Empty: every cluster of the account "
            "and region that lets the role in."
        ),
    ] = ()
    cluster_access: Annotated[
        bool,
        Meta(
            description="Create an access entry for the role in each listed and each onboarded "
            "cluster. Needs the cluster's authentication mode `API` or `API_AND_CONFIG_MAP`. "
            "For a cluster with `CONFIG_MAP` alone set `castai:onboardByCluster` to "
            '`{"old": {"ClusterAccess": "aws-auth"}}` where it is onboarded, else this to false '
            "for all clusters. With false the onboarding lets the role in, or you map it to the "
            f"group `{SPOT_HANDLER_GROUP}`."
        ),
    ] = True
    mode: Annotated[
        Literal["drain", "cordon", "dry-run"],
        Meta(description="How far to go: drain, cordon only, or plan and write nothing."),
    ] = "drain"
    on_deadline: Annotated[
        Literal["force", "leave"],
        Meta(
            description="A pod that a PodDisruptionBudget still blocks when its grace would no "
            "longer fit: delete it past the budget, or leave and report it."
        ),
    ] = "force"
    concurrency: Annotated[
        int, Meta(ge=1, le=500, description="Evictions in flight at a time, per node.")
    ] = 50
    margin_seconds: Annotated[
        float, Meta(ge=0, le=60, description="Seconds kept free before the instance goes.")
    ] = 5.0
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
            description="Regions whose spot handlers share the created role, this one included; "
            "they have the same `castai:namePrefix`. Empty: the stack's own region only."
        ),
    ] = ()
    role_policies: Annotated[
        Literal["managed", "least-privilege"],
        Meta(
            description="The three AWS managed policies CAST AI documents for this role, or "
            "exactly what the function uses."
        ),
    ] = "managed"
    drill_sources: Annotated[
        tuple[DrillSource, ...],
        Meta(
            description="Event sources of your own whose events are handled like those of AWS: "
            "nobody may publish as `aws.ec2`, so a drill needs one."
        ),
    ] = ()
    uncordon_returned: Annotated[
        bool,
        Meta(
            description="Take the marks off the node of a spot instance that EC2 stopped or "
            "hibernated and starts again. The function is then called for every instance that "
            "starts in the region."
        ),
    ] = False
    memory_mb: Annotated[
        int, Meta(ge=128, le=10240, description="Memory of the function, in MB; CPU follows it.")
    ] = SPOT_MEMORY_MB
    snap_start: Annotated[
        bool,
        Meta(
            description="Start from a snapshot (SnapStart): shorter cold starts. It has a price, "
            "and some regions lack it."
        ),
    ] = False
    tracing: Annotated[bool, Meta(description="Trace invocations with X-Ray.")] = False
    reserved_concurrency: Annotated[
        AtLeastOne | None,
        Meta(
            description="Executions kept for, and at most given to, the function. A notice is one."
        ),
    ] = None
    alarm_topic_arn: Annotated[
        TopicArn | None, Meta(description="SNS topic that is told of alarms.")
    ] = None
    alarm_email: Annotated[
        Email | None, Meta(description="Or: an address; a topic is created for it.")
    ] = None

    def contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if self.alarm_topic_arn and self.alarm_email:
            yield ("alarmTopicArn", "alarmEmail"), "give one: the topic may have the subscription"
        if self.spot_role == "import" and self.spot_role_regions:
            yield (
                ("spotRole", "spotRoleRegions"),
                "regions belong to the stack that creates the role, not to one that imports it",
            )


class CastaiSettings(Group, frozen=True, kw_only=True):
    """CAST AI's API"""

    api_key_secret: Annotated[
        SecretId | None,
        Meta(
            description="Secrets Manager secret that holds CAST AI's API key. The key itself is in "
            "no setting, template or log."
        ),
    ] = None
    api_key_kms_key: Annotated[
        KmsKeyArn | None,
        Meta(description="The KMS key of that secret, unless it is AWS's own."),
    ] = None
    api_url: Annotated[
        str, Meta(description="CAST AI's API; organizations in Europe have another one.")
    ] = DEFAULT_URL

    def contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        try:
            checked_url(self.api_url)
        except CastaiError as error:
            yield ("apiUrl",), str(error)


class AgentSettings(Group, frozen=True, kw_only=True):
    """Agent"""

    agent_clusters: Annotated[
        tuple[ClusterName, ...],
        Meta(description="EKS clusters that get the read-only castai-agent. Empty: none."),
    ] = ()
    agent_image: Annotated[
        str, Meta(description="The agent's image, with a fixed tag or digest.")
    ] = AGENT_IMAGE
    agent_autoscaler_image: Annotated[
        str, Meta(description="Image of the cluster-proportional vertical autoscaler beside it.")
    ] = AUTOSCALER_IMAGE
    agent_registry: Annotated[
        str,
        Meta(description="Private registry, `host/path`, that takes the place of the images' own."),
    ] = ""
    agent_image_pull_secrets: Annotated[
        tuple[str, ...],
        Meta(description="Secrets of the namespace `castai-agent` that the registry asks for."),
    ] = ()
    agent_replicas: Annotated[
        int, Meta(ge=1, le=3, description="Agents; from two on one leads, and a budget keeps one.")
    ] = 1
    agent_autoscaler: Annotated[
        bool, Meta(description="Size the agent's memory by the number of nodes.")
    ] = True
    agent_requests: Annotated[
        dict[str, str], Meta(description="The agent's resource requests.")
    ] = msgspec.field(default_factory=lambda: {"cpu": "100m"})
    agent_limits: Annotated[dict[str, str], Meta(description="The agent's resource limits.")] = (
        msgspec.field(default_factory=lambda: {"cpu": "1000m"})
    )
    agent_node_selector: Annotated[
        dict[str, str], Meta(description="Labels of the nodes that the agent may run on.")
    ] = {}
    agent_tolerations: Annotated[
        tuple[dict[str, Any], ...],
        Meta(description="Taints that the agent tolerates, as in a pod: JSON."),
    ] = ()
    agent_http_proxy: Annotated[str, Meta(description="Proxy for the agent's http requests.")] = ""
    agent_https_proxy: Annotated[str, Meta(description="Proxy for the agent's https requests.")] = (
        ""
    )
    agent_no_proxy: Annotated[
        str, Meta(description="What the agent reaches without the proxy, besides the cluster.")
    ] = ""
    agent_ca_certificates: Annotated[
        str,
        Meta(description="PEM certificates that the agent trusts besides the system's."),
    ] = ""
    agent_key_version: Annotated[
        str,
        Meta(description="Any text; change it when the API key in the secret has changed."),
    ] = ""
    agent_ready_within: Annotated[
        int,
        Meta(
            ge=60,
            le=LONGEST_READY_WITHIN,
            description="Seconds until the agent has to run and be seen by CAST AI.",
        ),
    ] = READY_WITHIN

    def properties(self) -> dict[str, Any]:
        """The properties of `Custom::CastEksAgent`, those of the cluster and the API apart."""
        values = msgspec.json.decode(msgspec.json.encode(self))  # CDK takes lists, no tuples
        return {
            name.removeprefix("agent"): value
            for name, value in values.items()
            if name != "agentClusters" and value not in ("", [], {})
        }

    def contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        wish = {"ClusterName": "any", "ApiKeySecret": "any", **self.properties()}
        for name, what in agent_properties.faults_of(wish):
            yield (f"agent{name}",), what


class OnboardingSettings(Group, frozen=True, kw_only=True):
    """Onboarding"""

    onboard_clusters: Annotated[
        tuple[ClusterName, ...],
        Meta(description="EKS clusters that CAST AI gets access to. Empty: none."),
    ] = ()
    onboard_mode: Annotated[
        Literal["user", "cross-account-role"],
        Meta(description="What CAST AI acts as: an IAM user, or a role that it assumes."),
    ] = "user"
    onboard_permissions: Annotated[
        Literal["full", "standard", "strict"],
        Meta(
            description="How much CAST AI may do: all that its product names, what it asks for "
            "today, or that bound to the cluster's own tags."
        ),
    ] = "full"
    onboard_manage_spot_lambda: Annotated[
        bool,
        Meta(
            description="Let CAST AI manage a spot function of its own, under a role of its own: "
            "only for an old CAST AI setup, because this app deploys the function."
        ),
    ] = False
    onboard_account_wide_policy: Annotated[
        bool,
        Meta(description="Use the one `CastEKSPolicy` of the account, not one for each cluster."),
    ] = False
    onboard_permissions_boundary: Annotated[
        PolicyArn | None,
        Meta(description="Boundary of the user and roles made for CAST AI, and of those it makes."),
    ] = None
    onboard_path: Annotated[str, Meta(description="IAM path of what is made for CAST AI.")] = "/"
    onboard_ssm_on_nodes: Annotated[
        bool, Meta(description="Let Session Manager reach the nodes that CAST AI adds.")
    ] = False
    onboard_ebs_csi_on_nodes: Annotated[
        bool, Meta(description="Let the EBS CSI driver use the node role.")
    ] = False
    onboard_cluster_access: Annotated[
        Literal["auto", "access-entries", "aws-auth", "none"],
        Meta(
            description="How nodes and user become known to the cluster; `auto`: by access entries "
            "where it has them, else by `aws-auth`. The synth cannot see which a cluster has, and "
            "`castai:clusterAccess` makes an entry for the spot handler with `auto`: for a cluster "
            "with the authentication mode `CONFIG_MAP` set `aws-auth`."
        ),
    ] = "auto"
    onboard_spot_handler: Annotated[
        bool,
        Meta(description="Give the spot handler of this app its access to the clusters."),
    ] = True
    onboard_kms_key: Annotated[
        KmsKeyArn | None,
        Meta(description="KMS key of the secret with the user's access key, unless AWS's own."),
    ] = None
    onboard_rotation_id: Annotated[
        str, Meta(description="Any text; change it to replace the user's access key.")
    ] = ""
    onboard_require_agent: Annotated[
        bool, Meta(description="Refuse a cluster whose castai-agent does not run.")
    ] = True
    onboard_adopt: Annotated[
        bool, Meta(description="Take over what CAST AI's script, or another tool, has made.")
    ] = False
    onboard_detach_foreign_policies: Annotated[
        bool,
        Meta(description="On removal, detach also policies that others attached to our roles."),
    ] = False
    onboard_retain_on_delete: Annotated[
        bool, Meta(description="Leave everything in place when the stack is destroyed.")
    ] = False
    onboard_by_cluster: Annotated[
        dict[ClusterName, dict[str, Any]],
        Meta(
            description="Properties of `Custom::CastEksOnboarding` for single clusters, JSON: "
            '`{"prod": {"ClusterId": "…", "SecurityGroup": ["sg-…"], "PrincipalArn": "…"}}`.'
        ),
    ] = {}

    def properties(
        self, cluster: str, castai: CastaiSettings, tags: Mapping[str, str]
    ) -> dict[str, Any]:
        """The properties of one cluster's `Custom::CastEksOnboarding`.

        tags: those of the app; the cluster's own come on top.
        """
        values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        apart = {"onboardClusters", "onboardByCluster", "onboardSpotHandler"}
        common = {
            name.removeprefix("onboard"): value
            for name, value in values.items()
            if name not in apart and value not in (None, "")
        }
        api = {"ApiUrl": castai.api_url, "ApiKeySecret": castai.api_key_secret}
        own = self.onboard_by_cluster.get(cluster, {})
        own_tags = own.get("Tags", {})
        if isinstance(own_tags, Mapping) and (tags or own_tags):
            own = {**own, "Tags": {**tags, **own_tags}}
        return {
            "SchemaVersion": onboarding_properties.SCHEMA_VERSION,
            "ClusterName": cluster,
            **{name: value for name, value in api.items() if value},
            **common,
            **own,
        }

    def cluster_access_of(self, cluster: str) -> str:
        """How principals become known to one cluster: `auto`, `access-entries`, …"""
        own = self.onboard_by_cluster.get(cluster, {})
        return str(own.get("ClusterAccess", self.onboard_cluster_access))


class Settings(msgspec.Struct, frozen=True, kw_only=True):
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

        Raises SettingsError with all faults.
        """
        given = {
            key.removeprefix(PREFIX): value
            for key, value in context.items()
            if key.startswith(PREFIX)
        }
        faults = _unknown(given)
        values: dict[str, Any] = {
            name: _read(group, given, faults) for name, group in groups().items()
        }
        settings = cls(**values)
        faults += [
            (" and ".join(PREFIX + key for key in keys), what)
            for keys, what in settings.contradictions()
            if not {PREFIX + key for key in keys} & {key for key, _ in faults}
        ]
        if faults:
            raise SettingsError(_message(faults))
        return settings

    @property
    def target(self) -> Target:
        """What the functions' zips are built for."""
        local = self.app.bundling == "local"
        return (local_target if local else lambda_target)(self.functions.python)

    @property
    def entry_clusters(self) -> tuple[str, ...]:
        """Clusters whose access entry for the spot handler's role its own stack makes.

        The listed and the onboarded ones alike: an entry that changed its owner with a list would
        be made twice, or be missed until the next deployment. Where the onboarding goes by
        `aws-auth`, it maps the role there: the cluster may have no access entries.
        """
        if not self.spot_handler.cluster_access:
            return ()
        wish = self.onboarding
        onboarded = {
            cluster: wish.cluster_access_of(cluster)
            for cluster in wish.onboard_clusters
            if wish.onboard_spot_handler
        }
        mine = [each for each, way in onboarded.items() if way in {"auto", "access-entries"}]
        return tuple(
            cluster
            for cluster in dict.fromkeys([*self.spot_handler.clusters, *mine])
            if onboarded.get(cluster) != "aws-auth"
        )

    def contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Those of each group, and those that only two groups together show."""
        for name in groups():
            yield from getattr(self, name).contradictions()
        if self.agent.agent_clusters and not self.castai.api_key_secret:
            yield ("agentClusters", "apiKeySecret"), "the agent needs the secret with the API key"
        if self.spot_handler.snap_start and self.functions.python == "3.11":
            yield ("snapStart", "python"), "SnapStart needs Python 3.12 or newer"
        yield from self._onboarding_contradictions()
        yield from self._too_many_clusters()
        yield from self._clusters_of_one_id()

    def _too_many_clusters(self) -> Iterator[tuple[tuple[str, ...], str]]:
        agents = self.agent.agent_clusters
        for key, clusters, most in (
            ("agentClusters", agents, agent_role.agent_clusters_that_fit(agents)),
            ("onboardClusters", self.onboarding.onboard_clusters, MOST_ONBOARD_CLUSTERS),
        ):
            if len(clusters) > most:
                yield (
                    (key,),
                    (
                        f"one stack has room for the first {most} of these {len(clusters)} "
                        "clusters by CloudFormation's and IAM's limits: deploy the others under "
                        f"another {PREFIX}namePrefix"
                    ),
                )

    def _clusters_of_one_id(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """CloudFormation's ids have letters and digits only, and no hash here: they must stay."""
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

    def _onboarding_contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """What the custom resource itself would refuse, said at synth."""
        wish = self.onboarding
        for cluster in wish.onboard_by_cluster:
            if cluster not in wish.onboard_clusters:
                yield ("onboardByCluster",), f"{cluster} is not one of castai:onboardClusters"
        for cluster in wish.onboard_clusters:
            properties = self.onboarding_properties(cluster)
            faults = onboarding_properties.faults_of(properties)
            for fault in faults or self._too_large(cluster, properties):
                yield ("onboardClusters", "onboardByCluster"), f"{cluster}: {fault}"
            if properties["ManageSpotLambda"] in (True, "true"):
                yield from self._spot_lambda_contradictions(cluster)

        yield from self._shared_policy_contradictions()

    def onboarding_properties(self, cluster: str) -> dict[str, Any]:
        """The properties of one cluster's `Custom::CastEksOnboarding`."""
        return self.onboarding.properties(cluster, self.castai, self.app.tags)

    def _too_large(self, cluster: str, properties: Mapping[str, Any]) -> Iterator[str]:
        """Whether the policies of the onboarding's function fit, with the longest names."""
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
        """What the policies of the onboarding's function depend on, the scope apart."""
        return {
            "account_wide": shares_policy(properties),
            "boundary": properties.get("PermissionsBoundary"),
            "api_key_secret": self.castai.api_key_secret,
            "api_key_kms_key": self.castai.api_key_kms_key,
            "credentials_kms_key": properties.get("KmsKey"),
            "in_vpc": bool(self.functions.subnet_ids),
        }

    def _shared_policy_contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Clusters that share one policy ask for the same one."""
        wish = self.onboarding
        every = {each: self.onboarding_properties(each) for each in wish.onboard_clusters}
        sharing = {each: given for each, given in every.items() if shares_policy(given)}
        first = next(iter(sharing), "")
        for cluster, given in sharing.items():
            for name in ("Permissions", "ManageSpotLambda", "PermissionsBoundary", "Path"):
                if str(given.get(name)).lower() != str(sharing[first].get(name)).lower():
                    yield (
                        ("onboardAccountWidePolicy", "onboardByCluster"),
                        f"{cluster}: give {name} as for {first}: they share one CastEKSPolicy",
                    )

    def _spot_lambda_contradictions(self, cluster: str) -> Iterator[tuple[tuple[str, ...], str]]:
        """What of ours CAST AI could change, where it manages a spot function of its own."""
        if fault := onboarding_properties.fault_of_spot_role(self.spot_handler.spot_role_name):
            yield ("spotRoleName", "onboardManageSpotLambda"), f"{cluster}: {fault}"
        if self.app.name_prefix.startswith("cast-"):
            yield (
                ("namePrefix", "onboardManageSpotLambda"),
                f"{cluster}: choose another prefix: CAST AI may change every rule named cast-*",
            )


def shares_policy(properties: Mapping[str, Any]) -> bool:
    """Whether an onboarding uses the one CastEKSPolicy of the account."""
    return properties.get("AccountWidePolicy") in (True, "true")


Fault = tuple[str, str]  # the key or keys, what is wrong with them
G = TypeVar("G", bound=Group)
T = TypeVar("T")


def groups() -> dict[str, type[Group]]:
    """The groups by their field in Settings, in the order of the documentation."""
    return {field.name: field.type for field in msgspec.structs.fields(Settings)}


def _read(group: type[G], given: Mapping[str, object], faults: list[Fault]) -> G:
    """A group from the values given; a faulty value keeps its default and adds a fault."""
    values: dict[str, object] = {}
    for field in msgspec.structs.fields(group):
        if field.encode_name not in given:
            continue
        raw = given[field.encode_name]
        kind = _bare(inspect.type_info(field.type))
        try:
            values[field.name] = _once(
                msgspec.convert(_untext(raw, kind), field.type, strict=False)
            )
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            faults.append((PREFIX + field.encode_name, _explain(raw, kind, str(error))))
    return group(**values)


def _once(value: T) -> T:
    """The value itself, unless it is a list with an entry twice."""
    if isinstance(value, tuple):
        twice = next((item for n, item in enumerate(value) if item in value[:n]), None)
        if twice is not None:
            raise msgspec.ValidationError(f"has {twice!r} twice")
    return value


def _untext(raw: object, kind: inspect.Type) -> object:
    """Text from the command line as the JSON value that it stands for; anything else as it is,
    but a version that JSON took for a number.
    """
    if isinstance(raw, float) and isinstance(kind, inspect.LiteralType):
        return str(raw)
    if not isinstance(raw, str):
        return raw
    text = raw.strip()
    match kind:
        case inspect.UnionType() if not text:
            return None
        case inspect.VarTupleType() | inspect.DictType() | inspect.StructType() if text[:1] in (
            "[", "{",
        ):  # fmt: skip
            return msgspec.json.decode(text)
        case inspect.VarTupleType():
            return [item.strip() for item in text.split(",") if item.strip()]
        case inspect.DictType():
            pairs = (item.partition("=") for item in text.split(",") if item.strip())
            return {key.strip(): value.strip() for key, _, value in pairs}
        case _:
            return text


def _bare(kind: inspect.Type) -> inspect.Type:
    """A type without its description."""
    if isinstance(kind, inspect.Metadata) and "title" not in (kind.extra_json_schema or {}):
        return _bare(kind.type)
    return kind


def _allowed(kind: inspect.Type) -> str:
    """What may be given, in words."""
    match kind:
        case inspect.Metadata(extra_json_schema={"title": str(title)}):
            words = title
        case inspect.Metadata(type=inner):
            words = _allowed(inner)
        case inspect.LiteralType(values=values):
            words = ", ".join(str(value) for value in values)
        case inspect.BoolType():
            words = "true, false"
        case inspect.IntType(ge=low, le=high) | inspect.FloatType(ge=low, le=high):
            number = "whole number" if isinstance(kind, inspect.IntType) else "number"
            words = f"a {number} from {low} to {high}"
        case inspect.VarTupleType(item_type=item):
            words = f"a list; each entry {_allowed(item)}"
        case inspect.DictType(key_type=key, value_type=value):
            words = f"{_allowed(key)} with {_allowed(value)}, any number"
        case inspect.UnionType(types=types):
            words = _allowed(next(t for t in types if not isinstance(t, inspect.NoneType)))
        case inspect.StructType(fields=fields):
            words = "an object of " + ", ".join(field.encode_name for field in fields)
        case _:
            words = "text"
    return words


def _explain(raw: object, kind: inspect.Type, error: str) -> str:
    if error.startswith("has "):
        return f"{raw!r} {error}"
    # Inside a list or an object msgspec says where and what; a pattern is said in words already.
    what, at, where = error.rpartition(" - ")
    inside = f" ({where if 'regex' in what else error})" if at else ""
    choices = kind.values if isinstance(kind, inspect.LiteralType) else ()
    known = [choice for choice in choices if isinstance(choice, str)]
    return f"{raw!r}{inside}: expected {_allowed(kind)}{_did_you_mean(str(raw), known)}"


def _unknown(given: Mapping[str, object]) -> list[Fault]:
    known = [f.encode_name for g in groups().values() for f in msgspec.structs.fields(g)]
    return [
        (PREFIX + key, f"no such setting{_did_you_mean(key, known, PREFIX)}")
        for key in given
        if key not in known
    ]


def _did_you_mean(word: str, known: list[str], prefix: str = "") -> str:
    lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lower, n=1)
    return f"; did you mean {prefix}{lower[close[0]]}?" if close else ""


def _message(faults: list[Fault]) -> str:
    return "\n".join(
        [
            "Correct these settings (context in cdk.json, or cdk -c key=value):",
            *(f"  {key}: {what}" for key, what in faults),
            "All settings: python3 -m stacks.settings",
        ]
    )


def table() -> str:
    """All settings as Markdown: a heading and a table for each group."""
    lines: list[str] = []
    for group in groups().values():
        lines += [f"### {group.__doc__}", "", "| context key | default | allowed | what it does |"]
        lines += ["|---|---|---|---|"]
        lines += [_row(field) for field in msgspec.structs.fields(group)]
        lines += [""]
    return "\n".join(lines)


def _row(field: msgspec.structs.FieldInfo) -> str:
    info = inspect.type_info(field.type)
    schema: dict[str, Any] = getattr(info, "extra_json_schema", None) or {}
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    shown = "none" if default is None else f"`{msgspec.json.encode(default).decode()}`"
    return (
        f"| `{PREFIX}{field.encode_name}` | {shown} | {_allowed(_bare(info))} "
        f"| {schema['description']} |"
    )


if __name__ == "__main__":
    print(table())
