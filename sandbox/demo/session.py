"""What the chapters of the demo share: one sandbox, one CDK app, one console."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2
from lightkube import Client

from sandbox import kubernetes, lifecycle
from sandbox.aws import Aws
from sandbox.castai_api.reporter import reporting
from sandbox.cdk import Cdk
from sandbox.demo import inventory
from sandbox.demo.console import View
from sandbox.demo.inventory import Thing
from sandbox.state import API_KEY_SECRET, CastAi, Node, State

KEEPS_THE_KEY = "castai.json"  # the simulated CAST AI's own file; only its owner reads it


@dataclass
class DemoSession:
    """A context manager; on exit the connections are closed; the sandbox keeps running."""

    folder: Path
    view: View
    chosen: dict[str, str] = field(default_factory=dict)
    """Settings that add to those of the demo, or replace them."""
    before: frozenset[Thing] = frozenset()
    """What was there when the account was ready, before anything of ours."""
    result: dict[str, Any] = field(default_factory=dict)
    """What the spot handler answered."""
    _state: State | None = None
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "DemoSession":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    @property
    def state(self) -> State:
        if self._state is None:
            self._state = lifecycle.up(self.folder, self.view.step, spot_handler_rights=False)
        return self._state

    @cached_property
    def aws(self) -> Aws:
        return Aws(self.state)

    @cached_property
    def cdk(self) -> Cdk:
        return Cdk(self.aws, self.folder)

    @cached_property
    def cluster(self) -> Client:
        """The cluster, as its administrator."""
        return self._open.enter_context(kubernetes.administrator(self.state))

    @property
    def castai(self) -> CastAi:
        castai = self.state.castai
        assert castai is not None  # noqa: S101 - `up` starts it or raises
        return castai

    @property
    def settings(self) -> dict[str, str]:
        """What users write into cdk.json for all three stacks."""
        cluster = self.state.cluster
        return {
            "castai:agentClusters": cluster,
            "castai:onboardClusters": cluster,
            "castai:onboardMode": "cross-account-role",
            "castai:clusters": cluster,
            "castai:apiKeySecret": API_KEY_SECRET,
            "castai:apiUrl": self.castai.url,
            **self.chosen,
        }

    @property
    def spot(self) -> Node:
        """The spot instance that EC2 will take."""
        return next(node for node in self.state.nodes if node.spot)

    def play_the_agent(self) -> None:
        """The pods of the simulated cluster run nothing: from here on the agent's reports come."""
        self._open.enter_context(reporting(self.cluster))

    def inventory(self) -> frozenset[Thing]:
        """What there is now, in the account and in the cluster."""
        account = inventory.account(self.aws, self.state.cluster)
        return frozenset(account | inventory.cluster(self.cluster))

    def received(self) -> dict[str, Any]:
        """What CAST AI knows of the cluster, and every call it got; secrets as fingerprints."""
        shown: dict[str, Any] = httpx2.get(f"{self.castai.url}/_sandbox/log").json()
        return shown

    def api_key(self) -> str:
        """CAST AI's API key: to look where it must not be."""
        return self.aws.secrets.get_secret_value(SecretId=API_KEY_SECRET)["SecretString"]

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Everything that people or tools get to see, with its place: no secret may be in it."""
        yield "what the demo printed", "\n".join(self.view.printed).encode()
        yield "what CAST AI shows", httpx2.get(f"{self.castai.url}/_sandbox/log").content
        for file in self.folder.rglob("*"):
            if file.is_file() and file.name != KEEPS_THE_KEY:
                yield str(file), file.read_bytes()
        for group in self.aws.logs.describe_log_groups()["logGroups"]:
            name = group["logGroupName"]
            events = self.aws.logs.get_paginator("filter_log_events").paginate(logGroupName=name)
            lines = [event["message"] for page in events for event in page["events"]]
            yield f"log group {name}", "\n".join(lines).encode()
