"""Write docs/manual-onboarding.md from the documents that the onboarding uses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Final

from lambdas.onboarding import aws_auth, names
from lambdas.onboarding.policies import castai_identity, node_role, onboarder
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.policies.scope import (
    Mode,
    Permissions,
    Scope,
)
from tools.docs.markdown import DOCS, HEADER, joined

# Every value that differs between clusters becomes a shell variable. The longest names come first,
# because they contain the shorter ones.
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


def written() -> dict[Path, str]:
    """The file with its text."""
    return {DOCS / "manual-onboarding.md": manual()}


def main() -> None:
    """Write the page."""
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")


def manual() -> str:
    """Each step of the onboarding as commands for bash and the AWS CLI."""
    return joined(_manual())


def _manual() -> Iterator[str]:
    yield "# Onboarding by hand"
    yield HEADER
    yield (
        "These commands do what the custom resource and `castai-eks onboard` do, step by step and "
        "with the same documents. They need bash, curl, jq, the AWS CLI, and an administrator with "
        "the policies that `castai-eks policy admin` prints. The resources that they create have "
        "no owner tag. The custom resource takes them over only with Adopt, and never deletes them "
        "otherwise."
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
    yield "## 1. Variables"
    yield (
        "The castai-agent must already run on the cluster. CAST AI's console shows the id of the "
        "cluster. Set `CLUSTER`, `CLUSTER_ID`, `REGION` and `CASTAI_API_KEY` in the environment. "
        "The API key goes into a file, because every user of the machine can read a command line."
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
        "This step creates the managed policy. Step 3 adds the inline policy to the identity. The "
        "documents are those of `full` without a spot function of CAST AI's own. `castai-eks "
        "policy cluster` prints the others, and [permissions.md](permissions.md) lists all "
        "statements."
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
    yield "## 3a. Identity: a user"
    yield "For a role, skip this step and continue with step 3b."
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
    yield "## 3b. Identity: a role that CAST AI assumes"
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
        "Both have the same name. In China's regions the trusted service is "
        "`ec2.amazonaws.com.cn`. In an IPv6 cluster the role also needs the inline policy "
        f"`{names.IPV6_POLICY}`, which `castai-eks policy node --ipv6` prints."
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
    yield "The group allows all egress, and all ingress from itself."
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
        "If the cluster's authentication mode is `API` or `API_AND_CONFIG_MAP`, create an access "
        "entry for the nodes. The role that CAST AI assumes needs none."
    )
    yield _bash(
        """
        aws eks create-access-entry --region "$REGION" --cluster-name "$CLUSTER" \\
          --type EC2_LINUX --principal-arn "arn:$PARTITION:iam::$ACCOUNT:role/$NODE_ROLE"
        """,
    )
    yield "For the user, also create:"
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
        "If the authentication mode is `CONFIG_MAP`, run `kubectl --namespace kube-system edit "
        "configmap aws-auth` instead. Add this entry to the list in `mapRoles`:"
    )
    yield _yaml(aws_auth.render(aws_auth.node_entry(_MARKED.node_role_arn)))
    yield "For the user, add this entry to the list in `mapUsers`:"
    yield _yaml(aws_auth.render(aws_auth.user_entry(_MARKED.user_arn)))


def _credentials() -> Iterator[str]:
    yield "## 7. Hand over"
    yield (
        "The user's access key goes into a secret and to CAST AI, and is never shown. CAST AI "
        "answers 400 until IAM has propagated the new identity, so curl retries for a minute."
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
    yield "For the role, only its ARN goes to CAST AI:"
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
        "First remove the nodes that CAST AI added. IAM deletes a role also while running nodes "
        "use it, and these nodes lose access to the cluster half an hour later. EC2 refuses to "
        "delete the security group while nodes use it. Continue only if this command succeeds:"
    )
    yield _bash('aws ec2 delete-security-group --region "$REGION" --group-id "$GROUP_ID"')
    yield (
        "Then disconnect the cluster, and remove everything in reverse order. In `mapRoles` and "
        "`mapUsers`, remove the entries by hand."
    )
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
    yield "For the user:"
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
    yield "For the role:"
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
    yield "Finally:"
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
    """A block of commands; with `mode`, it is only for this mode."""
    commands = "\n".join(dedent(part).strip("\n") for part in parts)
    return f"```bash{f' {mode}' if mode else ''}\n{commands}\n```"


def _yaml(text: str) -> str:
    return f"```yaml\n{_with_variables(text).rstrip()}\n```"


if __name__ == "__main__":
    main()
