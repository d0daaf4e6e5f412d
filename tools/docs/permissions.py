"""Write docs/permissions.md from the documents that are deployed."""

from __future__ import annotations

import json
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
    savings,
    spot_handler_role,
)
from lambdas.onboarding.policies.document import (
    MANAGED_LIMIT,
    USER_INLINE_LIMIT,
    Document,
    document_of,
    size,
)
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
        "This page has every IAM document of this project, as it is deployed. CLUSTER, REGION, "
        "ACCOUNT and VPC stand for the cluster's values, CLUSTER_ID for CAST AI's id of the "
        "cluster, and ID8 for the first eight characters of this id. In partitions other than "
        "`aws` only the ARNs differ. `castai-eks policy` prints the documents for your cluster."
    )
    yield from _trust()
    yield from _identity()
    yield from _beyond()
    yield from _narrowed()
    yield from _roles()
    yield from _onboarders()
    yield from _limits()


def _trust() -> Iterator[str]:
    yield "## Trust policies"
    roles = {
        "the functions' roles": functions.lambda_trust("aws"),
        _shown(names.role_name("CLUSTER", EXAMPLE.cluster_id)): castai_identity.cross_account_trust(
            "PRINCIPAL", EXAMPLE.cluster_id
        ),
        _shown(names.node_role_name("CLUSTER", EXAMPLE.cluster_id)): node_role.node_trust("aws"),
        _shown(
            names.castai_function_role_name("CLUSTER", EXAMPLE.cluster_id)
        ): functions.lambda_trust("aws"),
    }
    yield table(
        ["role", "principal that may assume it", "only if"],
        [
            [
                role,
                ", ".join(f"`{each}`" for each in statement["Principal"].values()),
                "<br>".join(_conditions(statement.get("Condition", {}))),
            ]
            for role, trust in roles.items()
            for statement in trust["Statement"]
        ],
    )
    yield "PRINCIPAL is CAST AI's own: its API or its console names it."


def _identity() -> Iterator[str]:
    yield "## CAST AI"
    yield (
        f"CAST AI uses an IAM user (`{names.user_name('CLUSTER')}`) or assumes a role "
        f"(`{_shown(names.role_name('CLUSTER', EXAMPLE.cluster_id))}`). This identity has AWS's "
        "policies AmazonEC2ReadOnlyAccess and, except with `strict`, IAMReadOnlyAccess. It also "
        "has two policies of this project: the managed policy "
        f"`{names.policy_name('CLUSTER', account_wide=False)}` and the inline policy "
        f"`{names.INLINE_POLICY}`. The property Permissions selects the variant:"
    )
    yield "\n".join(f"- `{permission}`: {_ABOUT[permission]}" for permission in Permissions)
    yield (
        "PassRoleLambda, SpotFunction and SpotRule are for a spot function of CAST AI's own. They "
        "are there only with ManageSpotLambda, which is off by default, because this app deploys "
        "the function."
    )
    yield f"`{names.policy_name('CLUSTER', account_wide=False)}`"
    yield _variants(
        {
            each: castai_identity.cast_eks_policy(
                EXAMPLE, each, manage_spot_lambda=True, boundary=None
            )
            for each in Permissions
        }
    )
    yield f"`{names.INLINE_POLICY}`"
    yield _variants(
        {each: castai_identity.restricted_access(EXAMPLE, each) for each in Permissions}
    )
    yield (
        "The statements about the cluster's Auto Scaling groups and node groups are in the managed "
        f"policy. A user's inline policies may have {USER_INLINE_LIMIT:,} characters together, and "
        "with a long cluster name these statements would not fit. With AccountWidePolicy the "
        "clusters of an account share one managed policy that names no cluster. These statements "
        "are then inline, and CAST AI may pass any cluster's node role to EC2."
    )
    yield (
        "Another account may own the VPC, its subnets and its security groups and share them with "
        "this one (RAM). Their ARNs have the owner's account, so the statements name any account. "
        "The id of the VPC, which is unique in AWS, limits them."
    )


_ABOUT: Final = {
    Permissions.FULL: "every permission group that CAST AI's product names.",
    Permissions.STANDARD: "what CAST AI requires today. Only the onboarding creates roles, "
    "instance profiles and security groups.",
    Permissions.STRICT: "as `standard`, limited to both tags of the cluster where AWS supports "
    "tags. CAST AI cannot read IAM.",
}


