"""Collects refused reads, so that a person sees every missing right at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from lambdas.common.errors import AwsRefusedError, ClusterForbiddenError, PermanentError

T = TypeVar("T")

POLICY_COMMAND: Final = "castai-eks policy savings"
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})


class MissingRightsError(PermanentError):
    """Reads that AWS or the cluster refused, a line for each."""


class Rights:
    """The reads of one estimate."""

    def __init__(self) -> None:
        self._refusals: list[str] = []

    def ask(self, read: Callable[[], T], otherwise: T) -> T:
        """What `read` gives; `otherwise` where the right is missing, which is noted.

        Raises every other error of `read`.
        """
        try:
            return read()
        except AwsRefusedError as error:
            if error.code not in _DENIED:
                raise
            self._refusals.append(str(error))
        except ClusterForbiddenError as error:
            self._refusals.append(str(error))
        return otherwise

    def check(self) -> None:
        """Raise MissingRightsError if a read was refused."""
        if self._refusals:
            lines = "\n".join(f"  {each}" for each in self._refusals)
            raise MissingRightsError(
                f"Give this identity the rights that `{POLICY_COMMAND}` prints:\n{lines}"
            )
