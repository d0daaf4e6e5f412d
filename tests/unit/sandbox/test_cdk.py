"""What an error of the CDK command shows."""

from __future__ import annotations

from sandbox import cdk

DEPLOY = """\
stack | 1/3 | CREATE_IN_PROGRESS | AWS::IAM::Role
Failed resources:
stack | CREATE_FAILED | Custom::Thing | Error: Remove what is in the way
"""


def test_of_a_failed_deployment_only_the_summary_is_shown() -> None:
    assert cdk.essence(DEPLOY).splitlines() == [
        "Failed resources:",
        "stack | CREATE_FAILED | Custom::Thing | Error: Remove what is in the way",
    ]


def test_of_another_failure_the_last_lines_are_shown() -> None:
    output = "\n".join(f"line {number}" for number in range(100))
    assert cdk.essence(output).splitlines() == [f"line {number}" for number in range(70, 100)]
