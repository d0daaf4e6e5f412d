"""The app, synthesised once in a session for each combination of settings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, Environment

import app

ROOT = Path(__file__).parents[2]
CONTEXT: dict[str, Any] = json.loads((ROOT / "cdk.json").read_text())["context"]
ACCOUNT = "111122223333"

# No setting, every setting, and an imported role.
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "everything": {
        "castai:clusters": ["blue", "green"],
        "castai:rolePolicies": "least-privilege",
        "castai:spotRoleName": "SpotRole",
        "castai:spotRoleRegions": ["eu-central-1", "eu-west-1"],
        "castai:mode": "cordon",
        "castai:onDeadline": "leave",
        "castai:concurrency": 20,
        "castai:marginSeconds": 2.5,
        "castai:logLevel": "ERROR",
        "castai:logRetentionDays": 7,
        "castai:memoryMb": 1024,
        "castai:drillSources": ["platform.drill"],
        "castai:snapStart": True,
        "castai:tracing": True,
        "castai:reservedConcurrency": 50,
        "castai:subnetIds": ["subnet-0a1b2c3d", "subnet-0a1b2c3e"],
        "castai:securityGroupIds": ["sg-0a1b2c3d"],
        "castai:alarmEmail": "ops@example.org",
        "castai:permissionsBoundary": "platform/Boundary",
        "castai:namePrefix": "acme",
        "castai:tags": {"team": "platform"},
        "castai:apiKeySecret": "castai/api-key",
    },
    "imported": {
        "castai:clusters": "blue",
        "castai:clusterAccess": "false",
        "castai:spotRole": "import",
        "castai:alarmTopicArn": f"arn:aws:sns:eu-central-1:{ACCOUNT}:ops",
        "castai:bundling": "local",
        "castai:logLevel": "DEBUG",
    },
}


@dataclass(frozen=True)
class Assembly:
    """A cloud assembly in its folder."""

    folder: Path

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    @cached_property
    def templates(self) -> dict[str, Any]:
        """Templates by stack name."""
        suffix = ".template.json"
        return {
            path.name.removesuffix(suffix): json.loads(path.read_text())
            for path in sorted(self.folder.glob("*" + suffix))
        }

    def stack(self, part: str) -> Stack:
        """The stack of this part, with any prefix."""
        (template,) = (
            template for name, template in self.templates.items() if name.endswith(f"-{part}")
        )
        return Stack(template)


@dataclass(frozen=True)
class Stack:
    """One template, with access to its resources by type."""

    template: dict[str, Any]

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """Properties by logical id."""
        return {
            logical: resource["Properties"]
            for logical, resource in self.template["Resources"].items()
            if resource["Type"] == kind
        }

    def one(self, kind: str) -> dict[str, Any]:
        """The properties of the only resource of its type."""
        (properties,) = self.all(kind).values()
        return properties

    def id(self, kind: str) -> str:
        (logical,) = self.all(kind)
        return logical


Synthesise = Callable[..., Assembly]


@pytest.fixture(scope="session")
def synthesise(tmp_path_factory: pytest.TempPathFactory) -> Synthesise:
    """Synthesise with a context and without bundling, each combination once."""
    done: dict[str, Assembly] = {}

    def synth(context: dict[str, Any], region: str | None = None) -> Assembly:
        key = json.dumps([context, region])
        if key not in done:
            folder = tmp_path_factory.mktemp("cdk.out")
            cdk_app = App(
                analytics_reporting=False,
                outdir=str(folder),
                context=CONTEXT | context | {"aws:cdk:bundling-stacks": []},
            )
            app.build(cdk_app, Environment(account=ACCOUNT, region=region) if region else None)
            cdk_app.synth()
            done[key] = Assembly(folder)
        return done[key]

    return synth


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, synthesise: Synthesise) -> Assembly:
    """Each variant."""
    return synthesise(VARIANTS[request.param])


@pytest.fixture
def default(synthesise: Synthesise) -> Stack:
    return synthesise(VARIANTS["default"]).stack("spot-handler")


@pytest.fixture
def everything(synthesise: Synthesise) -> Stack:
    return synthesise(VARIANTS["everything"]).stack("spot-handler")


@pytest.fixture
def imported(synthesise: Synthesise) -> Stack:
    return synthesise(VARIANTS["imported"]).stack("spot-handler")


def without_assets(template: dict[str, Any]) -> Any:
    """A template without the hashes that change with a function's source."""
    text = json.dumps(template)
    text = re.sub(r"\b[0-9a-f]{64}\b", "ASSET", text)
    return json.loads(re.sub(r"(CurrentVersion[0-9A-F]{8})[0-9a-f]{32}", r"\1VERSION", text))
