"""The settings from the CDK context: text and JSON, and one error that names every fault."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from stacks import settings as module
from stacks.settings import ContextError, Settings, groups
from tools.docs.settings_table import page

ROOT = Path(__file__).parents[3]


def spot(**context: object) -> Any:
    return read(**context).spot_handler


def read(**context: object) -> Settings:
    return Settings.from_context({f"castai:{key}": value for key, value in context.items()})


def faults(**context: object) -> list[str]:
    with pytest.raises(ContextError) as caught:
        read(**context)
    first, *lines, last = str(caught.value).splitlines()
    assert first == "Correct these settings (context in cdk.json, or cdk -c key=value):"
    assert last == "All settings: docs/settings.md"
    return [line.strip() for line in lines]


def test_an_empty_context_gives_the_defaults() -> None:
    assert Settings.from_context({}) == Settings()
    assert spot().spot_role_name == "CastLambdaRoleForSpot"
    assert spot().role_policies == "managed"


@pytest.mark.parametrize("version", ["3.13", 3.13])
def test_a_python_may_be_written_as_text_or_as_a_number(version: object) -> None:
    assert read(python=version).functions.python == "3.13"


def test_context_keys_without_our_prefix_are_ignored() -> None:
    assert Settings.from_context({"@aws-cdk/core:x": True, "team": "a"}) == Settings()


@pytest.mark.parametrize(
    ("key", "text", "value", "field", "expected"),
    [
        ("clusters", "blue, green", ["blue", "green"], "clusters", ("blue", "green")),
        ("clusters", '["blue","green"]', ["blue", "green"], "clusters", ("blue", "green")),
        ("clusters", "", [], "clusters", ()),
        ("concurrency", "20", 20, "concurrency", 20),
        ("marginSeconds", "2.5", 2.5, "margin_seconds", 2.5),
        ("clusterAccess", "false", False, "cluster_access", False),
        ("memoryMb", "512", 512, "memory_mb", 512),
        ("mode", "dry-run", "dry-run", "mode", "dry-run"),
        ("reservedConcurrency", "5", 5, "reserved_concurrency", 5),
        ("reservedConcurrency", "", None, "reserved_concurrency", None),
        ("alarmEmail", "ops@example.org", "ops@example.org", "alarm_email", "ops@example.org"),
    ],
)
def test_text_of_the_command_line_and_json_of_cdk_json_give_the_same_value(
    key: str, text: str, value: object, field: str, expected: object
) -> None:
    assert getattr(spot(**{key: text}), field) == expected
    assert getattr(spot(**{key: value}), field) == expected


def test_settings_that_other_functions_use_are_not_the_spot_handlers() -> None:
    others = ["agent_stack.py", "onboarding_stack.py", "constructs/cluster_onboarding.py"]
    sources = [(ROOT / "stacks" / each).read_text() for each in others]
    read_there = {name for text in sources for name in re.findall(r"spot_handler\.(\w+)", text)}
    assert read_there == {"spot_role_name"}
    section = page().partition("## Every function\n")[2].partition("\n## ")[0]
    for key in ("logLevel", "logRetentionDays", "subnetIds", "securityGroupIds"):
        assert f"| `castai:{key}` |" in section


@pytest.mark.parametrize(
    "given",
    [{"team": "a", "stage": "b"}, '{"team": "a", "stage": "b"}', "team=a, stage=b"],
)
def test_tags_may_be_a_map_or_json_or_pairs(given: object) -> None:
    assert read(tags=given).app.tags == {"team": "a", "stage": "b"}


def test_one_error_names_every_fault_with_the_allowed_values() -> None:
    assert faults(
        mode="drian",
        concurency=1,
        memoryMb="lots",
        clusters=["ok", "-"],
        spotRoleRegions=["europe"],
        alarmTopicArn="arn:aws:sns:eu-west-1:111122223333:ops",
        alarmEmail="ops@example.org",
    ) == [
        "castai:concurency: there is no such setting; did you mean castai:concurrency?",
        'castai:clusters: give a list; each entry an EKS cluster name, not ["ok", "-"] (at `$[1]`)',
        'castai:mode: give drain, cordon or dry-run, not "drian"; did you mean drain?',
        'castai:spotRoleRegions: give a list; each entry an AWS region, not ["europe"] (at `$[0]`)',
        'castai:memoryMb: give a whole number from 128 to 10240, not "lots"',
        (
            "castai:alarmTopicArn and castai:alarmEmail: give one of them: the address can "
            "subscribe to the topic"
        ),
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clusters", 5),
        ("clusters", "a,a"),
        ("clusters", '["a"'),
        ("concurrency", 0),
        ("concurrency", 501),
        ("marginSeconds", -1),
        ("marginSeconds", "nan"),
        ("logRetentionDays", 31),
        ("clusterAccess", "perhaps"),
        ("spotRoleName", "a/b"),
        ("spotRoleName", ""),
        ("spotRoleName", "r" * 65),
        ("spotRole", "adopt"),
        ("rolePolicies", "least"),
        ("drillSources", "aws.ec2"),
        ("reservedConcurrency", 0),
        ("subnetIds", "vpc-12345678"),
        ("permissionsBoundary", "no spaces here"),
        ("namePrefix", "1st"),
        ("namePrefix", "p" * 33),
        ("tags", "aws:team=a"),
        ("tags", {"team": 5}),
        ("tags", ["team"]),
        ("bundling", "docker"),
        ("python", "3.10"),
        ("python", 3),
        ("mode", None),
        ("mode", {"drain": True}),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_its_key(key: str, value: object) -> None:
    (fault,) = faults(**{key: value})
    assert fault.startswith(f"castai:{key}: ")


@pytest.mark.parametrize(
    ("context", "keys"),
    [
        ({"subnetIds": "subnet-0a1b2c3d"}, "castai:subnetIds and castai:securityGroupIds"),
        ({"securityGroupIds": "sg-0a1b2c3d"}, "castai:subnetIds and castai:securityGroupIds"),
        (
            {"spotRole": "import", "spotRoleRegions": "eu-west-1"},
            "castai:spotRole and castai:spotRoleRegions",
        ),
        ({"snapStart": True, "python": "3.11"}, "castai:snapStart and castai:python"),
    ],
)
def test_settings_that_contradict_each_other_are_named_together(
    context: dict[str, object], keys: str
) -> None:
    (fault,) = faults(**context)
    assert fault.startswith(f"{keys}: ")


def test_an_invalid_value_is_not_reported_as_a_contradiction_too() -> None:
    (fault,) = faults(subnetIds="nonsense", securityGroupIds="sg-0a1b2c3d")
    assert fault.startswith("castai:subnetIds: ")


@pytest.mark.parametrize(
    ("former", "current"),
    [
        ("agentHttpProxy", "HttpProxy in castai:agentProperties"),
        ("agentReadyWithin", "ReadyWithin in castai:agentProperties"),
        ("onboardPath", "Path in castai:onboardProperties"),
        ("onboardKmsKey", "KmsKey in castai:onboardProperties"),
        ("onboardClusterId", "castai:onboardByCluster"),
    ],
)
def test_the_fault_of_a_former_key_names_the_current_one(former: str, current: str) -> None:
    assert faults(**{former: "x"}) == [f"castai:{former}: is now {current}"]


def test_the_fault_of_a_former_value_names_the_current_one() -> None:
    assert faults(onboardPermissions="seeds") == ["castai:onboardPermissions: seeds is now full"]
    (fault,) = faults(
        onboardClusters="blue",
        apiKeySecret="castai/api-key",
        onboardByCluster={"blue": {"Permissions": "tight"}},
    )
    assert fault.endswith(": blue: Permissions: tight is now strict")


@pytest.mark.parametrize(
    ("key", "given", "what"),
    [
        (
            "agentProperties",
            {"HtpProxy": "http://p:1"},
            "HtpProxy: there is no such property; did you mean HttpProxy?",
        ),
        ("agentProperties", {"Image": "x"}, "Image: set castai:agentImage instead"),
        ("agentProperties", {"NoProxy": ".corp"}, "NoProxy: give HttpProxy or HttpsProxy too"),
        (
            "agentProperties",
            {"ReadyWithin": 10},
            "ReadyWithin: give a whole number from 60 to 2700, not 10",
        ),
        (
            "onboardProperties",
            {"SsmOnNode": True},
            "SsmOnNode: there is no such property; did you mean SsmOnNodes?",
        ),
        ("onboardProperties", {"ClusterId": "x"}, "ClusterId: set castai:onboardByCluster"),
        ("onboardProperties", {"Adopt": "maybe"}, 'Adopt: give true or false, not "maybe"'),
    ],
)
def test_an_invalid_property_in_json_is_a_fault(
    key: str, given: dict[str, object], what: str
) -> None:
    for form in (given, json.dumps(given)):
        (fault,) = faults(**{key: form})
        assert fault.startswith(f"castai:{key}: {what}")


def test_properties_of_one_cluster_override_those_of_all() -> None:
    settings = read(
        onboardClusters="blue,green",
        apiKeySecret="castai/api-key",
        tags={"team": "a"},
        onboardProperties={"Path": "/castai/", "Tags": {"stage": "b"}},
        onboardByCluster={"green": {"Path": "/green/", "Tags": {"stage": "c"}}},
    )
    blue, green = (settings.onboarding_properties(each) for each in ("blue", "green"))
    assert (blue["Path"], green["Path"]) == ("/castai/", "/green/")
    assert (blue["Tags"], green["Tags"]) == (
        {"team": "a", "stage": "b"},
        {"team": "a", "stage": "c"},
    )


def test_cluster_name_and_api_are_set_by_settings_of_their_own() -> None:
    settings = read(
        agentClusters="blue",
        onboardClusters="blue",
        apiKeySecret="castai/api-key",
        apiUrl="https://api.eu.cast.ai",
    )
    assert {"ClusterName", "ApiUrl", "ApiKeySecret"}.isdisjoint(settings.agent.properties())
    assert settings.onboarding_properties("blue")["ApiUrl"] == "https://api.eu.cast.ai"


def test_the_kms_key_of_the_policy_is_an_arn() -> None:
    (fault,) = faults(
        onboardClusters="blue",
        apiKeySecret="castai/api-key",
        onboardProperties={"KmsKey": "alias/mine"},
    )
    assert "blue: KmsKey: give the ARN of a KMS key" in fault


@pytest.mark.parametrize("value", [True, "true", "True", "1"])
def test_a_shared_policy_is_read_as_the_function_reads_it(value: object) -> None:
    settings = read(
        onboardClusters="blue",
        apiKeySecret="castai/api-key",
        onboardProperties={"AccountWidePolicy": value},
    )
    assert settings.function_options(settings.onboarding_properties("blue"))["account_wide"]


@pytest.mark.parametrize("value", [True, "true", "True", "1"])
def test_the_spot_handlers_role_is_not_one_of_castais_functions(value: object) -> None:
    (fault,) = faults(
        onboardClusters="blue",
        apiKeySecret="castai/api-key",
        onboardProperties={"ManageSpotLambda": value},
        spotRoleName="cast-x-lambda-12345678",
    )
    assert "choose a name that does not match cast-*-lambda-" in fault


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
KEYS = [field.encode_name for group in groups().values() for field in structs.fields(group)]


@given(st.dictionaries(st.sampled_from([*KEYS, "other"]), JSON, max_size=5))
def test_any_context_gives_settings_or_a_context_error(
    context: dict[str, object],
) -> None:
    with suppress(ContextError):
        read(**context)


def test_a_key_is_in_one_group_only() -> None:
    assert len(set(KEYS)) == len(KEYS)


def test_the_table_documents_every_key_once() -> None:
    text = page()
    for key in KEYS:
        assert text.count(f"| `castai:{key}` |") == 1
    assert f"| `castai:memoryMb` | `{module.SPOT_MEMORY_MB}` |" in text


def test_the_settings_that_cdk_json_shows_are_the_defaults() -> None:
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    shown = {key for key in context if key.startswith("castai:")}
    assert shown
    assert Settings.from_context(context) == Settings()
