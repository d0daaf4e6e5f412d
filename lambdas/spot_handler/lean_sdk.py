"""AWS clients for a short cold start: botocore alone, with small service models of ours.

docs/adr/0004-a-lean-ec2-model.md.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import botocore.session
from botocore.loaders import Loader

from lambdas.common import aws

# To load the SDK's model of EC2 (some 700 calls) and its list of all endpoints takes longer than
# the rest of a cold start. These files have what we use; tests compare them with the SDK's.
MODELS = Path(__file__).parent / "models"


@cache
def session() -> botocore.session.Session:
    """The container's session. What MODELS lacks comes from botocore's own data."""
    core = botocore.session.Session()
    core.register_component("data_loader", _LeanLoader(MODELS))
    if region_name := aws.region_of_the_function():
        core.set_config_variable("region", region_name)
    return core


class _LeanLoader(Loader):
    """The SDK's loader, which reads a folder of ours first and does not list all services."""

    def __init__(self, models: Path) -> None:
        super().__init__(extra_search_paths=[str(models)])
        self._models = str(models)

    def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002 - the SDK's
        """Names of folders. The SDK reads each of some 400 to see whether it has the type."""
        return sorted({name for path in self.search_paths for name in _entries(path)})

    def is_builtin_path(self, path: str) -> bool:
        """Our endpoints.json is a part of the SDK's own, not a user's, which would override the
        rules.
        """
        return path.startswith(self._models) or bool(super().is_builtin_path(path))


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names only
    except OSError:
        return []
