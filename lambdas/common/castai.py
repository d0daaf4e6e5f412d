"""CAST AI's API: its calls, what its answers mean, and a client that retries.

Three layers, which the asynchronous spot handler and the synchronous custom resources share:

* calls: pure functions that return a `Call` (method, path, body);
* answers: `failure` turns a status code and a body into one of the errors below;
* clients: `Sender` sends one call. `CastaiApi`, of onboarding and agent, retries it until its
  deadline; the spot handler retries in notify_castai.py.

Errors::

    CastaiError
      PermanentError
        KeyRefusedError       401, 403: the key is wrong, or may not do this
        UnknownClusterError   404
        RequestRefusedError   400 and other 4xx: a retry changes nothing
        BadAnswerError        not JSON, or a field is missing: probably not CAST AI
      RetryableError
        UnavailableError      408, 425, 429, 5xx, time-out, no connection
        NotYetError           400 that passes: IAM propagates, the agent disconnects

The API key, and the access key that user mode hands over, are in no repr, log or exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx2
import msgspec

from lambdas.common import retry
from lambdas.common.clock import SYSTEM, Clock
from lambdas.common.errors import PermanentError, RetryableError
from lambdas.common.text import NOT_JSON, cut, masked, shown

DEFAULT_URL = "https://api.cast.ai"
CLUSTERS = "/v1/kubernetes/external-clusters"
REPORTS = "/v1/cost-reports/clusters"
INTERRUPTED = "interrupted"

REQUEST_TIMEOUT = 10.0  # s for one answer
CALL_TIME = 30.0  # s for one call, attempts and waits together
PROPAGATION_TIME = 90.0  # s: IAM usually propagates in 10-20 s, rarely beyond a minute

_ID = re.compile(r"[\w-]{1,100}", re.ASCII)  # a UUID
_PRINCIPAL = re.compile(r"arn:[a-z-]+:iam::\d{12}:(user|role)/[\w+=,.@/-]+")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SUCCESS, _REDIRECT, _BAD_REQUEST, _SERVER_FAULT = 200, 300, 400, 500
_REPEATABLE = (408, 425, 429)


class KeyRefusedError(PermanentError):
    """401 or 403: CAST AI does not accept the API key, or the key may not do this."""


class UnknownClusterError(PermanentError):
    """404: CAST AI has no such cluster in the organization of the key."""


class RequestRefusedError(PermanentError):
    """CAST AI understood the request and refused it; the same request is refused again."""


class BadAnswerError(PermanentError):
    """The answer is not one of CAST AI's API: the URL is wrong, or a proxy answered."""


class UnavailableError(RetryableError):
    """No answer, or one that may pass: 408, 425, 429, 5xx, time-out, no connection."""


class NotYetError(RetryableError):
    """Refused for a reason that passes: IAM has not propagated, the agent still disconnects."""


@dataclass(frozen=True)
class Call:
    """One request to CAST AI. `body` may hold an access key, so it is in no repr."""

    method: str
    path: str
    what: str
    """What is being done, for errors: `registering cluster prod`."""
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    wait_for: str | None = None
    """Set where a 400 passes with time: what is being waited for."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Strings of the body that no message may show, also where the server repeats them."""


class Registration(msgspec.Struct, frozen=True):
    """The answer to registering. Other fields are not used."""

    id: str


class ExternalCluster(msgspec.Struct, frozen=True, rename="camel"):
    """A cluster as CAST AI sees it.

    `status`: connecting, ready, warning, failed, deleting, deleted, ...
    `agent_status`: waiting-connection, online, non-responding, disconnected, disconnecting.
    """

    id: str
    status: str
    agent_status: str = "waiting-connection"
    name: str = ""


class EksDetails(msgspec.Struct, frozen=True, rename="camel"):
    """An EKS cluster's identity on AWS."""

    cluster_name: str = ""
    region: str = ""
    account_id: str = ""


