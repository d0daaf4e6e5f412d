"""The properties of the agent's resource: values, defaults, and one error with every fault."""

from __future__ import annotations

from typing import Any

import pytest

from lambdas.agent.properties import AGENT_IMAGE, cluster_of, parse
from lambdas.common.properties import PropertiesError

MINIMAL = {"ClusterName": "prod", "ApiKeySecret": "castai/api-key"}


def test_optional_properties_have_defaults() -> None:
    agent = parse(MINIMAL)
    assert (agent.image, agent.replicas, agent.autoscaler) == (AGENT_IMAGE, 1, True)
    assert agent.api_url == "https://api.cast.ai"


def test_strings_of_cloudformation_become_values() -> None:
    agent = parse({**MINIMAL, "Replicas": "2", "ReadyWithin": "900", "ServiceToken": "arn:…"})
    assert (agent.replicas, agent.ready_within) == (2, 900)


def test_an_empty_string_is_no_value() -> None:
    assert parse({**MINIMAL, "Replicas": "", "HttpProxy": ""}) == parse(MINIMAL)


def test_one_error_names_every_fault() -> None:
    with pytest.raises(PropertiesError) as caught:
        parse({"ClusterName": "no spaces here", "Replicas": "9", "Imgae": "x", "ApiUrl": "ftp://x"})
    lines = str(caught.value).splitlines()
    assert lines[0] == "Correct these properties:"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "- Imgae",
        "- ClusterName",
        "- ApiKeySecret",
        "- ApiUrl",
        "- Replicas",
    ]
    assert "did you mean Image?" in lines[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ClusterName", "-prod"),
        ("ApiKeySecret", "two words"),
        ("ApiUrl", "http://api.cast.ai"),
        ("Image", "agent:v1"),
        ("Image", "us-docker.pkg.dev/castai-hub/library/agent"),
        ("Image", "us-docker.pkg.dev/castai-hub/library/agent:latest"),
        ("Registry", "https://registry.example"),
        ("Replicas", "0"),
        ("Replicas", "two"),
        ("Autoscaler", "maybe"),
        ("Requests", {"cpu": "lots"}),
        ("Requests", {"gpu": "1"}),
        ("NodeSelector", {"": "x"}),
        ("NodeSelector", "pool=system"),
        ("Tolerations", [{"key": "x", "wrong": "y"}]),
        ("Tolerations", [{"effect": "Never"}]),
        ("HttpProxy", "http://user:password@proxy:3128"),
        ("NoProxy", "a b"),
        ("CaCertificates", "no pem"),
        ("CaCertificates", f"-----BEGIN CERTIFICATE-----\n-----BEGIN {'PRIVATE'} KEY-----"),
        ("ReadyWithin", "10"),
    ],
)
def test_an_invalid_value_is_a_fault_of_its_property(name: str, value: Any) -> None:
    with pytest.raises(PropertiesError, match=f"- {name}: "):
        parse({**MINIMAL, name: value})


@pytest.mark.parametrize(
    ("properties", "named"),
    [
        ({"Requests": {"memory": "1Gi"}}, "Autoscaler"),
        ({"Limits": {"memory": "1Gi"}}, "Autoscaler"),
        ({"Autoscaler": "false"}, "Requests"),
        ({"NoProxy": ".corp"}, "NoProxy"),
    ],
)
def test_properties_that_contradict_each_other_are_a_fault(
    properties: dict[str, Any], named: str
) -> None:
    with pytest.raises(PropertiesError, match=f"- {named}: "):
        parse({**MINIMAL, **properties})


def test_a_password_is_not_in_the_error() -> None:
    with pytest.raises(PropertiesError) as caught:
        parse({**MINIMAL, "HttpProxy": "http://user:pa55@proxy:3128"})
    assert "pa55" not in str(caught.value)


@pytest.mark.parametrize("digest", ["@sha256:" + "0" * 64, ":v1.2.3-rc.1"])
def test_an_image_may_have_a_tag_or_a_digest(digest: str) -> None:
    image = f"registry.example:5000/library/agent{digest}"
    assert parse({**MINIMAL, "Image": image}).image == image


def test_a_delete_needs_the_cluster_name_only() -> None:
    assert cluster_of({"ClusterName": "prod", "FromAnotherRelease": "?"}) == "prod"
    with pytest.raises(PropertiesError, match="ClusterName"):
        cluster_of({})
