"""The queue of notices that were given up."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks.constructs.nag import acknowledge


class FailureQueue(sqs.Queue):
    """Encrypted, TLS only; keeps a notice for SQS's maximum, so that a holiday does not lose it."""

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
            {"SQS3": "It is the dead-letter queue, of the rules and of the invocations."},
        )
