"""docs/permissions.md and docs/manual-onboarding.md, written from the documents that are deployed.

`python -m tools.docs.permissions` writes both; a test holds them to be current.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

from lambdas.common.names import SPOT_ROLE
from lambdas.onboarding import aws_auth, names
from lambdas.onboarding.policies import (
    agent_role,
    castai_function,
    castai_identity,
    node_role,
    onboarder,
    spot_handler_role,
)
from lambdas.onboarding.policies.document import MANAGED_LIMIT, USER_INLINE_LIMIT, Document, size
from lambdas.onboarding.policies.scope import (
    USER_CLUSTER_CHARACTERS,
    FunctionScope,
    Mode,
    Permissions,
    Scope,
)
from tools.docs.policy_reasons import CHAINS, NARROWED, WIDE

DOCS: Final = Path(__file__).parents[2] / "docs"

EXAMPLE: Final = Scope(
    partition="aws",
    region="REGION",
    account="ACCOUNT",
    cluster="CLUSTER",
    cluster_id="00000000-0000-0000-0000-000000000000",
    vpc_id="VPC",
)
_SHOWN: Final = {"00000000-0000-0000-0000-000000000000": "CLUSTER_ID", "00000000": "ID8"}
_HEADER: Final = (
    "<!-- Written by `python -m tools.docs.permissions`. Change the policies, not this file. -->"
)


def written() -> dict[Path, str]:
    """Each file with its text."""
    return {
        DOCS / "permissions.md": permissions(),
        DOCS / "manual-onboarding.md": manual(),
    }


def main() -> None:
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")


# Permissions --------------------------------------------------------------------------------------


def permissions() -> str:
    """Who may do what, and why."""
    return _joined(_permissions())


def _permissions() -> Iterator[str]:
    yield "# Permissions: who may do what, and why"
    yield _HEADER
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
    yield _table(["permission", "reaches", "variants", "why"], rows)
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
    yield _table(["by", "becomes", "carries", "and may", "variants", "why"], rows)
    yield (
        "Inside the cluster CAST AI can run a pod under any ServiceAccount: in `user` mode as its "
        "administrator, in both modes by a node that takes the tokens of the pods that run there. "
        "So it also reaches what the roles of those ServiceAccounts (IRSA, Pod Identity) may do."
    )


def _narrowed() -> Iterator[str]:
    yield "## What is narrower than in CAST AI's script"
    yield _table(
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
            own_role=f"{where.function}-REGION",
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
            own_role_arn=unknown.iam(f"role/{own}-REGION"),
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
    yield _table(
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
    return _table(["statement", "actions", "on", "only if"], rows)


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


# By hand ------------------------------------------------------------------------------------------

# Every value that differs from cluster to cluster becomes a variable of the shell. The longest
# names come first, because they hold the shorter ones.
_MARKED: Final = Scope(
    partition="aws",
    region="marked-region-1",
    account="999999999999",
    cluster="MARKED-CLUSTER",
    cluster_id="0d0d0d0d-0000-0000-0000-000000000000",
    vpc_id="vpc-marked",
)
_PRINCIPAL: Final = "MARKED-PRINCIPAL"
_VARIABLES: Final = (
    (names.role_name(_MARKED.cluster, _MARKED.cluster_id), "${ROLE}"),
    (names.node_role_name(_MARKED.cluster, _MARKED.cluster_id), "${NODE_ROLE}"),
    (names.user_name(_MARKED.cluster), "${CAST_USER}"),
    (_MARKED.cluster, "${CLUSTER}"),
    (_MARKED.cluster_id, "${CLUSTER_ID}"),
    (_MARKED.account, "${ACCOUNT}"),
    (_MARKED.region, "${REGION}"),
    (_MARKED.vpc_id, "${VPC_ID}"),
    (_PRINCIPAL, "${PRINCIPAL}"),
    ("arn:aws:", "arn:${PARTITION}:"),
)
_API: Final = "https://api.cast.ai/v1/kubernetes/external-clusters/${CLUSTER_ID}"


def manual() -> str:
    """Each step of the onboarding as commands for bash and the AWS CLI."""
    return _joined(_manual())


def _manual() -> Iterator[str]:
    yield "# Onboarding by hand"
    yield _HEADER
    yield (
        "What the custom resource and `castai-eks onboard` do, step by step, with the same "
        "documents. For bash, the AWS CLI and jq, as an administrator with the policies that "
        "`castai-eks policy admin` prints. What is made here carries no owner's tag: the custom "
        "resource takes it over only with Adopt, and never deletes it otherwise."
    )
    yield from _variables()
    yield from _managed_policy()
    yield from _user()
    yield from _role()
    yield from _node_role()
    yield from _security_group()
    yield from _access()
    yield from _credentials()
    yield from _undo()


def _variables() -> Iterator[str]:
    yield "## 1. Look"
    yield (
        "The castai-agent runs on the cluster already. Its console shows CAST AI's id of the "
        "cluster. `CASTAI_API_KEY` is in the environment; a file keeps it off the command line, "
        "where every user of the machine could read it."
    )
    yield _bash(
        """
        set -euo pipefail
        umask 077
        CLUSTER=${CLUSTER:?the name of the EKS cluster}
        CLUSTER_ID=${CLUSTER_ID:?CAST AI id of the cluster}
        REGION=${REGION:?the region of the cluster}
        IDENTITY=$(aws sts get-caller-identity --query Arn --output text)
        PARTITION=$(cut -d: -f2 <<< "$IDENTITY")
        ACCOUNT=$(cut -d: -f5 <<< "$IDENTITY")
        VPC_ID=$(aws eks describe-cluster --region "$REGION" --name "$CLUSTER" \\
          --query cluster.resourcesVpcConfig.vpcId --output text)
        CAST_USER=cast-eks-$CLUSTER
        ROLE=cast-eks-${CLUSTER:0:30}-cluster-role-${CLUSTER_ID:0:8}
        NODE_ROLE=cast-${CLUSTER:0:40}-eks-${CLUSTER_ID:0:8}
        POLICY_ARN=arn:$PARTITION:iam::$ACCOUNT:policy/CastEKSPolicy-$CLUSTER
        printf 'X-API-Key: %s\\n' "${CASTAI_API_KEY:?}" > castai-header
        """,
    )


def _managed_policy() -> Iterator[str]:
    yield "## 2. Policies"
    yield (
        "The managed policy, and the inline policy that step 3 puts on the identity. "
        "[permissions.md](permissions.md) explains each statement. These are the documents of "
        "`full` without a spot function of CAST AI's; `castai-eks policy cluster` prints the "
        "others."
    )
    managed = castai_identity.cast_eks_policy(
        _MARKED, Permissions.FULL, manage_spot_lambda=False, boundary=None
    )
    inline = castai_identity.restricted_access(_MARKED, Permissions.FULL)
    yield _bash(
        _file("cast-eks-policy.json", managed),
        _file("restricted-access.json", inline),
        """
        aws iam create-policy --policy-name "CastEKSPolicy-$CLUSTER" \\
          --policy-document file://cast-eks-policy.json
        """,
    )


def _user() -> Iterator[str]:
    yield "## 3. Identity: a user"
    yield "Or a role: go on with the next section instead."
    arns = castai_identity.identity_managed_policies("aws", Permissions.FULL)
    yield _bash(
        'aws iam create-user --user-name "$CAST_USER"',
        _attached("user", "CAST_USER", [*arns, "$POLICY_ARN"]),
        f"""
        aws iam put-user-policy --user-name "$CAST_USER" \\
          --policy-name {names.INLINE_POLICY} --policy-document file://restricted-access.json
        """,
        mode=Mode.USER,
    )


def _role() -> Iterator[str]:
    yield "## 3. Identity: a role that CAST AI assumes"
    trust = castai_identity.cross_account_trust(_PRINCIPAL, _MARKED.cluster_id)
    arns = castai_identity.identity_managed_policies("aws", Permissions.FULL)
    yield _bash(
        f"""
        PRINCIPAL=$(curl --silent --fail --header @castai-header --request POST \\
          "{_API}/assume-role-principal" | jq --raw-output .arn)
        """,
        _file("trust.json", trust),
        """
        aws iam create-role --role-name "$ROLE" --assume-role-policy-document file://trust.json
        """,
        _attached("role", "ROLE", [*arns, "$POLICY_ARN"]),
        f"""
        aws iam put-role-policy --role-name "$ROLE" \\
          --policy-name {names.INLINE_POLICY} --policy-document file://restricted-access.json
        """,
        mode=Mode.ROLE,
    )


def _node_role() -> Iterator[str]:
    yield "## 4. The nodes' role and instance profile"
    yield (
        "Both have one name. In China's regions the trusted service is `ec2.amazonaws.com.cn`. In "
        f"an IPv6 cluster the role also needs the inline policy `{names.IPV6_POLICY}`, which "
        "`castai-eks policy node --ipv6` prints."
    )
    yield _bash(
        _file("node-trust.json", node_role.node_trust("aws")),
        """
        aws iam create-role --role-name "$NODE_ROLE" \\
          --assume-role-policy-document file://node-trust.json
        """,
        _attached(
            "role", "NODE_ROLE", node_role.node_managed_policies("aws", ssm=False, ebs_csi=False)
        ),
        """
        aws iam create-instance-profile --instance-profile-name "$NODE_ROLE"
        aws iam add-role-to-instance-profile \\
          --instance-profile-name "$NODE_ROLE" --role-name "$NODE_ROLE"
        """,
    )


def _security_group() -> Iterator[str]:
    yield "## 5. The nodes' security group"
    yield "All that leaves, and all that comes from the group itself."
    name = _with_variables(names.security_group_name(_MARKED.cluster))
    yield _bash(
        f"""
        GROUP="{name}"
        TAGS="{{Key=Name,Value=$GROUP}},{{Key=cast:cluster-id,Value=$CLUSTER_ID}}"
        GROUP_ID=$(aws ec2 create-security-group --region "$REGION" --vpc-id "$VPC_ID" \\
          --group-name "$GROUP" --description "Nodes that CAST AI adds" \\
          --tag-specifications "ResourceType=security-group,Tags=[$TAGS]" \\
          --query GroupId --output text)
        aws ec2 authorize-security-group-ingress --region "$REGION" --group-id "$GROUP_ID" \\
          --protocol=-1 --source-group "$GROUP_ID"
        """,
    )


def _access() -> Iterator[str]:
    yield "## 6. Access to the cluster"
    yield (
        "Where the cluster's authentication mode has access entries (`API` or "
        "`API_AND_CONFIG_MAP`). The role that CAST AI assumes gets none."
    )
    yield _bash(
        """
        aws eks create-access-entry --region "$REGION" --cluster-name "$CLUSTER" \\
          --type EC2_LINUX --principal-arn "arn:$PARTITION:iam::$ACCOUNT:role/$NODE_ROLE"
        """,
    )
    yield "For the user, besides:"
    admin = onboarder.ADMIN_ACCESS_POLICY
    yield _bash(
        f"""
        USER_ARN=arn:$PARTITION:iam::$ACCOUNT:user/$CAST_USER
        aws eks create-access-entry --region "$REGION" --cluster-name "$CLUSTER" \\
          --principal-arn "$USER_ARN"
        aws eks associate-access-policy --region "$REGION" --cluster-name "$CLUSTER" \\
          --principal-arn "$USER_ARN" --access-scope type=cluster \\
          --policy-arn "arn:$PARTITION:eks::aws:cluster-access-policy/{admin}"
        """,
        mode=Mode.USER,
    )
    yield (
        "Where it has only the ConfigMap: `kubectl --namespace kube-system edit configmap "
        "aws-auth`, and add to the list in `mapRoles`"
    )
    yield _yaml(aws_auth.render(aws_auth.node_entry(_MARKED.node_role_arn)))
    yield "and for the user to the list in `mapUsers`"
    yield _yaml(aws_auth.render(aws_auth.user_entry(_MARKED.user_arn)))


def _credentials() -> Iterator[str]:
    yield "## 7. Hand over"
    yield (
        "The user's access key goes into a secret and to CAST AI, and is never shown. CAST AI "
        "answers 400 until IAM knows the new identity everywhere: try again for a minute."
    )
    secret = _with_variables(names.credentials_secret_name(_MARKED.cluster))
    yield _bash(
        f"""
        aws iam create-access-key --user-name "$CAST_USER" --output json \\
          --query 'AccessKey.{{accessKeyId:AccessKeyId,secretAccessKey:SecretAccessKey}}' > key.json
        aws secretsmanager create-secret --region "$REGION" \\
          --name "{secret}" --secret-string file://key.json
        jq --raw-input --slurp '{{credentials: .}}' key.json |
          curl --silent --fail --retry 6 --retry-all-errors --header @castai-header \\
            --json @- "{_API}"
        rm key.json
        """,
        mode=Mode.USER,
    )
    yield "For the role only its ARN:"
    yield _bash(
        f"""
        jq --null-input --arg arn "arn:$PARTITION:iam::$ACCOUNT:role/$ROLE" \\
          '{{eks: {{assumeRoleArn: $arn}}}}' |
          curl --silent --fail --retry 6 --retry-all-errors --header @castai-header \\
            --json @- "{_API}"
        """,
        mode=Mode.ROLE,
    )


def _undo() -> Iterator[str]:
    yield "## Undo"
    yield (
        "First remove the nodes that CAST AI added: IAM deletes a role that running nodes use, and "
        "they lose the cluster half an hour later. EC2 refuses to delete the security group while "
        "nodes use it. Go on only if this succeeds:"
    )
    yield _bash('aws ec2 delete-security-group --region "$REGION" --group-id "$GROUP_ID"')
    yield "Then disconnect, and remove in reverse. `mapRoles` and `mapUsers` by hand again."
    secret = _with_variables(names.credentials_secret_name(_MARKED.cluster))
    identity = castai_identity.identity_managed_policies("aws", Permissions.FULL)
    yield _bash(
        f"""
        jq --null-input '{{deleteProvisionedNodes: false, keepKubernetesResources: true}}' |
          curl --silent --fail --header @castai-header --json @- "{_API}/disconnect"
        aws eks delete-access-entry --region "$REGION" --cluster-name "$CLUSTER" \\
          --principal-arn "arn:$PARTITION:iam::$ACCOUNT:role/$NODE_ROLE"
        aws iam remove-role-from-instance-profile \\
          --instance-profile-name "$NODE_ROLE" --role-name "$NODE_ROLE"
        aws iam delete-instance-profile --instance-profile-name "$NODE_ROLE"
        """,
        _attached(
            "role",
            "NODE_ROLE",
            node_role.node_managed_policies("aws", ssm=False, ebs_csi=False),
            "detach",
        ),
        """
        aws iam delete-role --role-name "$NODE_ROLE"
        """,
    )
    yield "The user:"
    yield _bash(
        f"""
        aws eks delete-access-entry --region "$REGION" --cluster-name "$CLUSTER" \\
          --principal-arn "arn:$PARTITION:iam::$ACCOUNT:user/$CAST_USER"
        KEY_ID=$(aws iam list-access-keys --user-name "$CAST_USER" \\
          --query 'AccessKeyMetadata[0].AccessKeyId' --output text)
        aws iam delete-access-key --user-name "$CAST_USER" --access-key-id "$KEY_ID"
        aws secretsmanager delete-secret --region "$REGION" --secret-id "{secret}"
        aws iam delete-user-policy --user-name "$CAST_USER" --policy-name {names.INLINE_POLICY}
        """,
        _attached("user", "CAST_USER", [*identity, "$POLICY_ARN"], "detach"),
        """
        aws iam delete-user --user-name "$CAST_USER"
        """,
        mode=Mode.USER,
    )
    yield "Or the role:"
    yield _bash(
        f"""
        curl --silent --fail --header @castai-header --request DELETE \\
          "{_API}/assume-role-principal"
        aws iam delete-role-policy --role-name "$ROLE" --policy-name {names.INLINE_POLICY}
        """,
        _attached("role", "ROLE", [*identity, "$POLICY_ARN"], "detach"),
        """
        aws iam delete-role --role-name "$ROLE"
        """,
        mode=Mode.ROLE,
    )
    yield "And at last:"
    yield _bash(
        f"""
        aws iam delete-policy --policy-arn "$POLICY_ARN"
        curl --silent --fail --header @castai-header --request DELETE "{_API}"
        rm castai-header
        """,
    )


def _attached(kind: str, variable: str, arns: Iterable[str], verb: str = "attach") -> str:
    return "".join(
        f'aws iam {verb}-{kind}-policy --{kind}-name "${variable}" \\\n'
        f'  --policy-arn "{_with_variables(arn)}"\n'
        for arn in arns
    )


def _file(name: str, document: Document) -> str:
    text = _with_variables(json.dumps(document, indent=2))
    return f"cat > {name} <<EOF\n{text}\nEOF\n"


def _with_variables(text: str) -> str:
    for marked, variable in _VARIABLES:
        text = text.replace(marked, variable)
    return text


def _bash(*parts: str, mode: Mode | None = None) -> str:
    """A block of commands; `mode` says which of the two ways it belongs to."""
    commands = "\n".join(dedent(part).strip("\n") for part in parts)
    return f"```bash{f' {mode}' if mode else ''}\n{commands}\n```"


def _yaml(text: str) -> str:
    return f"```yaml\n{_with_variables(text).rstrip()}\n```"


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
