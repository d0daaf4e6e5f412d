"""cdk.json: the feature flags of the pinned CDK, and the command of the app."""

from __future__ import annotations

import json
import tarfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[3]
CDK_JSON = json.loads((ROOT / "cdk.json").read_text())


def test_feature_flags_are_those_of_a_new_project_of_the_pinned_cdk() -> None:
    spec = find_spec("aws_cdk")  # not imported: an import starts Node
    assert spec is not None
    assert spec.origin is not None
    (archive,) = (Path(spec.origin).parent / "_jsii").glob("aws-cdk-lib@*.tgz")
    with tarfile.open(archive) as package:
        member = package.extractfile("package/recommended-feature-flags.json")
        assert member is not None
        recommended = json.load(member)
    # A new project has no aws-us-gov.
    recommended["@aws-cdk/core:target-partitions"] = ["aws", "aws-cn", "aws-us-gov"]
    flags = {key: value for key, value in CDK_JSON["context"].items() if key.startswith("@")}
    assert flags == recommended


def test_the_app_runs_with_the_python_on_the_users_path() -> None:
    assert CDK_JSON["app"] == "python3 app.py"
