"""Write docs/permissions.md from the documents that are deployed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

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
from lambdas.onboarding.policies.document import MANAGED_LIMIT, USER_INLINE_LIMIT, Document, size
from lambdas.onboarding.policies.scope import (
    USER_CLUSTER_CHARACTERS,
    FunctionScope,
    Permissions,
    Scope,
)
from tools.docs.markdown import DOCS, HEADER, joined, table
from tools.docs.policy_reasons import CHAINS, NARROWED, WIDE

EXAMPLE: Final = Scope(
    partition="aws",
    region="REGION",
    account="ACCOUNT",
    cluster="CLUSTER",
    cluster_id="00000000-0000-0000-0000-000000000000",
    vpc_id="VPC",
)
_SHOWN: Final = {"00000000-0000-0000-0000-000000000000": "CLUSTER_ID", "00000000": "ID8"}


def written() -> dict[Path, str]:
    """The file with its text."""
    return {DOCS / "permissions.md": permissions()}


def main() -> None:
    """Write the page."""
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")


def permissions() -> str:
    """Who may do what, and why."""
    return joined(_permissions())


def _permissions() -> Iterator[str]:
    yield "# Permissions: who may do what, and why"
    yield HEADER
    yield (
        "Every IAM document of this project, as it is deployed. CLUSTER, REGION, ACCOUNT and VPC "
        "are the cluster's; CLUSTER_ID is CAST AI's id of it and ID8 its first eight characters. "
        "Partitions other than `aws` differ in the ARNs alone. `castai-eks policy` prints the "
        "documents for a cluster of yours."
    )
    yield from _identity()
    yield from _beyond()
    yield from _narrowed()
    yield from _roles()
    yield from _onboarders()
    yield from _limits()


def _identity() -> Iterator[str]:
    yield "## CAST AI"
    yield (
        f"An IAM user (`{names.user_name('CLUSTER')}`) or a role that CAST AI assumes "
        f"(`{_shown(names.role_name('CLUSTER', EXAMPLE.cluster_id))}`). It carries AWS's policies "
        "AmazonEC2ReadOnlyAccess and, but for `strict`, IAMReadOnlyAccess, and two of ours: the "
        f"managed policy `{names.policy_name('CLUSTER', account_wide=False)}` and the inline "
        f"policy `{names.INLINE_POLICY}`. The property Permissions chooses how much they allow."
    )
    for permission in Permissions:
        yield f"### `{permission}`"
        yield _ABOUT[permission]
        managed = castai_identity.cast_eks_policy(
            EXAMPLE, permission, manage_spot_lambda=permission is Permissions.FULL, boundary=None
        )
        yield f"`{names.policy_name('CLUSTER', account_wide=False)}`"
        yield _statements(managed)
        yield f"`{names.INLINE_POLICY}`"
        yield _statements(castai_identity.restricted_access(EXAMPLE, permission))
    yield (
        "What is about the cluster's Auto Scaling groups and node groups sits in the managed "
        f"policy, because a user's inline policies may have {USER_INLINE_LIMIT:,} "
        "characters together and long cluster names would not fit. With AccountWidePolicy the "
        "clusters of an account share one managed policy that names none of them; these "
        "statements are inline then, and any cluster's node role may be passed to EC2."
    )
    yield (
        "A VPC, its subnets and security groups may be another account's, shared with this one "
        "(RAM). Their ARNs carry the owner's account, so they name any account here; the id of the "
        "VPC, which is unique in AWS, binds them."
    )


_ABOUT: Final = {
    Permissions.FULL: "Every permission group that CAST AI's product names. The last three "
    "statements of the managed policy, about a spot function of CAST AI's own, are there only "
    "with ManageSpotLambda, which is off by default: this app deploys the function.",
    Permissions.STANDARD: "What CAST AI asks for today: roles, instance profiles and security "
    "groups are made by the onboarding alone.",
    Permissions.STRICT: "As `standard`, and bound to both tags of the cluster wherever AWS knows "
    "tags. CAST AI reads no IAM.",
}


def _beyond() -> Iterator[str]:
    yield "## What reaches beyond the cluster"
    yield (
        "The isolation tests decide every write action of every variant on the cluster's own "
        "things and on those of other clusters, VPCs, regions and accounts. Nothing beyond the "
        "cluster is allowed but this, which is shared by nature:"
    )
    rows = []
    for wide in WIDE:
        variants = ", ".join(f"`{each}`" for each in Permissions if each in wide.permissions)
        if wide.spot_lambda:
            variants = "any, with ManageSpotLambda"
        actions = ", ".join(wide.actions)
        rows.append([f"{actions} on {wide.on}", wide.reach.value, variants, wide.why])
    yield table(["permission", "reaches", "variants", "why"], rows)
    yield "### Step after step"
    yield (
        "Whoever may pass a role to a function or an instance and start it acts as that role. The "
        "same tests follow every such step, to every role of the account and further. CAST AI "
        "becomes the node role, and with ManageSpotLambda the role of its own function, which "
        "sees instances and writes its log. There is one such function for each region, so it may "
        "also change the code of one that runs as another cluster's role of this kind, which may "
        "do the same. It does not become any role of this app's functions. "
        "With AccountWidePolicy it also becomes the node roles of the other clusters that share "
        "the policy, and so a node of theirs. The node role reaches further than the cluster:"
    )
    rows = []
    for chain in CHAINS:
        variants = ", ".join(f"`{each}`" for each in Permissions if each in chain.permissions)
        rows.append([chain.how, chain.becomes, chain.policy, chain.reaches, variants, chain.why])
    yield table(["by", "becomes", "carries", "and may", "variants", "why"], rows)
    yield (
        "Inside the cluster CAST AI can run a pod under any ServiceAccount: in `user` mode as its "
        "administrator, in both modes by a node that takes the tokens of the pods that run there. "
        "So it also reaches what the roles of those ServiceAccounts (IRSA, Pod Identity) may do."
    )


def _narrowed() -> Iterator[str]:
    yield "## What is narrower than in CAST AI's script"
    yield table(
        ["permission", "the script", "here", "why that is enough"],
        [[each.permission, each.script, each.here, each.why] for each in NARROWED],
    )


def _roles() -> Iterator[str]:
    yield "## The nodes"
    yield (
        f"The role and instance profile `{_shown(EXAMPLE.node_role_arn.rpartition('/')[2])}`, "
        "which EC2 gives to the nodes that CAST AI launches:"
    )
    plain = node_role.node_managed_policies("aws", ssm=False, ebs_csi=False)
    optional = node_role.node_managed_policies("aws", ssm=True, ebs_csi=True)[len(plain) :]
    yield "\n".join(
        [f"- `{arn}`" for arn in plain] + [f"- `{arn}`, on request" for arn in optional]
    )
    yield f"and in an IPv6 cluster the inline policy `{names.IPV6_POLICY}`:"
    yield _statements(node_role.node_ipv6_policy("aws", "REGION", "ACCOUNT"))
    yield "## CAST AI's own spot function"
    role = _shown(EXAMPLE.lambda_role_arn.rpartition("/")[2])
    yield (
        f"Only with ManageSpotLambda: the role `{role}`, "
        f"which CAST AI may give to the function `{names.SPOT_FUNCTION}`. The onboarding makes and "
        "removes the role. The function and its rules are CAST AI's and stay. It is never the role "
        "of the spot handler below: synth, the custom resource and `castai-eks` refuse a spot "
        f"handler's role named `{names.ANY_LAMBDA_ROLE}`. CAST AI's old script made a function "
        f"`{names.SPOT_FUNCTION}` that runs as `{SPOT_ROLE}`. To change the code of a "
        "function needs no iam:PassRole, so with ManageSpotLambda the onboarding refuses a "
        "function that runs as any role but one of this kind: delete it first. The onboarding "
        "looks once, in the cluster's region. Do not make a function of this name under another "
        "role later. With AccountWidePolicy, look in the other regions yourself: the shared "
        "policy holds for all."
    )
    yield _statements(castai_function.lambda_role_policy(EXAMPLE))
    yield "## The spot handler"
    yield f"The role `{SPOT_ROLE}`, which Lambda alone may assume:"
    yield "\n".join(f"- `{arn}`" for arn in spot_handler_role.spot_managed_policies("aws"))
    yield (
        "and an inline policy. `castai:rolePolicies=least-privilege` replaces the three by the "
        "first two statements. ReadApiKey stands there with `castai:apiKeySecret`, DecryptApiKey "
        "with `castai:apiKeyKmsKey`, Trace with `castai:tracing`, AttachToVpc and its Deny with "
        "`castai:subnetIds`; so it is for the functions below."
    )
    where = _function("castai-spot-handler")
    yield _statements(
        spot_handler_role.spot_handler(
            where,
            failure_queue=f"{where.function}-failures",
            least=True,
            api_key_secret=_API_KEY,
            api_key_kms_key=_KMS_KEY,
            tracing=True,
            in_vpc=True,
        )
    )


_API_KEY: Final = "API_KEY"
_KMS_KEY: Final = "arn:aws:kms:REGION:ACCOUNT:key/KEY"


def _function(name: str) -> FunctionScope:
    return FunctionScope("aws", "ACCOUNT", ("REGION",), name)


def _onboarders() -> Iterator[str]:
    yield "## The agent's function"
    yield (
        "The role of the custom resource's function. It becomes an administrator of a listed "
        "cluster's Kubernetes API for as long as it works there."
    )
    where = _function("castai-agent")
    yield _statements(
        agent_role.agent_function(
            where,
            own_role=functions.role_name(where.function, "REGION"),
            api_key_secret=_API_KEY,
            api_key_kms_key=_KMS_KEY,
            in_vpc=True,
        )
    )
    yield (
        "and for each cluster an inline policy `cluster-CLUSTER`, which the Denies above narrow. "
        "It goes after the cluster's custom resource."
    )
    yield _statements(agent_role.agent_cluster("aws", "CLUSTER"))
    unknown = Scope("aws", "REGION", "ACCOUNT", "CLUSTER", "", "")
    yield "## The onboarding's function"
    yield (
        "The role of the custom resource's function, for each cluster. It touches the names above "
        "and nothing else. With PermissionsBoundary each statement that makes, fills or attaches "
        "also demands `iam:PermissionsBoundary`. EncryptCredentials stands there with KmsKey. It "
        "becomes an administrator of the cluster's Kubernetes API for as long as it works there."
    )
    own = _function("castai-onboarding-CLUSTER").function
    yield from _named(
        onboarder.onboarding_lambda(
            unknown,
            own_role_arn=unknown.iam(f"role/{functions.role_name(own, 'REGION')}"),
            function=own,
            api_key_secret=_API_KEY,
            api_key_kms_key=_KMS_KEY,
            credentials_kms_key=_KMS_KEY,
            in_vpc=True,
        )
    )
    yield "## CDK's Provider framework"
    yield (
        "It stands between CloudFormation and the two functions above. Each of its functions "
        "carries AWS's policy `service-role/AWSLambdaBasicExecutionRole` and may call what comes "
        "after it, and nothing else: lambda:InvokeFunction and lambda:GetFunction on the one "
        "function, and for the agent's waiter states:StartExecution on its state machine."
    )
    yield "## The administrator"
    yield "Whoever deploys with `cdk deploy` acts as the roles of the bootstrap stack:"
    yield _statements(onboarder.cdk_deployer("aws", "ACCOUNT", "REGION"))
    yield (
        "Whoever works from a terminal (`castai-eks onboard`, or by hand as in "
        "[manual-onboarding.md](manual-onboarding.md)) needs these three instead. For one mode "
        "alone they are smaller: `castai-eks policy admin --mode`."
    )
    yield from _named(onboarder.administrator(unknown))


def _limits() -> Iterator[str]:
    yield "## Sizes"
    yield (
        "Checked before anything is made. The figures are for the longest cluster name that user "
        "mode can have, in a region of GovCloud."
    )
    longest = Scope(
        "aws-us-gov",
        "us-gov-west-1",
        "111122223333",
        "c" * USER_CLUSTER_CHARACTERS,
        EXAMPLE.cluster_id,
        "vpc-0123456789abcdef0",
    )
    rows = []
    for permission in Permissions:
        managed = castai_identity.cast_eks_policy(
            longest, permission, manage_spot_lambda=True, boundary=None
        )
        inline = castai_identity.restricted_access(longest, permission)
        rows.append([f"`{permission}`", f"{_size(managed)}", f"{_size(inline)}"])
    yield table(
        [
            "Permissions",
            f"managed, of {MANAGED_LIMIT:,}",
            f"inline, of {USER_INLINE_LIMIT:,}",
        ],
        rows,
    )


def _size(document: Document) -> str:
    return f"{size(document):,}"


def _named(documents: Mapping[str, Document]) -> Iterator[str]:
    for name, document in documents.items():
        yield f"`{name}`"
        yield _statements(document)


def _statements(document: Document) -> str:
    rows = [
        [
            statement["Sid"] + (" (Deny)" if statement["Effect"] == "Deny" else ""),
            "<br>".join(statement["Action"]),
            "<br>".join(_resources(statement)),
            "<br>".join(_conditions(statement.get("Condition", {}))),
        ]
        for statement in document["Statement"]
    ]
    return table(["statement", "actions", "on", "only if"], rows)


def _resources(statement: Mapping[str, Any]) -> Iterator[str]:
    for element, words in (("Resource", ""), ("NotResource", "all but ")):
        for resource in statement.get(element, ()):
            yield f"{words}`{_shown(resource)}`"


def _conditions(conditions: Mapping[str, Mapping[str, str | list[str]]]) -> Iterator[str]:
    for operator, keys in conditions.items():
        for key, values in keys.items():
            wanted = [values] if isinstance(values, str) else values
            listed = " or ".join(f"`{_shown(value)}`" for value in wanted)
            yield f"{operator} {key} {listed}"


def _shown(text: str) -> str:
    for marker, shown in _SHOWN.items():
        text = text.replace(marker, shown)
    return text


if __name__ == "__main__":
    main()
