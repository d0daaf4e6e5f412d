"""cdk-nag findings that stay, each with its reason."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Stack, Token, Validations
from constructs import IConstruct


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
