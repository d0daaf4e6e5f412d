"""`castai-eks policy`: every IAM document for a cluster, without a call to AWS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console

from cli import show
from lambdas.common.errors import PermanentError
from lambdas.common.names import SPOT_ROLE
from lambdas.onboarding import names
from lambdas.onboarding.policies import (
    agent_role,
    castai_function,
    castai_identity,
    functions,
    node_role,
    onboarder,
    spot_handler_role,
)
from lambdas.onboarding.policies import savings as savings_policies
from lambdas.onboarding.policies.scope import (
    USER_CLUSTER_CHARACTERS,
    FunctionScope,
    Mode,
    Permissions,
    Scope,
)

app = typer.Typer(
    help="The IAM documents, as they are deployed. What is not given shows as a placeholder.",
    no_args_is_help=True,
)


@dataclass(frozen=True)
class Where:
    """The cluster that the documents are for."""

    partition: str
    region: str
    account: str
    cluster: str
    path: str

    def scope(self, cluster_id: str = "", vpc_id: str = "", spot_role: str = SPOT_ROLE) -> Scope:
        return Scope(
            self.partition,
            self.region,
            self.account,
            self.cluster,
            cluster_id,
            vpc_id,
            self.path,
            spot_role,
        )


Cluster = Annotated[str, typer.Option(help="Name of the EKS cluster.")]
Region = Annotated[str, typer.Option(help="Region of the cluster.")]
Account = Annotated[str, typer.Option(help="AWS account id.")]
Partition = Annotated[str, typer.Option(help="aws, aws-cn or aws-us-gov.")]
Path = Annotated[str, typer.Option(help="IAM path of users, roles and policies.")]
ClusterId = Annotated[str, typer.Option(help="CAST AI's id of the cluster.")]
Boundary = Annotated[str | None, typer.Option(help="ARN of a permissions boundary.")]
AccountWide = Annotated[
    bool, typer.Option("--account-wide", help="One CastEKSPolicy for all clusters.")
]
ApiKeySecret = Annotated[
    str | None, typer.Option(help="Secret (name or ARN) with CAST AI's API key.")
]
ApiKeyKmsKey = Annotated[
    str | None, typer.Option(help="KMS key of that secret, unless it is AWS's own.")
]
NamePrefix = Annotated[str, typer.Option(help="castai:namePrefix of the stacks.")]
InVpc = Annotated[bool, typer.Option("--vpc", help="For a function in a VPC.")]


@app.command()
def admin(
    *,
    cluster: Cluster = "CLUSTER",
    region: Region = "REGION",
    account: Account = "ACCOUNT",
    partition: Partition = "aws",
    path: Path = "/",
    cluster_id: ClusterId = "",
    vpc_id: Annotated[str, typer.Option(help="VPC of the cluster.")] = "",
    mode: Annotated[Mode | None, typer.Option(help="One mode only; both by default.")] = None,
    spot_role_name: Annotated[
        str, typer.Option(help="castai:spotRoleName, which gets an access entry.")
    ] = SPOT_ROLE,
    boundary: Boundary = None,
    account_wide: AccountWide = False,
    api_key_secret: ApiKeySecret = None,
    cdk: Annotated[bool, typer.Option(help="For deploying with CDK instead.")] = False,
    as_json: show.AsJson = False,
) -> None:
    """The least that a person needs to onboard the cluster."""
    if cdk:
        _print(
            {"cdk-deployer": onboarder.cdk_deployer(partition, account, region)}, as_json=as_json
        )
        return
    where = Where(partition, region, account, cluster, path)
    fits = len(cluster) <= USER_CLUSTER_CHARACTERS
    documents = onboarder.administrator(
        where.scope(cluster_id, vpc_id, spot_role_name),
        modes=[mode] if mode else list(Mode) if fits else [Mode.ROLE],
        account_wide=account_wide,
        boundary=boundary,
        api_key_secret=api_key_secret,
    )
    _print(documents, as_json=as_json)


@app.command("cluster")
def cluster_documents(
    *,
    cluster: Cluster = "CLUSTER",
    region: Region = "REGION",
    account: Account = "ACCOUNT",
    partition: Partition = "aws",
    path: Path = "/",
    cluster_id: ClusterId = "00000000-0000-0000-0000-000000000000",
    vpc_id: Annotated[str, typer.Option(help="VPC of the cluster.")] = "VPC",
    mode: Annotated[Mode, typer.Option(help="What CAST AI acts as.")] = Mode.USER,
    permissions: Annotated[
        Permissions, typer.Option(help="How much CAST AI may do.")
    ] = Permissions.FULL,
    spot_lambda: Annotated[
        bool, typer.Option(help="CAST AI manages a spot function of its own: its role as well.")
    ] = False,
    principal: Annotated[
        str, typer.Option(help="Who may assume the role, from CAST AI.")
    ] = "PRINCIPAL",
    boundary: Boundary = None,
    account_wide: AccountWide = False,
    as_json: show.AsJson = False,
) -> None:
    """What CAST AI's user or role has, and the role of its own spot function."""
    scope = Where(partition, region, account, cluster, path).scope(cluster_id, vpc_id)
    if not (cluster_id and vpc_id):
        raise PermanentError("Give --cluster-id and --vpc-id: CAST AI's policies name both")
    documents: dict[str, Any] = {
        names.policy_name(cluster, account_wide=account_wide): castai_identity.cast_eks_policy(
            scope,
            permissions,
            manage_spot_lambda=spot_lambda,
            boundary=boundary,
            account_wide=account_wide,
        ),
        names.INLINE_POLICY: castai_identity.restricted_access(
            scope, permissions, mode=mode, account_wide=account_wide
        ),
        "managed-policies": list(castai_identity.identity_managed_policies(partition, permissions)),
    }
    if mode is Mode.ROLE:
        documents["trust"] = castai_identity.cross_account_trust(principal, cluster_id)
    if spot_lambda:
        documents[f"role {names.castai_function_role_name(cluster, cluster_id)}"] = {
            "trust": functions.lambda_trust(partition),
            "inline": castai_function.castai_function_policy(scope),
        }
    _print(documents, as_json=as_json)


