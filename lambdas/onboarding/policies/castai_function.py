"""What the role of CAST AI's own spot function may do."""

from __future__ import annotations

from lambdas.onboarding import names
from lambdas.onboarding.policies.document import Document, allow, document_of
from lambdas.onboarding.policies.scope import Scope


def castai_function_policy(scope: Scope) -> Document:
    """The inline policy of the role of CAST AI's own spot function: find an instance, write a log.

    CAST AI may deploy any code in the function, so the role allows nothing else.
    """
    log = f"log-group:/aws/lambda/{names.SPOT_FUNCTION}"
    return document_of(
        [
            allow("FindInstance", ["ec2:DescribeInstances"], ["*"]),  # takes no resource
            allow(
                "WriteOwnLog",
                ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
                [scope.regional("logs", log), scope.regional("logs", f"{log}:*")],
            ),
        ]
    )
