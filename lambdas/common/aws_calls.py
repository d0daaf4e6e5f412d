"""Calls to AWS: retried for a limited time, and named in errors as IAM names them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, ParamSpec, TypeVar

from lambdas.common import aws, retry
from lambdas.common.clock import Clock
from lambdas.common.errors import AwsRefusedError, RetryableError

P = ParamSpec("P")
T = TypeVar("T")

MISSING: Final = frozenset(
    {
        "InvalidGroup.NotFound",  # EC2
        "InvalidPermission.NotFound",  # EC2: a rule of a security group
        "NoSuchEntity",  # IAM
        "ResourceNotFoundException",  # EKS, Lambda, Secrets Manager
    }
)
"""Error codes with which a service says that a thing does not exist."""

# The field that continues a listing, in request and answer: of IAM, of EC2, of EKS.
_TOKENS: Final = ("Marker", "NextToken", "nextToken")


def iam_action(method: Callable[..., object]) -> str:
    """The name that IAM has for a method of a client, such as `iam:TagPolicy`."""
    client: Any = method.__self__  # type: ignore[attr-defined]
    name: Any = method.__name__
    meta = client.meta
    return f"{meta.service_model.signing_name}:{meta.method_to_api_mapping[name]}"


@dataclass(frozen=True)
class AwsCalls:
    """Calls to AWS, retried until one moment.

    Each raises AwsRefusedError, or AwsUnavailableError after that moment.
    """

    clock: Clock
    until: Callable[[], float]
    """Epoch seconds after which a call that begins now is not retried."""
    retried: Collection[str] = ()
    """Further error codes after which the same call may succeed."""

    def retrying(self, codes: Collection[str]) -> AwsCalls:
        """The same calls, retried also after these error codes."""
        return replace(self, retried=codes)

    def call(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `method`, a method of a client."""

        def once() -> T:
            with aws.translated_errors(iam_action(method)):
                return method(*args, **kwargs)

        return self.run(once)

    def find(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """As `call`; None where the thing does not exist."""
        try:
            return self.call(method, *args, **kwargs)
        except AwsRefusedError as error:
            if error.code in MISSING:
                return None
            raise

    def pages(self, method: Callable[..., Any], /, **arguments: object) -> Iterator[Any]:
        """Every page of a listing. A page may be empty and not the last.

        Each page is retried by itself. The SDK's paginator ends with its first error, and a new one
        begins with the first page.
        """
        while True:
            page = self.call(method, **arguments)
            yield page
            token = next((name for name in _TOKENS if page.get(name)), None)
            if token is None:
                return
            arguments[token] = page[token]

    def items(self, method: Callable[..., Any], key: str, /, **arguments: object) -> list[Any]:
        """The items under `key` of every page."""
        return [item for page in self.pages(method, **arguments) for item in page[key]]

    def find_items(self, method: Callable[..., Any], key: str, /, **arguments: object) -> list[Any]:
        """As `items`; none where the thing that the listing is about does not exist."""
        try:
            return self.items(method, key, **arguments)
        except AwsRefusedError as error:
            if error.code in MISSING:
                return []
            raise

    def run(self, action: Callable[[], T]) -> T:
        """`action`, which raises this project's errors, with the same retries."""

        def once() -> T:
            try:
                return action()
            except AwsRefusedError as error:
                if error.code in self.retried:
                    raise _NotYetError(error) from error
                raise

        try:
            return retry.call(once, until=self.until(), clock=self.clock)
        except _NotYetError as error:
            raise error.refusal from error


class _NotYetError(RetryableError):
    """AWS refuses a call that it accepts some seconds later: what was just created is not known
    everywhere yet.
    """

    def __init__(self, refusal: AwsRefusedError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