class ListedCluster(msgspec.Struct, frozen=True):
    """A cluster in the list of the key's organization. `eks` is missing for another provider."""

    id: str
    eks: EksDetails | None = None


class _Listing(msgspec.Struct, frozen=True):
    items: tuple[ListedCluster, ...] = ()


class PricePair(msgspec.Struct, frozen=True, rename="camel"):
    """US dollars before and after a recommendation, usually as text."""

    price_before: str | float = ""
    price_after: str | float = ""


class Recommendation(msgspec.Struct, frozen=True, rename="camel"):
    """One of CAST AI's ways to run the same workloads."""

    hourly: PricePair | None = None
    monthly: PricePair | None = None
    savings_percentage: str | float = ""


class EstimatedSavings(msgspec.Struct, frozen=True, rename="camel"):
    """CAST AI's estimate. Its names of the recommendations are no closed list; among them are
    Layman, SpotInstances and SpotOnly.
    """

    recommendations: dict[str, Recommendation] = msgspec.field(default_factory=dict)
    last_updated_at: str = ""


class _Principal(msgspec.Struct, frozen=True):
    arn: str = ""


# Calls


def register_call(name: str, region: str, account: str) -> Call:
    """Make the cluster known; the same cluster gets the same id again."""
    eks = {"clusterName": name, "region": region, "accountId": account}
    return Call("POST", CLUSTERS, f"registering cluster {name}", {"name": name, "eks": eks})


def get_call(cluster_id: str) -> Call:
    """Read status and agentStatus."""
    return Call("GET", _path(cluster_id), f"reading cluster {cluster_id}")


def list_call() -> Call:
    """Read the clusters of the key's organization."""
    return Call("GET", CLUSTERS, "listing the clusters of the organization")


def savings_call(cluster_id: str) -> Call:
    """Read CAST AI's estimate of what the cluster could save."""
    path = f"{REPORTS}/{quote(cluster_id, safe='')}/estimated-savings"
    return Call("GET", path, f"reading the estimated savings of cluster {cluster_id}")


def principal_call(cluster_id: str, method: str = "GET") -> Call:
    """Read (GET), create (POST) or remove (DELETE) the principal that assumes the role."""
    what = f"asking for the principal that assumes the role of cluster {cluster_id}"
    return Call(method, _path(cluster_id, "assume-role-principal"), what)


def role_call(cluster_id: str, role_arn: str) -> Call:
    """Hand the cross-account role over."""
    return Call(
        "POST",
        _path(cluster_id),
        f"handing role {role_arn} over",
        {"eks": {"assumeRoleArn": role_arn}},
        wait_for="IAM to make the role usable everywhere; else check its trust policy and policies",
    )


def key_call(cluster_id: str, access_key_id: str, secret_access_key: str) -> Call:
    """Hand the user's access key over: a JSON document inside the JSON."""
    credentials = {"accessKeyId": access_key_id, "secretAccessKey": secret_access_key}
    return Call(
        "POST",
        _path(cluster_id),
        f"handing access key {access_key_id} over",
        {"credentials": msgspec.json.encode(credentials).decode()},
        wait_for="IAM to make the access key usable everywhere; else check the user's policies",
        secrets=(secret_access_key,),
    )


def event_call(cluster_id: str, event_type: str, node_id: str, provider_id: str) -> Call:
    """Report an event of a node.

    `node_id` is the node's label `provisioner.cast.ai/node-id`, empty for a node that CAST AI did
    not create; `provider_id` is its `spec.providerID`.
    """
    body = {"event_type": event_type, "node_id": node_id, "provider_id": provider_id}
    return Call("POST", _path(cluster_id, "events"), f"reporting {event_type} {provider_id}", body)


def disconnect_call(cluster_id: str) -> Call:
    """Disconnect the cluster. Its nodes and CAST AI's objects in Kubernetes stay."""
    body = {"deleteProvisionedNodes": False, "keepKubernetesResources": True}
    return Call("POST", _path(cluster_id, "disconnect"), f"disconnecting {cluster_id}", body)


