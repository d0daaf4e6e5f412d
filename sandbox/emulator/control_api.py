"""The sandbox's control API in the emulator: what no AWS API offers.

    POST /_sandbox/events            publish as an AWS service (PutEvents refuses ``aws.*``)
    GET  /_sandbox/clusters/{name}   URL of this EKS cluster's token review
    PUT  /_sandbox/clusters/{name}   set endpoint and CA for DescribeCluster
    GET  /_sandbox/deliveries        asynchronous invocations, their attempts and states
    GET  /_sandbox/workers           processes that run functions
    POST, GET, DELETE /_sandbox/faults   errors for the next calls of an operation
    PUT  /_sandbox/vpcs/{id}         set the account that owns the VPC and shares its subnets

Requests need the launcher's token in the header ``X-Sandbox-Token``.
"""

import base64
import contextvars
import json
import re
import secrets
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import guard
from asynchronous import AsyncInvocations
from faults import Faults

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

PREFIX = "/_sandbox/"
_CLUSTER = re.compile(r"/_sandbox/clusters/([A-Za-z0-9_-]+)")
_VPC = re.compile(r"/_sandbox/vpcs/(vpc-[0-9a-f]+)")


class RefusedError(Exception):
    """The request cannot be served. Has a status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ControlApi:
    """ASGI application in front of the emulator's."""

    def __init__(
        self,
        inner: Application,
        *,
        token: str,
        account: str,
        region: str,
        endpoint: str,
        invocations: AsyncInvocations,
        faults: Faults,
    ) -> None:
        self._inner = inner
        self._token = token
        self._account = account
        self._region = region
        self._endpoint = endpoint
        self._invocations = invocations
        self._faults = faults
        self._responses = guard.module("ministack.core.responses")
        self._events = guard.module("ministack.services.eventbridge")
        self._eks = guard.module("ministack.services.eks")
        self._runtime = guard.module("ministack.core.lambda_runtime")
        guard.function(self._events, "_pattern_event_view", "event")
        guard.function(self._events, "_dispatch_event", "event", "view")
        guard.function(self._eks, "_authenticate_token_review", "cluster_name", "account_id")
        guard.value(self._runtime, "_workers", dict)
        self._ec2 = guard.module("ministack.services.ec2")
        for store in ("_vpcs", "_subnets", "_tags"):
            guard.value(self._ec2, store, object)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve the control API's paths. Pass all other requests to the emulator."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._inner(scope, receive, send)
            return
        try:
            self._authenticate(scope)
            body = await _body(receive)
            # In a separate context: account and region must not leak into other requests.
            answer = contextvars.copy_context().run(self._route, scope, body)
            status = 200
        except RefusedError as refused:
            status, answer = refused.status, {"error": str(refused)}
        payload = json.dumps(answer).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(payload)),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": payload})

    def _authenticate(self, scope: Message) -> None:
        given = dict(scope["headers"]).get(b"x-sandbox-token", b"")
        if not secrets.compare_digest(given, self._token.encode()):
            raise RefusedError(401, "send the sandbox's token in X-Sandbox-Token")

    def _route(self, scope: Message, body: bytes) -> Any:
        with self._responses.request_scope(self._account, self._region):
            match scope["method"], scope["path"]:
                case "POST", "/_sandbox/events":
                    return self._publish(json.loads(body))
                case "GET", "/_sandbox/deliveries":
                    return {"deliveries": self._invocations.deliveries()}
                case method, "/_sandbox/faults":
                    return {"faults": self._change_faults(method, body)}
                case "GET", "/_sandbox/workers":
                    return {"workers": self._workers()}
                case "GET", path if match := _CLUSTER.fullmatch(path):
                    return self._review_url(match.group(1))
                case "PUT", path if match := _CLUSTER.fullmatch(path):
                    return self._place_cluster(match.group(1), json.loads(body))
                case "PUT", path if match := _VPC.fullmatch(path):
                    return self._share_vpc(match.group(1), json.loads(body)["owner"])
        raise RefusedError(404, f"no {scope['method']} {scope['path']}")

    def _change_faults(self, method: str, body: bytes) -> list[dict[str, Any]]:
        if method == "POST":
            self._faults.add(json.loads(body))
        elif method == "DELETE":
            self._faults.clear()
        return self._faults.left()

    def _publish(self, event: dict[str, Any]) -> dict[str, str]:
        """Publish on the default bus as the service ``source``. Returns the event's id."""
        event_id = event.get("id") or str(uuid.uuid4())
        record = {
            "EventId": event_id,
            "Source": event["source"],
            "DetailType": event["detail-type"],
            "Detail": json.dumps(event["detail"]),
            "EventBusName": "default",
            "Time": int(datetime.fromisoformat(event["time"]).timestamp()),
            "Resources": event.get("resources", []),
            "Account": self._account,
            "Region": self._region,
        }
        self._events._dispatch_event(record, self._events._pattern_event_view(record))
        return {"id": event_id}

    def _review_url(self, name: str) -> dict[str, str]:
        secret = self._cluster(name).get("_auth_token")
        if not secret:
            raise RefusedError(500, "the emulator has no TokenReview secret for this cluster")
        path = f"/_ministack/eks-auth/{self._account}/{self._region}/{name}/{secret}"
        return {"token_review_url": self._endpoint + path}

    def _place_cluster(self, name: str, place: dict[str, str]) -> dict[str, str]:
        """Set the endpoint and the CA that DescribeCluster returns."""
        cluster = self._cluster(name)
        cluster["endpoint"] = place["endpoint"]
        authority = base64.b64encode(place["certificate_authority"].encode()).decode()
        cluster["certificateAuthority"] = {"data": authority}
        return {"endpoint": place["endpoint"]}

    def _cluster(self, name: str) -> dict[str, Any]:
        cluster: dict[str, Any] | None = self._eks._clusters.get(name)
        if cluster is None:
            raise RefusedError(404, f"the emulator has no EKS cluster {name}")
        return cluster

    def _share_vpc(self, vpc: str, owner: str) -> dict[str, Any]:
        """Let another account own the VPC and its subnets. This account loses sight of their tags.

        Amazon VPC user guide, "Share your VPC subnets with other accounts".
        """
        if vpc not in self._ec2._vpcs:
            raise RefusedError(404, f"the emulator has no VPC {vpc}")
        subnets = [each for each in self._ec2._subnets.values() if each["VpcId"] == vpc]
        for record in (self._ec2._vpcs[vpc], *subnets):
            record["OwnerId"] = owner
            self._ec2._tags.pop(record.get("SubnetId", vpc), None)
        return {"owner": owner}

    def _workers(self) -> list[dict[str, Any]]:
        return [
            {"function": worker.func_name, "pid": worker._proc.pid, "busy": worker.in_use}
            for workers in list(self._runtime._workers.values())
            for worker in workers
            if worker._proc is not None
        ]


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
