"""CloudFormation's registry, from the files of cfn-lint: its import takes a second."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

REGION = "eu-central-1"


def permissions(kind: str) -> dict[str, set[str]]:
    """By operation: the actions that the handler of a resource type may call."""
    schema = _read(f"resources/{_read(f'providers/{REGION}.json')[kind]}.json")
    return {
        operation: set(handler["permissions"]) for operation, handler in schema["handlers"].items()
    }


@cache
def _read(name: str) -> Any:
    spec = find_spec("cfnlint")
    assert spec is not None
    assert spec.origin is not None
    return json.loads((Path(spec.origin).parent / "data" / "schemas" / name).read_text())
