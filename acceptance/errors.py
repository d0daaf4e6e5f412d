"""The error of this package, and those that end a chapter."""

import httpx2
from botocore.exceptions import BotoCoreError, ClientError

from lambdas.common.errors import CastaiError
from sandbox.errors import SandboxError


class AcceptanceError(SandboxError):
    """The run cannot go on. The message says what to do."""


FAILURES = (SandboxError, CastaiError, ClientError, BotoCoreError, httpx2.HTTPError)
"""What a chapter or an undo may raise: our errors, and those of AWS, Kubernetes and CAST AI."""
