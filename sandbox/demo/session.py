"""What the chapters of the demo share: one sandbox, one CDK app, one console."""

import json
import os
import subprocess
import sys
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
from sandbox.cdk import Cdk
from sandbox.demo import inventory
from sandbox.demo.console import View
from sandbox.demo.inventory import Thing
from sandbox.errors import SandboxError
from sandbox.state import API_KEY_SECRET, CastAi, Node, State

KEY_FILE = "castai.json"  # the simulated CAST AI's state file; only its owner can read it


@dataclass
class DemoSession:
    """A context manager. Its exit closes the connections; the sandbox keeps running."""

    folder: Path
    view: View
    chosen: dict[str, str] = field(default_factory=dict)
    """Settings that are added to the demo's, or replace them."""
    before: frozenset[Thing] = frozenset()
    """The inventory before the first deployment."""
    result: dict[str, Any] = field(default_factory=dict)
    """The spot handler's result."""
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
        """A client with the administrator's credentials in the cluster."""
        return self._open.enter_context(kubernetes.administrator(self.state))

    @property
    def castai(self) -> CastAi:
        castai = self.state.castai
        assert castai is not None  # noqa: S101 - `up` starts it or raises
        return castai

    @property
    def settings(self) -> dict[str, str]:
        """The settings for all three stacks, as users write them into cdk.json."""
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
        """The spot instance that EC2 interrupts."""
        return next(node for node in self.state.nodes if node.spot)

    def estimate(self, cluster: str, page: Path) -> dict[str, Any]:
        """Run `castai-eks savings` as a user does. Returns its JSON; the page is written."""
        options = ["--api-key-secret", API_KEY_SECRET, "--api-url", self.castai.url]
        command = [sys.executable, "-m", "cli", "savings", cluster, "--json", "--html", str(page)]
        environment = {**os.environ, **self.aws.environment()}
        done = subprocess.run(
            [*command, *options], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SandboxError(f"castai-eks savings failed: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def inventory(self) -> frozenset[Thing]:
        """Return what exists now in the account and in the cluster."""
        account = inventory.account(self.aws, self.state.cluster)
        return frozenset(account | inventory.cluster(self.cluster))

    def received(self) -> dict[str, Any]:
        """Return CAST AI's clusters and the calls it received, with fingerprints of secrets."""
        shown: dict[str, Any] = httpx2.get(f"{self.castai.url}/_sandbox/log").json()
        return shown

    def api_key(self) -> str:
        """Return CAST AI's API key, to search for it where it must not be."""
        return self.aws.secrets.get_secret_value(SecretId=API_KEY_SECRET)["SecretString"]

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Yield each text that users or tools can read, with its place. None may have a secret."""
        yield "what the demo printed", "\n".join(self.view.printed).encode()
        yield "what CAST AI shows", httpx2.get(f"{self.castai.url}/_sandbox/log").content
        for file in self.folder.rglob("*"):
            if file.is_file() and file.name != KEY_FILE:
                yield str(file), file.read_bytes()
        for group in self.aws.logs.describe_log_groups()["logGroups"]:
            name = group["logGroupName"]
            events = self.aws.logs.get_paginator("filter_log_events").paginate(logGroupName=name)
            lines = [event["message"] for page in events for event in page["events"]]
            yield f"log group {name}", "\n".join(lines).encode()
