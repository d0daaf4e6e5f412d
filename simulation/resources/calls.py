"""The calls of a function, the faults of calls, and the end of a function that is killed.

Every call of the shipped code to AWS, to a cluster and to CAST AI goes through one `Gate`. A fault
names calls by service and number; its kind is a row of `KINDS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeVar

import httpx2
import msgspec
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

T = TypeVar("T")

CALL_SECONDS: Final = 0.05  # s that a call takes
SERVICES: Final = ("iam", "ec2", "eks", "secretsmanager", "kubernetes", "castai")
ANY: Final = "any"
READS: Final = ("get_", "list_", "describe_")
"""How the names of methods begin that change nothing in AWS."""


class KilledError(BaseException):
    """The function is killed: none of its code runs any more. No handler of errors sees it."""


@dataclass(frozen=True)
class Kind:
    """How a call fails."""

    after: bool = False
    """After its effect: only the answer is lost."""
    code: str = ""
    """AWS's error code; empty: no answer at all."""
    status: int = 0
    """HTTP status."""
    seconds: float = 0.0
    """How long it takes."""
    kills: bool = False
    answers: bool = False
    """The call is answered as usual, after `seconds`."""


KINDS: Final = {
    "throttled": Kind(code="ThrottlingException", status=429),
    "failing": Kind(code="InternalFailure", status=500),
    "failing after its effect": Kind(code="InternalFailure", status=500, after=True),
    "refused": Kind(code="AccessDenied", status=403),
    "not reached": Kind(seconds=3.0),
    "answer lost": Kind(after=True, seconds=10.0),
    "slow": Kind(seconds=8.0, answers=True),
    "killed": Kind(kills=True),
    "killed after its effect": Kind(kills=True, after=True),
}
"""The kinds of faults. The next kind is a row."""


class Fault(msgspec.Struct, frozen=True):
    """Calls of one service that fail."""

    kind: str
    service: str = ANY
    writes: bool = True
    """Only calls that write are counted."""
    at: int = 0
    """Number of the first call, from 0."""
    times: int = 1
    """How many calls fail in a row."""

    def __str__(self) -> str:
        """The fault in a timeline."""
        which = f"{'write' if self.writes else 'call'} {self.at}"
        more = f" and {self.times - 1} more" if self.times > 1 else ""
        return f"{self.kind}: {which}{more} of {self.service}"


@dataclass
class Gate:
    """What every call of one function goes through. `pass_time` lets virtual seconds pass."""

    pass_time: Callable[[float], None]
    faults: tuple[Fault, ...] = ()
    log: list[str] = field(default_factory=list)
    """A line for each fault that was met."""
    met: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    is_dead: bool = False
    _seen: Counter[tuple[str, bool]] = field(default_factory=Counter)

    def begin(self, faults: tuple[Fault, ...]) -> None:
        """A new invocation."""
        self.faults, self.is_dead, self.calls = faults, False, 0
        self._seen.clear()

    def pass_through(
        self,
        service: str,
        name: str,
        act: Callable[[], T],
        fail: Callable[[Kind], T],
        *,
        writes: bool,
    ) -> T:
        """Make the call, or let it fail. `fail` returns or raises the failure of a kind."""
        if self.is_dead:
            raise KilledError
        self.calls += 1
        self.pass_time(CALL_SECONDS)
        fault = self._fault(service, writes=writes)
        if fault is None:
            return act()
        kind = KINDS[fault.kind]
        self.met[fault.kind] += 1
        self.log.append(f"{service} {name}: {fault.kind}")
        self.pass_time(kind.seconds)
        if kind.after or kind.answers:
            answer = act()
            if kind.answers:
                return answer
        if kind.kills:
            self.is_dead = True
            raise KilledError
        return fail(kind)

    def _fault(self, service: str, *, writes: bool) -> Fault | None:
        numbers: dict[tuple[str, bool], int] = {}
        for key in ((service, False), (ANY, False), *(((service, True), (ANY, True)) * writes)):
            numbers[key] = self._seen[key]
            self._seen[key] += 1
        for fault in self.faults:
            number = numbers.get((fault.service, fault.writes))
            if number is not None and fault.at <= number < fault.at + fault.times:
                return fault
        return None


class GatedClient:
    """A client of AWS behind a gate."""

    def __init__(self, client: Any, service: str, meta: Any, gate: Gate) -> None:
        self._client, self._service, self._gate = client, service, gate
        self.meta = meta

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The method of an operation."""
        method = getattr(self._client, name)

        def call(**arguments: Any) -> Any:
            return self._gate.pass_through(
                self._service,
                name,
                lambda: method(**arguments),
                lambda kind: _raise_aws(self._service, name, kind),
                writes=not name.startswith(READS),
            )

        call.__name__ = name
        call.__self__ = self  # type: ignore[attr-defined]
        return call


def _raise_aws(service: str, name: str, kind: Kind) -> NoReturn:
    endpoint = f"https://{service}.invalid"
    if kind.code:
        code = kind.code
        if code == "AccessDenied":
            code = {"ec2": "UnauthorizedOperation", "iam": code}.get(service, f"{code}Exception")
        raise ClientError(
            {
                "Error": {"Code": code, "Message": "injected"},
                "ResponseMetadata": {"HTTPStatusCode": kind.status},  # type: ignore[typeddict-item]
            },
            name,
        )
    if kind.after:
        raise ReadTimeoutError(endpoint_url=endpoint)
    raise EndpointConnectionError(endpoint_url=endpoint)


class GatedTransport(httpx2.BaseTransport):
    """An HTTP transport behind a gate; `send` makes the request."""

    def __init__(
        self, service: str, send: Callable[[httpx2.Request], httpx2.Response], gate: Gate
    ) -> None:
        self._service, self._send, self._gate = service, send, gate

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer the request."""
        return self._gate.pass_through(
            self._service,
            f"{request.method} {request.url.path}",
            lambda: self._send(request),
            lambda kind: _failed_request(request, kind),
            writes=request.method != "GET" and b"dryRun" not in request.url.query,
        )


def _failed_request(request: httpx2.Request, kind: Kind) -> httpx2.Response:
    if kind.status:
        return httpx2.Response(kind.status, json={"message": "injected"}, request=request)
    if kind.after:
        raise httpx2.ReadTimeout("", request=request)
    raise httpx2.ConnectError("All connection attempts failed", request=request)
