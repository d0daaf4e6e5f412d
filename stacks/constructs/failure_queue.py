"""The queue of notices that were not handled."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks.constructs.nag import acknowledge


class FailureQueue(sqs.Queue):
    """Encrypted, TLS only. It keeps a notice for 14 days, the maximum of SQS."""

    def __init__(self, scope: Construct, id: str, *, name: str) -> None:  # noqa: A002 - CDK's own name for it
        super().__init__(
            scope,
            id,
            queue_name=name,
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=Duration.days(14),
        )
        acknowledge(
            self,
            {"SQS3": "It is itself the dead-letter queue of the rules and of the invocations."},
        )