@app.command()
def node(
    *,
    region: Region = "REGION",
    account: Account = "ACCOUNT",
    partition: Partition = "aws",
    ssm: Annotated[bool, typer.Option(help="With Session Manager.")] = False,
    ebs_csi: Annotated[bool, typer.Option(help="With the EBS CSI driver's policy.")] = False,
    ipv6: Annotated[bool, typer.Option("--ipv6", help="For an IPv6 cluster.")] = False,
    as_json: show.AsJson = False,
) -> None:
    """What the nodes' role has."""
    managed = node_role.node_managed_policies(partition, ssm=ssm, ebs_csi=ebs_csi)
    documents: dict[str, Any] = {
        "trust": node_role.node_trust(partition),
        "managed-policies": list(managed),
    }
    if ipv6:
        documents[names.IPV6_POLICY] = node_role.node_ipv6_policy(partition, region, account)
    _print(documents, as_json=as_json)


@app.command()
def spot(
    *,
    cluster: Annotated[str, typer.Option(help="One cluster; all by default.")] = "",
    region: Region = "REGION",
    account: Account = "ACCOUNT",
    partition: Partition = "aws",
    name_prefix: NamePrefix = "castai",
    api_key_secret: ApiKeySecret = None,
    api_key_kms_key: ApiKeyKmsKey = None,
    least: Annotated[
        bool, typer.Option("--least-privilege", help="Without AWS's managed policies.")
    ] = False,
    tracing: Annotated[bool, typer.Option("--tracing", help="With X-Ray.")] = False,
    in_vpc: InVpc = False,
    as_json: show.AsJson = False,
) -> None:
    """What the spot handler's role has."""
    function = f"{name_prefix}-spot-handler"
    inline = spot_handler_role.spot_handler(
        FunctionScope(partition, account, (region,), function),
        failure_queue=f"{function}-failures",
        clusters=[cluster] if cluster else [],
        least=least,
        api_key_secret=api_key_secret,
        api_key_kms_key=api_key_kms_key,
        tracing=tracing,
        in_vpc=in_vpc,
    )
    managed = [] if least else list(spot_handler_role.spot_managed_policies(partition))
    documents = {
        "trust": functions.lambda_trust(partition),
        "managed-policies": managed,
        "inline": inline,
    }
    _print(documents, as_json=as_json)


