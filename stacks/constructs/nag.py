"""Acknowledge cdk-nag findings, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aws_cdk import Acknowledgment, Stack, Token, Validations
from constructs import IConstruct

FUNCTION_WILDCARDS: Final = {
    "WriteOwnLog": "The streams of the function's own log group",
    "AttachToVpc": "Lambda requires these on every resource; a Deny blocks the function's code",
}
"""By Sid: the reasons of the statements that every function's role has."""


def acknowledge(construct: IConstruct, findings: dict[str, str]) -> None:
    """Acknowledge findings of AwsSolutions on a construct: {rule or rule[finding]: reason}.

    ARNs in a finding may hold the stack's partition, region and account as tokens.
    """
    stack = Stack.of(construct)
    pseudo = {
        stack.partition: "<AWS::Partition>",
        stack.region: "<AWS::Region>",
        stack.account: "<AWS::AccountId>",
    }
    for finding, reason in findings.items():
        written = finding
        for token, name in pseudo.items():
            if Token.is_unresolved(token):
                written = written.replace(token, name)
        Validations.of(construct).acknowledge(
            Acknowledgment(id=f"AwsSolutions::AwsSolutions-{written}", reason=reason)
        )


def wildcards(
    construct: IConstruct, document: Mapping[str, Any], reasons: Mapping[str, str]
) -> dict[str, str]:
    """cdk-nag's findings in a policy document: each resource with a wildcard, and its reason.

    `reasons` are by the Sid of the statement. Raises KeyError if a statement has none.
    """
    found: dict[str, list[str]] = {}
    for statement in Stack.of(construct).resolve(document)["Statement"]:
        for resource in statement["Resource"] if statement["Effect"] == "Allow" else ():
            written = _written(resource)
            if "*" in written:
                found.setdefault(f"IAM5[Resource::{written}]", []).append(
                    f"{statement['Sid']}: {reasons[statement['Sid']]}"
                )
    return {finding: "; ".join(why) for finding, why in found.items()}


def _written(value: Any) -> str:  # noqa: ANN401 - a resolved value of a template
    """A resolved ARN as cdk-nag writes it: Fn::Join resolved, Ref in angle brackets."""
    if isinstance(value, dict) and "Fn::Join" in value:
        return "".join(_written(part) for part in value["Fn::Join"][1])
    if isinstance(value, dict) and "Ref" in value:
        return f"<{value['Ref']}>"
    return str(value)
