"""Types of properties that more than one struct has: a pattern, and a description for the error."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from lambdas.common.names import CLUSTER_NAME_PATTERN

ClusterName = Annotated[str, Meta(pattern=CLUSTER_NAME_PATTERN, title="an EKS cluster name")]
SecretId = Annotated[
    str,
    Meta(
        pattern=r"^(arn:[a-z-]+:secretsmanager:[a-z0-9-]+:\d{12}:secret:.+|[\w/+=.@-]{1,512})$",
        title="the name or ARN of a Secrets Manager secret",
    ),
]
SecurityGroupId = Annotated[
    str, Meta(pattern=r"^sg-([0-9a-f]{8}|[0-9a-f]{17})$", title="a security group id")
]
# https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html
TagKey = Annotated[str, Meta(pattern=r"^(?!aws:)[\w .:/=+@-]{1,128}$", title="a tag key")]
TagValue = Annotated[str, Meta(pattern=r"^[\w .:/=+@-]{0,256}$", title="a tag value")]