@app.command()
def agent(
    *,
    cluster: Cluster = "CLUSTER",
    region: Region = "REGION",
    account: Account = "ACCOUNT",
    partition: Partition = "aws",
    name_prefix: NamePrefix = "castai",
    api_key_secret: ApiKeySecret = None,
    api_key_kms_key: ApiKeyKmsKey = None,
    in_vpc: InVpc = False,
    as_json: show.AsJson = False,
) -> None:
    """The role of the function that connects clusters: one policy for all, one for each cluster."""
    function = f"{name_prefix}-agent"
    documents = {
        "trust": functions.lambda_trust(partition),
        "managed": agent_role.agent_function(
            FunctionScope(partition, account, (region,), function),
            own_role=functions.role_name(function, region),
            api_key_secret=api_key_secret,
            api_key_kms_key=api_key_kms_key,
            in_vpc=in_vpc,
        ),
        f"cluster-{cluster}": agent_role.agent_cluster(partition, cluster),
    }
    _print(documents, as_json=as_json)


@app.command()
def onboarding(
    *,
    cluster: Cluster = "CLUSTER",
    region: Region = "REGION",
    account: Account = "ACCOUNT",
    partition: Partition = "aws",
    path: Path = "/",
    name_prefix: NamePrefix = "castai",
    spot_role_name: Annotated[
        str, typer.Option(help="castai:spotRoleName, which gets an access entry.")
    ] = SPOT_ROLE,
    boundary: Boundary = None,
    account_wide: AccountWide = False,
    api_key_secret: ApiKeySecret = None,
    api_key_kms_key: ApiKeyKmsKey = None,
    credentials_kms_key: Annotated[
        str | None, typer.Option(help="KMS key of the secret with the user's access key.")
    ] = None,
    in_vpc: InVpc = False,
    as_json: show.AsJson = False,
) -> None:
    """The role of the function that onboards the cluster."""
    scope = Where(partition, region, account, cluster, path).scope(spot_role=spot_role_name)
    function = onboarder.function_name(f"{name_prefix}-onboarding", cluster)
    documents = onboarder.onboarding_lambda(
        scope,
        own_role_arn=scope.iam(f"role/{functions.role_name(function, region)}"),
        function=function,
        account_wide=account_wide,
        boundary=boundary,
        api_key_secret=api_key_secret,
        api_key_kms_key=api_key_kms_key,
        credentials_kms_key=credentials_kms_key,
        in_vpc=in_vpc,
    )
    _print({"trust": functions.lambda_trust(partition), **documents}, as_json=as_json)


@app.command()
def savings(
    *,
    cluster: Cluster = "CLUSTER",
    region: Region = "REGION",
    account: Account = "ACCOUNT",
    partition: Partition = "aws",
    api_key_secret: ApiKeySecret = None,
    api_key_kms_key: ApiKeyKmsKey = None,
    as_json: show.AsJson = False,
) -> None:
    """What a person needs for `castai-eks savings`: an IAM policy and a ClusterRole. Reads only."""
    documents = {
        savings_policies.NAME: savings_policies.reader(
            FunctionScope(partition, account, (region,)),
            cluster,
            api_key_secret=api_key_secret,
            api_key_kms_key=api_key_kms_key,
        ),
        "cluster-role": savings_policies.cluster_role(),
    }
    _print(documents, as_json=as_json)


def _print(documents: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        show.document(documents)
        return
    for name, content in documents.items():
        Console().print(name, style="bold")
        show.document(content)
