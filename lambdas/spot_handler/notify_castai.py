"""Report the interruption to CAST AI, beside the drain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import httpx2

from lambdas.common import api_key, aws, castai, retry
from lambdas.common.clock import Clock
from lambdas.common.errors import CastaiError, ClusterForbiddenError
from lambdas.common.names import AGENT, AGENT_CLUSTER_ID, AGENT_METADATA, CLUSTER_ID_TAG
from lambdas.spot_handler.instances import Instance
from lambdas.spot_handler.node_api import NodeApi
from lambdas.spot_handler.objects import Node
from lambdas.spot_handler.result import CastaiReport, CastaiState

if TYPE_CHECKING:
    import botocore.session
    from mypy_boto3_secretsmanager import SecretsManagerClient

NODE_ID_LABEL = "provisioner.cast.ai/node-id"


@dataclass(frozen=True)
class CastAi:
    """CAST AI's API for one invocation."""

    url: str
    read_key: Callable[[], str]
    """Returns the API key. It may block, and is called in a thread."""
    clock: Clock
    transport: httpx2.AsyncBaseTransport | None = None
    """For tests."""

    async def interrupted(
        self, api: NodeApi, instance: Instance, node: Node, report: CastaiReport, *, until: float
    ) -> None:
        """Post the event, with retries until `until` (epoch seconds).

        Never raises a CastaiError: the report has what failed, and the drain does not depend on it.
        """
        try:
            cluster_id = instance.tags.get(CLUSTER_ID_TAG) or await self._agents_id(api, until)
            if not cluster_id:
                report.state = CastaiState.NO_CLUSTER_ID
                report.reason = (
                    f"neither the tag {CLUSTER_ID_TAG} of the instance nor the ConfigMap "
                    f"{AGENT}/{AGENT_METADATA} names CAST AI's cluster id"
                )
                return
            call = castai.event_call(
                cluster_id,
                castai.INTERRUPTED,
                (node.metadata.labels or {}).get(NODE_ID_LABEL, ""),
                node.spec.provider_id,
            )
            await self._send(call, report, until)
            report.state, report.reason = CastaiState.REPORTED, ""
        except CastaiError as error:
            report.reason = str(error)

    async def _agents_id(self, api: NodeApi, until: float) -> str:
        """The cluster id that the agent uses; empty without an agent, and without the right to read
        it.
        """
        try:
            data = await retry.call_async(
                lambda: api.config_map(AGENT, AGENT_METADATA),
                until=until,
                clock=self.clock,
            )
        except ClusterForbiddenError:
            return ""
        return (data or {}).get(AGENT_CLUSTER_ID, "")

    async def _send(self, call: castai.Call, report: CastaiReport, until: float) -> None:
        sender = castai.Sender(await asyncio.to_thread(self.read_key), self.url)
        async with httpx2.AsyncClient(transport=self.transport) as http:

            async def once() -> None:
                try:
                    await sender.send_async(http, call)
                except CastaiError as error:
                    report.reason = str(error)  # kept: the drain may end between two tries
                    raise

            await retry.call_async(once, until=until, clock=self.clock)


def key_reader(session: botocore.session.Session, secret: str) -> Callable[[], str]:
    """Reads the API key from a Secrets Manager secret (name or ARN) when it is called."""

    def read() -> str:
        client = session.create_client("secretsmanager", config=aws.CONFIG)
        return api_key.read(cast("SecretsManagerClient", client), secret)

    return read