def _beyond() -> Iterator[str]:
    yield "## What reaches beyond the cluster"
    yield (
        "The isolation tests check every write action of every variant on the cluster's own "
        "resources and on those of other clusters, VPCs, regions and accounts. Beyond the cluster "
        "only these writes are allowed, on resources that clusters share:"
    )
    rows = []
    for wide in WIDE:
        variants = ", ".join(f"`{each}`" for each in Permissions if each in wide.permissions)
        if wide.spot_lambda:
            variants = "any, with ManageSpotLambda"
        actions = ", ".join(wide.actions)
        rows.append([f"{actions} on {wide.on}", wide.reach.value, variants, wide.why])
    yield table(["permission", "reaches", "variants", "why"], rows)
    yield "### Roles that CAST AI can act as"
    yield (
        "A principal that may pass a role to a function or an instance, and start it, can act as "
        "that role. The tests also follow every such chain, to every role of the account and "
        "beyond. CAST AI can act as:"
    )
    yield (
        "- the node role;\n"
        "- with ManageSpotLambda, the role of its own spot function. There is one function in each "
        "region, so it may have the role of another cluster's onboarding. All these roles may only "
        "find instances and write their log;\n"
        "- with AccountWidePolicy, the node roles of the other clusters that share the policy, and "
        "so a node of these clusters."
    )
    yield (
        "CAST AI cannot act as any role of this app's functions. The node role reaches further "
        "than the cluster:"
    )
    rows = []
    for chain in CHAINS:
        variants = ", ".join(f"`{each}`" for each in Permissions if each in chain.permissions)
        rows.append([chain.how, chain.becomes, chain.policy, chain.reaches, variants, chain.why])
    yield table(["with", "acts as", "which has", "and may", "variants", "why"], rows)
    yield (
        "Inside the cluster CAST AI can run a pod under any ServiceAccount. In `user` mode it is "
        "an administrator of the cluster. In both modes a node can use the tokens of the pods that "
        "run on it. So CAST AI can also act as the roles of these ServiceAccounts (IRSA, Pod "
        "Identity)."
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
        "EC2 gives the role and instance profile "
        f"`{_shown(EXAMPLE.node_role_arn.rpartition('/')[2])}` to the nodes that CAST AI launches. "
        "The role has these policies:"
    )
    plain = node_role.node_managed_policies("aws", ssm=False, ebs_csi=False)
    ssm, ebs_csi = node_role.node_managed_policies("aws", ssm=True, ebs_csi=True)[len(plain) :]
    yield "\n".join(
        [
            *(f"- `{arn}`" for arn in plain),
            f"- `{ssm}`, with SsmOnNodes",
            f"- `{ebs_csi}`, with EbsCsiOnNodes",
        ]
    )
    yield f"In an IPv6 cluster it also has the inline policy `{names.IPV6_POLICY}`:"
    yield _statements(node_role.node_ipv6_policy("aws", "REGION", "ACCOUNT"))
    yield "## CAST AI's own spot function"
    role = _shown(EXAMPLE.castai_function_role_arn.rpartition("/")[2])
    yield (
        f"With ManageSpotLambda the onboarding creates the role `{role}`, which CAST AI may give "
        f"to the function `{names.SPOT_FUNCTION}`. A removal deletes the role. The function and "
        "its rules are CAST AI's and stay. The spot handler below never has this role: synth, the "
        "custom resource and `castai-eks` refuse a spot handler's role named "
        f"`{names.ANY_CASTAI_FUNCTION_ROLE}`."
    )
    yield (
        f"CAST AI's old script created a function `{names.SPOT_FUNCTION}` that runs as "
        f"`{SPOT_ROLE}`. To change the code of a function, CAST AI needs no iam:PassRole. So with "
        "ManageSpotLambda the onboarding refuses a function that runs as another role: delete it "
        "first. The onboarding checks this once, in the cluster's region. Do not create a function "
        "of this name with another role later. With AccountWidePolicy, check the other regions "
        "yourself, because the shared policy applies to all regions. The role has this policy:"
    )
    yield _statements(castai_function.castai_function_policy(EXAMPLE))
    yield "## The spot handler"
    yield f"Only Lambda may assume the role `{SPOT_ROLE}`. It has these policies:"
    yield "\n".join(f"- `{arn}`" for arn in spot_handler_role.spot_managed_policies("aws"))
    yield (
        "It also has the inline policy below. With `castai:rolePolicies=least-privilege` its "
        "statements WriteOwnLog and FindInstance replace the three policies. Some statements need "
        "a setting, here and for the functions below: ReadApiKey needs `castai:apiKeySecret`, "
        "DecryptApiKey "
        "`castai:apiKeyKmsKey`, Trace `castai:tracing`, AttachToVpc and its Deny "
        "`castai:subnetIds`."
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
        "This is the role of the custom resource's function. It is an administrator of a listed "
        "cluster's Kubernetes API while the function works there."
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
        "For each cluster the role has an inline policy `cluster-CLUSTER`, which the Deny "
        "statements above limit. CloudFormation deletes it after the cluster's custom resource."
    )
    yield _statements(agent_role.agent_cluster("aws", "CLUSTER"))
    unknown = Scope("aws", "REGION", "ACCOUNT", "CLUSTER", "", "")
    yield "## The onboarding's function"
    yield (
        "Each onboarded cluster has a function with this role. It may change only resources with "
        "the names above. With PermissionsBoundary each statement that creates a user or role, or "
        "writes or attaches its policies, also requires `iam:PermissionsBoundary`. "
        "EncryptCredentials needs KmsKey. The role is an administrator of the cluster's Kubernetes "
        "API while the function works."
    )
    own = _function("castai-onboarding-CLUSTER").function
    onboarding = onboarder.onboarding_lambda(
        unknown,
        own_role_arn=unknown.iam(f"role/{functions.role_name(own, 'REGION')}"),
        function=own,
        api_key_secret=_API_KEY,
        api_key_kms_key=_KMS_KEY,
        credentials_kms_key=_KMS_KEY,
        in_vpc=True,
    )
    for name, document in onboarding.items():
        yield f"`{name}`"
        yield _statements(document)
    yield "## CDK's Provider framework"
    yield (
        "The framework passes CloudFormation's requests to the two functions above. Each of its "
        "functions may write its own log (logs:CreateLogStream and logs:PutLogEvents) and call "
        "the next part: one function (lambda:InvokeFunction and lambda:GetFunction), or for the "
        "agent's waiter a state machine (states:StartExecution). None may create a log group: the "
        "last lines of a Delete would create the group again that the stack has just deleted."
    )
    yield "## The administrator"
    yield "A person who runs `cdk deploy` acts as the roles of the bootstrap stack:"
    yield _statements(onboarder.cdk_deployer("aws", "ACCOUNT", "REGION"))
    yield (
        "CloudFormation acts as the bootstrap's execution role, which by default is an "
        "administrator. A narrower one (`npx cdk bootstrap --cloudformation-execution-policies "
        "ARN`) needs the permissions that CloudFormation's registry lists for the resource types "
        "of a template."
    )
    yield (
        "A person who works from a terminal (`castai-eks onboard`, or by hand as in "
        "[manual-onboarding.md](manual-onboarding.md)) needs the three managed policies below "
        "instead. `castai-eks policy admin` prints them; with `--mode` they are smaller."
    )
    yield from _compared(onboarder.administrator(unknown), onboarding)
    yield from _savings()


