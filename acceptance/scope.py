"""What a run may touch: cluster, instance, names, settings. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lambdas.common.castai import DEFAULT_URL

ROOT = Path(__file__).parents[1]
PREFIX = "castai-acceptance"
"""Default of `castai:namePrefix`: the first part of all names."""
# Outcome of the drill by `castai:mode`. Without the setting the handler drains.
OUTCOMES = {"drain": "drained", "cordon": "cordoned", "dry-run": "dry_run"}
QUALIFIER = "hnb659fds"
"""CDK's default of the bootstrap qualifier."""


@dataclass(frozen=True)
class Scope:
    """One run."""

    cluster: str
    instance: str
    prefix: str = PREFIX
    api_key_secret: str | None = None
    """Name of the secret with CAST AI's API key; None: neither agent nor onboarding."""
    chosen: Mapping[str, str] = field(default_factory=dict)
    """Settings of the user, as `cdk deploy -c`."""

    @property
    def source(self) -> str:
        """The event source of the drill. EventBridge lets only AWS publish as `aws.ec2`."""
        return f"{self.prefix}.drill"

    @property
    def spot_handler(self) -> str:
        """Name of the spot handler's stack, function and role."""
        return f"{self.prefix}-spot-handler"

    @property
    def agent(self) -> str:
        return f"{self.prefix}-agent"

    @property
    def onboarding(self) -> str:
        return f"{self.prefix}-onboarding"

    @property
    def stacks(self) -> tuple[str, ...]:
        """The stacks, in the order of their deployment."""
        if self.api_key_secret is None:
            return (self.spot_handler,)
        return self.agent, self.spot_handler, self.onboarding

    @property
    def settings(self) -> dict[str, str]:
        """The settings that the run needs, then those that the user chose.

        They replace those in cdk.json, which may be the user's own.
        """
        connected = self.cluster if self.api_key_secret else ""
        return {
            "castai:bundling": "lambda",
            "castai:namePrefix": self.prefix,
            "castai:clusters": self.cluster,
            "castai:clusterAccess": "true",
            "castai:mode": "drain",
            "castai:spotRole": "create",
            "castai:spotRoleName": self.spot_handler,
            "castai:spotRoleRegions": "",
            "castai:drillSources": self.source,
            "castai:alarmTopicArn": "",
            "castai:alarmEmail": "",
            "castai:reservedConcurrency": "",
            "castai:apiKeySecret": self.api_key_secret or "",
            "castai:agentClusters": connected,
            "castai:onboardClusters": connected,
            "castai:onboardByCluster": "{}",
            "castai:onboardMode": "cross-account-role",
            **self.chosen,
        }

    @property
    def context(self) -> dict[str, Any]:
        """The context of the app: cdk.json, then the settings."""
        file = json.loads((ROOT / "cdk.json").read_text())
        return {**file["context"], **self.settings}

    @property
    def api_url(self) -> str:
        return str(self.context.get("castai:apiUrl") or DEFAULT_URL)

    @property
    def qualifier(self) -> str:
        """The bootstrap qualifier, a part of the names of CDK's roles and bucket."""
        return str(self.context.get("@aws-cdk/core:bootstrapQualifier", QUALIFIER))

    @property
    def expected(self) -> str:
        """The outcome of a drill that passes."""
        return OUTCOMES[self.settings["castai:mode"]]

    def faults(self) -> Iterator[str]:
        """What is wrong with the scope itself."""
        if self.settings["castai:mode"] not in OUTCOMES:
            yield f"Choose castai:mode from {', '.join(OUTCOMES)}"
        if self.settings["castai:namePrefix"] != self.prefix:
            yield "Give the name prefix by --prefix, not as castai:namePrefix"

    def ours(self, name: str) -> bool:
        """Whether a resource of this name can only be of this run.

        CAST AI prescribes the names of what the onboarding creates. They have the cluster's name.
        """
        short = name.rpartition("/")[2]
        castai = short.lower().startswith(("cast-", "casteks")) and self.cluster in short
        return self.prefix in name or (self.api_key_secret is not None and castai)