def delete_call(cluster_id: str) -> Call:
    """Remove a disconnected cluster from CAST AI."""
    waiting = "CAST AI to finish disconnecting the cluster"
    return Call("DELETE", _path(cluster_id), f"deleting {cluster_id}", wait_for=waiting)


def manifest_call() -> Call:
    """CAST AI's own manifest of the agent, with the API key rendered in."""
    return Call("GET", "/v1/agent.yaml?provider=eks", "fetching the agent's manifest")


def headers(call: Call, api_key: str) -> dict[str, str]:
    """The headers that authenticate a call. The manifest's endpoint also takes a token."""
    if call == manifest_call():
        return {"X-API-Key": api_key, "Authorization": f"Token {api_key}"}
    return {"X-API-Key": api_key}


def _path(cluster_id: str, *more: str) -> str:
    return "/".join((CLUSTERS, quote(cluster_id, safe=""), *more))


# Answers

_ADVICE: dict[int, tuple[type[PermanentError], str]] = {
    401: (
        KeyRefusedError,
        "Give a valid CAST AI API key (current, complete, of this organization and API URL)",
    ),
    403: (KeyRefusedError, "Give an API key with full access, this one may not do it"),
    404: (
        UnknownClusterError,
        "Check the CAST AI cluster id, and the API URL (each region of CAST AI has its own)",
    ),
}


def failure(
    call: Call, response: httpx2.Response, api_key: str
) -> PermanentError | RetryableError | None:
    """The error for an answer; None for success.

    Both clients use this, the synchronous one below and the spot handler's. The error quotes the
    server's own message, because it often names the cause: shortened, without the call's secrets
    and the API key. A RetryableError carries the answer's Retry-After.
    """
    status = response.status_code
    if _SUCCESS <= status < _REDIRECT:
        return None
    said = _said(response.content, (*call.secrets, api_key))
    error = _meaning(call, status, f"{call.what} was answered with {status}{said}")
    if isinstance(error, RetryableError):
        error.retry_after = retry.seconds_of(response.headers.get("retry-after"))
    return error


def _meaning(call: Call, status: int, answered: str) -> PermanentError | RetryableError:
    if status in _ADVICE:
        kind, advice = _ADVICE[status]
        return kind(f"{advice}: {answered}.")
    if status == _BAD_REQUEST and call.wait_for:
        return NotYetError(f"Wait for {call.wait_for}: {answered}.")
    if status >= _SERVER_FAULT or status in _REPEATABLE:
        return UnavailableError(f"Try again later, CAST AI's API is unavailable: {answered}.")
    return RequestRefusedError(f"Correct what CAST AI names: {answered}.")


class _Refusal(msgspec.Struct):
    message: str = ""


def _said(body: bytes, secrets: Iterable[str]) -> str:
    """The server's message, as ` (message)`, or nothing where there is none."""
    try:
        message = msgspec.json.decode(body, type=_Refusal).message
    except NOT_JSON:
        return ""  # an HTML page of some proxy: its text does not help
    if not message:
        return ""
    for secret in secrets:
        message = message.replace(secret, "***")
    return f" ({cut(message)})"


def unreachable(call: Call, url: str, error: Exception) -> UnavailableError:
    """The error for a request without an answer."""
    kind = "did not answer in time" if isinstance(error, httpx2.TimeoutException) else "failed"
    return UnavailableError(
        f"Check that {urlsplit(url).netloc} can be reached (VPC, NAT, proxy): "
        f"{call.what} {kind} ({type(error).__name__})."
    )


