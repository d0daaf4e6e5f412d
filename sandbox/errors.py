"""What can go wrong around the sandbox. The first line says what to do."""


class SandboxError(Exception):
    """The sandbox cannot do what it was asked."""