def _savings() -> Iterator[str]:
    yield "## A person who asks what could be saved"
    yield (
        "`castai-eks savings` only reads. The person who runs it needs this policy; ReadApiKey and "
        "DecryptApiKey only for CAST AI's own estimate. `castai-eks policy savings` prints it."
    )
    document = savings.reader(
        _function(""), "CLUSTER", api_key_secret=_API_KEY, api_key_kms_key=_KMS_KEY
    )
    yield _statements(document)
    yield f"In the cluster it needs the ClusterRole `{savings.NAME}`, which reads no Secret:"
    yield table(
        ["API group", "resources", "verbs"],
        [
            [
                ", ".join(f"`{group}`" if group else "core" for group in rule["apiGroups"]),
                ", ".join(f"`{resource}`" for resource in rule["resources"]),
                ", ".join(rule["verbs"]),
            ]
            for rule in savings.cluster_role()["rules"]
        ],
    )


def _limits() -> Iterator[str]:
    yield "## Sizes"
    yield (
        "The sizes are checked before anything is created. The table has the characters for the "
        "longest cluster name of user mode, in a region of GovCloud."
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


def _compared(documents: Mapping[str, Document], shown: Mapping[str, Document]) -> Iterator[str]:
    """Each document, with references to the statements that are in the `shown` documents."""
    owners = {
        json.dumps(statement): owner
        for owner, document in shown.items()
        for statement in document["Statement"]
    }
    for name, document in documents.items():
        same: dict[str, list[str]] = {}
        others: list[Document] = []
        for statement in document["Statement"]:
            if owner := owners.get(json.dumps(statement)):
                same.setdefault(owner, []).append(statement["Sid"])
            else:
                others.append(statement)
        parts = [f"{', '.join(sids)} as in `{owner}`" for owner, sids in same.items()]
        yield f"`{name}`: {'; '.join(parts)}{'; and:' if others else '.'}"
        if others:
            yield _statements(document_of(others))


_HEAD: Final = ["statement", "actions", "on", "only if"]


def _statements(document: Document) -> str:
    return table(_HEAD, [list(_row(statement)) for statement in document["Statement"]])


def _variants(documents: Mapping[Permissions, Document]) -> str:
    """One table for all variants: each statement once, with its variants."""
    variants: dict[tuple[str, ...], list[Permissions]] = {}
    for permission, document in documents.items():
        for statement in document["Statement"]:
            variants.setdefault(_row(statement), []).append(permission)
    sids = list(dict.fromkeys(sid for sid, *_ in variants))
    return table(
        [*_HEAD, "variants"],
        [
            [*row, ", ".join(f"`{each}`" for each in variants[row])]
            for row in sorted(variants, key=lambda row: sids.index(row[0]))
        ],
    )


def _row(statement: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        statement["Sid"] + (" (Deny)" if statement["Effect"] == "Deny" else ""),
        "<br>".join(statement["Action"]),
        "<br>".join(_resources(statement)),
        "<br>".join(_conditions(statement.get("Condition", {}))),
    )


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