def checked_url(url: str) -> str:
    """The API's URL without its trailing slash.

    Raises PermanentError for one that is not a URL or would send the key unencrypted to another
    machine.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # half of an IPv6 address, or a port that is no number
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PermanentError(f"Give the API's URL as {DEFAULT_URL}: {shown(url)} is none.")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise PermanentError(
            f"Use https: {cut(masked(parts.hostname))} would get the API key unencrypted."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise PermanentError(f"Give the API's URL as {DEFAULT_URL}, without user, query, fragment.")
    return url.rstrip("/")


def checked_key(api_key: str) -> str:
    """The API key as it goes into a header.

    Raises PermanentError, without the key in it, for a key that cannot be a header.
    """
    key = api_key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise PermanentError(
            "Put CAST AI's API key, and nothing else, into the secret: "
            f"{'it is empty' if not key else 'it has characters that a header cannot have'}."
        )
    return key


# Clients

_Answer = TypeVar("_Answer")


class Sender:
    """Sends one call, synchronously or asynchronously, and raises this module's errors.

    Both ways build the request, mask the secrets and read the answer by the same code.
    """

    def __init__(self, api_key: str, url: str) -> None:
        """Raises PermanentError for an empty or malformed key and for a bad URL."""
        self.url = checked_url(url)
        self._key = checked_key(api_key)

    def __repr__(self) -> str:
        """Without the key."""
        return f"{type(self).__name__}(url={self.url!r})"

    def send(self, http: httpx2.Client, call: Call, *, timeout: float) -> httpx2.Response:
        """Send one request; returns the successful answer. `timeout` in seconds."""
        with self._reached(call):
            response = http.request(**self._request(call), timeout=timeout)
        return self._successful(call, response)

    async def send_async(self, http: httpx2.AsyncClient, call: Call) -> httpx2.Response:
        """As `send`, within REQUEST_TIMEOUT."""
        with self._reached(call):
            response = await http.request(**self._request(call), timeout=REQUEST_TIMEOUT)
        return self._successful(call, response)

    def _request(self, call: Call) -> dict[str, Any]:
        return {
            "method": call.method,
            "url": self.url + call.path,
            "json": call.body,
            "headers": headers(call, self._key),
        }

    @contextmanager
    def _reached(self, call: Call) -> Iterator[None]:
        try:
            yield
        except httpx2.RequestError as error:  # no answer, or a compressed one that is damaged
            raise unreachable(call, self.url, error) from error

    def _successful(self, call: Call, response: httpx2.Response) -> httpx2.Response:
        failed = failure(call, response, self._key)
        if failed is not None:
            raise failed
        return response


class CastaiApi:
    """Sends calls, and retries them where a retry can help.

    `deadline` (epoch seconds) is the end of the caller's time, usually that of the Lambda
    invocation: no call is made or waited for after it. Each call also has a time limit of its own.
    All calls are safe to repeat: registering returns the same id, the others set a state.
    """

    def __init__(
        self,
        api_key: str,
        url: str = DEFAULT_URL,
        *,
        deadline: float = float("inf"),
        clock: Clock = SYSTEM,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Connects on first use.

        Raises PermanentError for an empty or malformed key and for a bad URL.
        """
        self._sender = Sender(api_key, url)
        self._deadline = deadline
        self._clock = clock
        self._http = httpx2.Client(transport=transport)

    def __repr__(self) -> str:
        """Without the key."""
        return f"{type(self).__name__}(url={self.url!r})"

    @property
    def url(self) -> str:
        """The API's URL, without a trailing slash."""
        return self._sender.url

    def __enter__(self) -> Self:
        """Use as a context manager to close connections."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close connections."""
        self.close()

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def register(self, name: str, region: str, account: str) -> str:
        """Register the cluster and return CAST AI's id of it; a second time the same id."""
        call = register_call(name, region, account)
        cluster_id = self._decoded(call, Registration).id
        if not _ID.fullmatch(cluster_id):
            raise BadAnswerError(f"{_NOT_CASTAI} {call.what} gave no id: {shown(cluster_id)}.")
        return cluster_id

    def get(self, cluster_id: str) -> ExternalCluster:
        """The cluster's status and its agent's, as CAST AI sees them."""
        return self._decoded(get_call(cluster_id), ExternalCluster)

    def clusters(self) -> tuple[ListedCluster, ...]:
        """The clusters of the key's organization."""
        return self._decoded(list_call(), _Listing).items

    def estimated_savings(self, cluster_id: str) -> EstimatedSavings:
        """CAST AI's own estimate for the cluster. Raises UnknownClusterError where it has none."""
        return self._decoded(savings_call(cluster_id), EstimatedSavings)

    def assume_role_principal(self, cluster_id: str) -> str:
        """ARN of the principal in CAST AI's account that may assume the role; created where
        missing.

        Raises BadAnswerError as `existing_principal` does.
        """
        return self.existing_principal(cluster_id) or self._principal(cluster_id, "POST")

    def existing_principal(self, cluster_id: str) -> str:
        """The ARN of `assume_role_principal`, empty where there is none.

        Raises BadAnswerError for anything but an IAM user's or role's ARN: it goes into a trust
        policy, where `*` would open the account.
        """
        try:
            return self._principal(cluster_id, "GET")
        except UnknownClusterError:
            return ""  # none made yet; if the cluster itself is unknown, POST says so

    def _principal(self, cluster_id: str, method: str) -> str:
        arn = self._decoded(principal_call(cluster_id, method), _Principal).arn
        if method == "GET" and not arn:
            return ""
        if not _PRINCIPAL.fullmatch(arn):
            raise BadAnswerError(
                f"{_NOT_CASTAI} the principal of {cluster_id} is not the ARN of an IAM user or "
                f"role: {shown(arn)}."
            )
        return arn

    def delete_principal(self, cluster_id: str) -> None:
        """Remove the principal of assume_role_principal. It is no error where there is none."""
        self._gone(principal_call(cluster_id, "DELETE"))

    def hand_over_role(
        self, cluster_id: str, role_arn: str, *, within: float = PROPAGATION_TIME
    ) -> None:
        """Give CAST AI the cross-account role, waiting while IAM propagates."""
        self.send(role_call(cluster_id, role_arn), within=within)

    def hand_over_key(
        self,
        cluster_id: str,
        access_key_id: str,
        secret_access_key: str,
        *,
        within: float = PROPAGATION_TIME,
    ) -> None:
        """Give CAST AI the user's access key, waiting while IAM propagates."""
        self.send(key_call(cluster_id, access_key_id, secret_access_key), within=within)

    def disconnect(self, cluster_id: str) -> None:
        """Disconnect the cluster. It is no error where CAST AI does not know it."""
        self._gone(disconnect_call(cluster_id))

    def delete(self, cluster_id: str) -> None:
        """Remove the disconnected cluster from CAST AI. It is no error where there is none."""
        self._gone(delete_call(cluster_id), within=PROPAGATION_TIME)

    def agent_manifest(self) -> str:
        """CAST AI's manifest of the agent, YAML. It contains the API key: never show it."""
        return self.send(manifest_call()).content.decode(errors="replace")

    def send(self, call: Call, *, within: float = CALL_TIME) -> httpx2.Response:
        """Send one call, with retries; returns the successful answer.

        Raises the errors of this module; a RetryableError when its time or the deadline is over.
        """
        end = min(self._clock.now() + within, self._deadline)
        return retry.call(
            lambda: self._once(call, end), until=end, clock=self._clock, backoff=retry.SLOW
        )

    def _once(self, call: Call, end: float) -> httpx2.Response:
        left = end - self._clock.now()
        return self._sender.send(self._http, call, timeout=max(0.1, min(REQUEST_TIMEOUT, left)))

    def _decoded(self, call: Call, kind: type[_Answer]) -> _Answer:
        response = self.send(call)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except NOT_JSON as error:
            raise BadAnswerError(f"{_NOT_CASTAI} {call.what}: {error}.") from error

    def _gone(self, call: Call, *, within: float = CALL_TIME) -> None:
        try:
            self.send(call, within=within)
        except UnknownClusterError:
            return


_NOT_CASTAI = "Check the API's URL and any proxy before it: the answer is not CAST AI's."
