"""Collects refused reads, so that a person sees every missing right at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from lambdas.common.errors import AwsRefusedError, ClusterForbiddenError, PermanentError

_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
POLICY_COMMAND: Final = "castai-eks policy savings"


class MissingRightsError(PermanentError):
    """Reads that AWS or the cluster refused, a line for each."""


class Rights:
    """The reads of one estimate."""

    def __init__(self) -> None:
        self._refusals: list[str] = []

    @contextmanager
    def read(self) -> Iterator[None]:
        """Note a refusal for want of a right; every other error is raised."""
        try:
            yield
        except AwsRefusedError as error:
            if error.code not in _DENIED:
                raise
            self._refusals.append(str(error))
        except ClusterForbiddenError as error:
            self._refusals.append(str(error))

    def check(self) -> None:
        """Raise MissingRightsError if a read was refused."""
        if self._refusals:
            lines = "\n".join(f"  {each}" for each in self._refusals)
            raise MissingRightsError(
                f"Give this identity the rights that `{POLICY_COMMAND}` prints:\n{lines}"
            )
