"""CloudFormation's request: values, one error with every fault, properties of other releases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.common.cloudformation import MalformedRequestError, RequestType
from lambdas.common.errors import CastaiError
from lambdas.common.properties import PropertiesError
from lambdas.onboarding.policies.scope import Mode, Permissions
from lambdas.onboarding.properties import (
    ClusterAccess,
    Onboarding,
    faults_of,
    parse,
    parse_request,
)

ID = "12345678-1234-1234-1234-123456789012"
GOOD: dict[str, Any] = {"ClusterName": "prod", "ClusterId": ID}
ARN = "arn:aws:iam::123456789012:policy/Boundary"
STACK = "arn:aws:cloudformation:eu-central-1:123456789012:stack/castai-onboarding/1b2c"


def event(kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "RequestType": kind,
        "StackId": STACK,
        "LogicalResourceId": "Prod",
        "ResourceProperties": GOOD,
        **changes,
    }


class TestParse:
    def test_text_of_cloudformation_becomes_typed_values(self) -> None:
        onboarding = parse(
            {
                **GOOD,
                "ServiceToken": "arn",
                "ServiceTimeout": "900",
                "SchemaVersion": "1",
                "Mode": "cross-account-role",
                "ApiKeySecret": "castai/api-key",
                "ApiUrl": "https://api.eu.cast.ai/",
                "Permissions": "strict",
                "Adopt": "true",
                "RequireAgent": "false",
                "Tags": {"team": "platform"},
                "SecurityGroup": ["sg-12345678", "sg-0123456789abcdef0"],
                "ClusterAccess": "aws-auth",
                "PermissionsBoundary": ARN,
            }
        )
        assert onboarding == Onboarding(
            cluster_name="prod",
            cluster_id=ID,
            mode=Mode.ROLE,
            api_key_secret="castai/api-key",
            api_url="https://api.eu.cast.ai",
            permissions=Permissions.STRICT,
            adopt=True,
            require_agent=False,
            tags={"team": "platform"},
            security_group=("sg-12345678", "sg-0123456789abcdef0"),
            cluster_access=ClusterAccess.AWS_AUTH,
            permissions_boundary=ARN,
        )

    def test_optional_properties_have_defaults(self) -> None:
        onboarding = parse(GOOD)
        assert (onboarding.mode, onboarding.permissions) == (Mode.USER, Permissions.FULL)
        assert (onboarding.require_agent, onboarding.adopt, onboarding.retain_on_delete) == (
            True,
            False,
            False,
        )
        assert onboarding.cluster_access is ClusterAccess.AUTO

    def test_empty_text_is_no_value(self) -> None:
        assert parse({**GOOD, "PermissionsBoundary": "", "Path": ""}) == parse(GOOD)

    def test_one_error_names_every_fault(self) -> None:
        with pytest.raises(PropertiesError) as error:
            parse(
                {
                    "ClusterNme": "prod",
                    "Mode": "usr",
                    "ClusterId": "1",
                    "Adopt": "maybe",
                    "Tags": {"aws:x": "y"},
                    "SecurityGroup": "creat",
                    "PermissionsBoundary": "Boundary",
                    "Path": "castai",
                    "ApiUrl": "http://api.cast.ai",
                }
            )
        first, *lines = str(error.value).splitlines()
        assert first == "Correct these properties:"
        assert [line.split(":")[0] for line in lines] == [
            "- ClusterNme", "- ClusterName", "- Mode", "- ClusterId", "- ApiUrl",
            "- PermissionsBoundary", "- Path", "- Tags", "- SecurityGroup", "- Adopt",
        ]  # fmt: skip
        assert "did you mean ClusterName?" in lines[0]
        assert 'give user or cross-account-role, not "usr"; did you mean user?' in lines[2]

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"ClusterId": None}, "ClusterId: give CAST AI's id of the cluster, or ApiKeySecret"),
            (
                {"Mode": "cross-account-role"},
                "PrincipalArn: give the principal that may assume the role",
            ),
            ({"ClusterName": "x" * 60}, "or Mode cross-account-role"),
            ({"SecurityGroup": []}, "SecurityGroup: give"),
            ({"SecurityGroup": ["create"]}, "SecurityGroup: give"),
            ({"AccountWidePolicy": "true", "Permissions": "strict"}, "cannot be shared"),
            (
                {
                    "ManageSpotLambda": "true",
                    "SpotHandlerRoleArn": "arn:aws:iam::111122223333:role/cast-a-lambda-1a2b3c4d",
                },
                "SpotHandlerRoleArn: choose a name that does not match cast-*-lambda-????????",
            ),
            ({"Tags": {f"k{n}": "v" for n in range(41)}}, "give at most 40 tags"),
            ({"Tags": {"castai-eks:cluster": "me"}}, "reserved"),
            ({"Tags": "team=a"}, "Tags: give a map"),
            ({"ClusterName": "-prod"}, "Give the name of an EKS cluster"),
            ({"SpotHandlerRoleArn": "CastLambdaRoleForSpot"}, "the ARN of an IAM role"),
        ],
    )
    def test_the_text_of_a_fault(self, changes: dict[str, Any], words: str) -> None:
        (fault,) = faults_of({**GOOD, **changes})
        assert words in str(fault)
        with pytest.raises(PropertiesError, match=r"^Correct these properties:\n- "):
            parse({**GOOD, **changes})

    @pytest.mark.parametrize(
        ("former", "current"), [("seeds", "full"), ("current", "standard"), ("tight", "strict")]
    )
    def test_the_fault_of_a_former_value_names_the_current_one(
        self, former: str, current: str
    ) -> None:
        (fault,) = faults_of({**GOOD, "Permissions": former})
        assert str(fault) == f"Permissions: {former} is now {current}"

    def test_a_value_that_could_be_a_key_is_not_in_the_error(self) -> None:
        with pytest.raises(PropertiesError) as error:
            parse({**GOOD, "PermissionsBoundary": "s3cr3t" * 20})
        assert "s3cr3t" not in str(error.value)

    def test_unknown_properties_of_another_schema_version_are_ignored(self) -> None:
        assert parse({**GOOD, "SchemaVersion": "99", "Newer": "x"}) == parse(GOOD)
        with pytest.raises(PropertiesError):
            parse({**GOOD, "SchemaVersion": "1", "Newer": "x"})

    def test_tolerant_parsing_uses_defaults_for_invalid_values(self) -> None:
        faulty = {**GOOD, "Permissions": "all", "Tags": 1, "Newer": "x", "Path": "x"}
        assert parse(faulty, tolerant=True) == parse(GOOD)
        with pytest.raises(PropertiesError, match="ClusterName: is missing"):
            parse({"ClusterId": ID}, tolerant=True)

    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=5,
    )

    @given(
        st.dictionaries(
            st.sampled_from(Onboarding.__struct_encode_fields__) | st.text(max_size=10), values
        )
    )
    def test_any_properties_are_parsed_or_refused_with_the_faults(
        self, properties: dict[str, Any]
    ) -> None:
        for tolerant in (False, True):
            try:
                parse(properties, tolerant=tolerant)
            except CastaiError as error:
                assert str(error).startswith("Correct these properties:\n- ")  # noqa: PT017


class TestRequest:
    def test_the_owner_is_stack_name_and_logical_id(self) -> None:
        request = parse_request(event("Create"))
        assert (request.type, request.resource) == (RequestType.CREATE, "castai-onboarding/Prod")
        assert request.previous is None

    def test_an_update_has_the_previous_properties(self) -> None:
        old = {**GOOD, "Mode": "user", "Permissions": "of another release"}
        request = parse_request(event("Update", OldResourceProperties=old))
        assert request.previous == parse(GOOD)

    @pytest.mark.parametrize("old", [None, {}, [], {"ClusterName": 1}])
    def test_unusable_old_properties_are_none(self, old: Any) -> None:
        assert parse_request(event("Update", OldResourceProperties=old)).previous is None

    def test_a_delete_uses_the_valid_properties(self) -> None:
        faulty = {"ClusterName": "prod", "Mode": "other"}
        assert parse_request(event("Delete", ResourceProperties=faulty)).onboarding == Onboarding(
            cluster_name="prod"
        )

    @pytest.mark.parametrize("broken", [{}, {"RequestType": "Replace"}, {"RequestType": "Create"}])
    def test_a_malformed_request_is_refused(self, broken: dict[str, Any]) -> None:
        with pytest.raises(MalformedRequestError, match="through CloudFormation"):
            parse_request(broken)

    def test_the_owner_is_cut_to_the_length_of_a_tag(self) -> None:
        long = event("Create", LogicalResourceId="L" * 300)
        assert len(parse_request(json.loads(json.dumps(long))).resource) == 256
