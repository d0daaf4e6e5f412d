"""The sandbox's exception. The first line of its message says what to do."""


class SandboxError(Exception):
    """The sandbox cannot do what was requested."""
