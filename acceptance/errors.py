"""The error of this package."""

from sandbox.errors import SandboxError


class AcceptanceError(SandboxError):
    """The run cannot go on. The message says what to do."""
