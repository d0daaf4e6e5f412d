"""The custom resource of the agent: requests of the Provider framework on a served cluster."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from kubesim import Answer, ServedCluster
from lambdas.agent import handler
from lambdas.agent.handler import READY_UNTIL, Dependencies
from lambdas.common.castai import CastaiApi
from lambdas.common.clock import Clock
from lambdas.common.custom_resource import RequestFailedError, answered_errors
from lambdas.common.names import AGENT
from sandbox.castai_api.state import State
from tests.functional.agent.conftest import (
    ACCOUNT,
    KEY,
    REGION,
    ROLE,
    Eks,
    Secrets,
    is_available,
    of_the_agent,
)
from tests.support.fake_time import FakeTime

STACK = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/castai-agent/0a1b2c3d"
REMAINING = 120.0  # s


@pytest.fixture
def properties(castai_url: str) -> dict[str, Any]:
    return {
        "ServiceToken": "arn:…",
        "ClusterName": "prod",
        "ApiKeySecret": "castai/api-key",
        "ApiUrl": castai_url,
    }


def event(kind: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "RequestType": kind,
        "StackId": STACK,
        "LogicalResourceId": "Agent",
        "ResourceProperties": properties,
        **more,
    }


def respond(event: dict[str, Any], deps: Dependencies, *, remaining: float) -> dict[str, Any]:
    """The answer, with errors as CloudFormation gets them."""
    with answered_errors():
        return handler.respond(event, deps, remaining=remaining)


def report_online(castai: State) -> None:
    """Set the agent's status at CAST AI to online."""
    (cluster_id,) = castai.clusters
    castai.agent(cluster_id, "online")


class TestCreate:
    def test_create_is_complete_when_castai_sees_the_agent(
        self, cluster: ServedCluster, deps: Dependencies, castai: State, properties: dict[str, Any]
    ) -> None:
        request = event("Create", properties)
        answer = respond(request, deps, remaining=REMAINING)
        (cluster_id,) = castai.clusters
        assert answer["PhysicalResourceId"] == f"castai-agent:{ACCOUNT}:{REGION}:prod"
        assert answer["Data"]["ClusterId"] == cluster_id
        metadata = cluster.get("ConfigMap", "castai-agent-metadata", AGENT)
        assert metadata is not None
        assert metadata["data"] == {"API_URL": properties["ApiUrl"], "CLUSTER_ID": cluster_id}
        waiting = {**request, **answer}
        cluster.until(is_available)
        assert respond(waiting, deps, remaining=REMAINING) == {"IsComplete": False}
        report_online(castai)
        assert respond(waiting, deps, remaining=REMAINING) == {"IsComplete": True}

    def test_update_changes_the_agent_and_keeps_the_physical_id(
        self, cluster: ServedCluster, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        first = respond(event("Create", properties), deps, remaining=REMAINING)
        properties["Replicas"] = "2"
        again = respond(event("Update", properties), deps, remaining=REMAINING)
        assert again["PhysicalResourceId"] == first["PhysicalResourceId"]
        deployment = cluster.get("Deployment", AGENT, AGENT)
        assert deployment is not None
        assert deployment["spec"]["replicas"] == 2

    def test_another_cluster_gets_another_physical_id(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        first = respond(event("Create", properties), deps, remaining=REMAINING)
        properties["ClusterName"] = eks.fake.name = "other"
        other = respond(event("Create", properties), deps, remaining=REMAINING)
        assert other["PhysicalResourceId"] != first["PhysicalResourceId"]

    def test_the_key_is_in_the_clusters_secret_and_nowhere_else(
        self,
        cluster: ServedCluster,
        deps: Dependencies,
        castai: State,
        properties: dict[str, Any],
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        answer = respond(event("Create", properties), deps, remaining=REMAINING)
        seen = capfd.readouterr()
        for text in (json.dumps(answer), seen.out, seen.err, json.dumps(castai.shown())):
            assert KEY not in text
        assert cluster.get("Secret", AGENT, AGENT) is not None

    def test_a_wrong_key_writes_nothing(
        self,
        cluster: ServedCluster,
        deps: Dependencies,
        secrets: Secrets,
        eks: Eks,
        properties: dict[str, Any],
    ) -> None:
        secrets.text = "a-wrong-key"
        with pytest.raises(RequestFailedError, match="Give a valid CAST AI API key") as caught:
            respond(event("Create", properties), deps, remaining=REMAINING)
        assert "a-wrong-key" not in str(caught.value)
        assert of_the_agent(cluster) == set()
        assert eks.entries == {}

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "holds something else"),
            ("{}", "holds something else"),
            ('{"a": "b", "c": "d"}', "holds something else"),
            ('{"a": 7}', "holds something else"),
            ("two words", "nothing else, into the secret"),
        ],
    )
    def test_a_secret_without_a_key_is_refused_with_the_reason(
        self,
        deps: Dependencies,
        secrets: Secrets,
        properties: dict[str, Any],
        text: str,
        reason: str,
    ) -> None:
        secrets.text = text
        with pytest.raises(RequestFailedError, match=reason):
            respond(event("Create", properties), deps, remaining=REMAINING)

    def test_a_missing_secret_is_named(
        self, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        properties["ApiKeySecret"] = "castai/other"
        with pytest.raises(RequestFailedError, match=r"a secret named castai/other.*there is none"):
            respond(event("Create", properties), deps, remaining=REMAINING)

    def test_a_missing_cluster_is_refused(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.fake.exists = False
        with pytest.raises(RequestFailedError, match="ResourceNotFoundException"):
            respond(event("Create", properties), deps, remaining=REMAINING)

    def test_wrong_properties_are_listed(
        self, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        properties |= {"Replicas": "many", "Tolerance": "x"}
        with pytest.raises(RequestFailedError, match=r"(?s)Tolerance.*Replicas"):
            respond(event("Create", properties), deps, remaining=REMAINING)

    def test_a_long_list_of_faults_is_cut_by_whole_lines(
        self, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        wrong = [f"Tolerance{number:02}" for number in range(40)]
        with pytest.raises(RequestFailedError) as error:
            respond(event("Create", properties | dict.fromkeys(wrong, "x")), deps, remaining=1)
        first, *lines, last = str(error.value).splitlines()
        assert first == "Correct these properties:"
        assert len({line.partition(": ")[2] for line in lines}) == 1
        assert last == "…"


def test_a_long_message_of_the_server_is_cut_in_log_and_error(
    cluster: ServedCluster,
    deps: Dependencies,
    properties: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The message of an admission webhook has no limit."""
    words = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422}
    long = Answer(422, words | {"message": "no " * 100_000})
    cluster.faults.add("PATCH", "/namespaces/castai-agent/", long)
    with pytest.raises(RequestFailedError) as caught:
        respond(event("Create", properties), deps, remaining=REMAINING)
    assert str(caught.value).startswith("Change what refuses this request: applying ")
    assert "no no no" in str(caught.value)
    assert (
        caught.value.__suppress_context__
    )  # Lambda does not log the cause, which has the whole message
    (logged,) = caplog.records
    assert 500 < len(str(vars(logged))) < 5000


class TestIsComplete:
    def waiting(
        self, deps: Dependencies, properties: dict[str, Any], **more: Any
    ) -> dict[str, Any]:
        request = event("Create", properties)
        return {**request, **respond(request, deps, remaining=REMAINING), **more}

    def test_a_wait_that_is_over_fails_with_the_reason(
        self, cluster: ServedCluster, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        cluster.delete("Node", "node-1")
        waiting = self.waiting(deps, properties, **{READY_UNTIL: 0})
        cluster.until(lambda state: state.list("Pod", AGENT))
        with pytest.raises(RequestFailedError, match=r"\(waited 600 s\)"):
            respond(waiting, deps, remaining=REMAINING)

    def test_a_wait_that_is_over_fails_where_castai_does_not_see_the_agent(
        self, cluster: ServedCluster, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        waiting = self.waiting(deps, properties, **{READY_UNTIL: 0})
        cluster.until(is_available)
        with pytest.raises(RequestFailedError, match="CAST AI sees it as waiting-connection"):
            respond(waiting, deps, remaining=REMAINING)

    def test_an_outage_of_castai_during_the_wait_is_not_an_error(
        self, cluster: ServedCluster, deps: Dependencies, castai: State, properties: dict[str, Any]
    ) -> None:
        waiting = self.waiting(deps, properties)
        cluster.until(is_available)
        castai.outage = 1000
        without_retries = dataclasses.replace(
            deps,
            open_api=lambda key, url, clock, _: CastaiApi(
                key, url, clock=clock, deadline=clock.now()
            ),
        )
        assert respond(waiting, without_retries, remaining=REMAINING) == {"IsComplete": False}

    def test_the_view_access_is_created_once_and_deleted_when_complete(
        self,
        cluster: ServedCluster,
        deps: Dependencies,
        castai: State,
        eks: Eks,
        properties: dict[str, Any],
    ) -> None:
        waiting = self.waiting(deps, properties)
        eks.calls.clear()
        for _ in range(3):
            assert respond(waiting, deps, remaining=REMAINING) == {"IsComplete": False}
        assert eks.calls == ["create", "AmazonEKSViewPolicy"]
        cluster.until(is_available)
        report_online(castai)
        assert respond(waiting, deps, remaining=REMAINING) == {"IsComplete": True}
        assert eks.calls == ["create", "AmazonEKSViewPolicy", "delete"]
        assert eks.entries == {}

    def test_the_view_access_is_deleted_when_the_wait_is_over(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        waiting = self.waiting(deps, properties)
        respond(waiting, deps, remaining=REMAINING)
        assert eks.entries
        with pytest.raises(RequestFailedError, match="waited 600 s"):
            respond({**waiting, READY_UNTIL: 0}, deps, remaining=REMAINING)
        assert eks.entries == {}

    def test_the_view_access_is_deleted_after_an_error(
        self, deps: Dependencies, eks: Eks, secrets: Secrets, properties: dict[str, Any]
    ) -> None:
        waiting = self.waiting(deps, properties)
        respond(waiting, deps, remaining=REMAINING)
        secrets.text = ""
        with pytest.raises(RequestFailedError, match="holds something else"):
            respond(waiting, deps, remaining=REMAINING)
        assert eks.entries == {}

    def test_the_view_access_is_deleted_by_a_delete_during_the_wait(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        waiting = self.waiting(deps, properties)
        respond(waiting, deps, remaining=REMAINING)
        request = event("Delete", properties, PhysicalResourceId="x")
        respond(request, deps, remaining=REMAINING)
        assert eks.entries == {}

    @pytest.mark.parametrize("mode", ["API", "CONFIG_MAP"])
    def test_an_access_entry_of_others_is_used_for_the_wait_and_kept(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any], mode: str
    ) -> None:
        eks.fake.create_access_entry(clusterName="prod", principalArn=ROLE, tags={"team": "a"})
        theirs = dict(eks.entries)
        eks.fake.mode = mode
        waiting = self.waiting(deps, properties, **{READY_UNTIL: 0})
        with pytest.raises(RequestFailedError, match="waited 600 s"):
            respond(waiting, deps, remaining=REMAINING)
        assert (eks.entries, eks.calls) == (theirs, [])

    def test_view_access_that_could_not_be_deleted_is_in_the_reason(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        waiting = self.waiting(deps, properties)
        respond(waiting, deps, remaining=REMAINING)
        eks.throttled["DeleteAccessEntry"] = 10_000
        with pytest.raises(RequestFailedError, match=f"Remove access entry {ROLE} by hand"):
            respond({**waiting, READY_UNTIL: 0}, without_waiting(deps), remaining=REMAINING)


OPERATIONS = ["DescribeCluster", "DescribeAccessEntry", "CreateAccessEntry", "DeleteAccessEntry"]


def without_waiting(deps: Dependencies) -> Dependencies:
    """The same dependencies with a clock whose time passes only in `sleep`."""
    return dataclasses.replace(deps, clock=FakeTime(deps.clock.now()).clock)


class TestThrottling:
    """EKS's API has limits for the whole account; the SDK's own retries are off."""

    @pytest.mark.parametrize("operation", [*OPERATIONS, "AssociateAccessPolicy"])
    def test_a_throttled_call_to_eks_is_retried(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any], operation: str
    ) -> None:
        eks.throttled[operation] = 3
        request = event("Create", properties)
        answer = respond(request, without_waiting(deps), remaining=REMAINING)
        respond({**request, **answer}, without_waiting(deps), remaining=REMAINING)
        eks.throttled[operation] = 3
        gone = {**event("Delete", properties), "PhysicalResourceId": "x"}
        respond(
            gone, deps, remaining=REMAINING
        )  # in real time: the cluster terminates the namespace
        assert eks.throttled[operation] == 0
        assert eks.entries == {}

    def test_a_throttled_read_of_the_api_key_is_retried(
        self, deps: Dependencies, secrets: Secrets, properties: dict[str, Any]
    ) -> None:
        secrets.throttled = 3
        respond(event("Create", properties), without_waiting(deps), remaining=REMAINING)
        assert secrets.throttled == 0

    @pytest.mark.parametrize("operation", OPERATIONS[:3])
    def test_a_check_whose_calls_are_all_throttled_is_not_complete(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any], operation: str
    ) -> None:
        request = event("Create", properties)
        waiting = {**request, **respond(request, deps, remaining=REMAINING)}
        eks.throttled[operation] = 10_000
        quick = without_waiting(deps)
        assert respond(waiting, quick, remaining=REMAINING) == {"IsComplete": False}
        eks.throttled.clear()
        assert respond(waiting, quick, remaining=REMAINING) == {"IsComplete": False}
        assert list(eks.entries) == [ROLE]


class TestNewPolicy:
    """The stack creates a cluster's policy shortly before the cluster's custom resource."""

    def test_a_call_is_retried_until_a_new_policy_is_effective(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.unknown_rights = 5
        respond(event("Create", properties), without_waiting(deps), remaining=REMAINING)
        assert eks.calls[:2] == ["create", "AmazonEKSClusterAdminPolicy"]

    def test_a_permission_that_is_always_denied_is_named(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.unknown_rights = 10_000
        with pytest.raises(RequestFailedError, match=r"^Allow eks:DescribeCluster to this"):
            respond(event("Create", properties), without_waiting(deps), remaining=REMAINING)


class TestDelete:
    def connected(self, deps: Dependencies, properties: dict[str, Any]) -> str:
        answer = respond(event("Create", properties), deps, remaining=REMAINING)
        return str(answer["PhysicalResourceId"])

    def test_delete_leaves_nothing_of_the_agent(
        self, cluster: ServedCluster, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        physical_id = self.connected(deps, properties)
        cluster.until(is_available)
        request = event("Delete", properties, PhysicalResourceId=physical_id)
        answer = respond(request, deps, remaining=REMAINING)
        assert answer["PhysicalResourceId"] == physical_id
        assert respond({**request, **answer}, deps, remaining=REMAINING) == {"IsComplete": True}
        assert of_the_agent(cluster) == set()
        assert eks.entries == {}

    def test_delete_needs_no_key_and_no_valid_properties(
        self,
        cluster: ServedCluster,
        deps: Dependencies,
        secrets: Secrets,
        properties: dict[str, Any],
    ) -> None:
        physical_id = self.connected(deps, properties)
        secrets.text = ""
        old = {"ClusterName": "prod", "FromAnOlderRelease": "x"}
        respond(event("Delete", old, PhysicalResourceId=physical_id), deps, remaining=REMAINING)
        assert of_the_agent(cluster) == set()

    def test_delete_succeeds_where_the_cluster_is_gone(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.fake.exists = False
        answer = respond(
            event("Delete", properties, PhysicalResourceId="x"), deps, remaining=REMAINING
        )
        assert answer["PhysicalResourceId"] == "x"

    def test_delete_keeps_the_agent_of_another_resource(
        self, cluster: ServedCluster, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        self.connected(deps, properties)
        before = of_the_agent(cluster)
        request = event("Delete", properties, PhysicalResourceId="x")
        respond({**request, "LogicalResourceId": "Other"}, deps, remaining=REMAINING)
        assert of_the_agent(cluster) == before


class TestTemporaryAccess:
    def test_the_access_entry_is_created_before_and_deleted_after_the_work(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        respond(event("Create", properties), deps, remaining=REMAINING)
        assert eks.calls == ["create", "AmazonEKSClusterAdminPolicy", "delete"]
        assert eks.entries == {}

    def test_the_access_entry_is_deleted_when_the_work_fails(
        self, cluster: ServedCluster, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        cluster.faults.add("PATCH", "/namespaces/castai-agent/", Answer(422))
        with pytest.raises(RequestFailedError):
            respond(event("Create", properties), deps, remaining=REMAINING)
        assert eks.entries == {}

    def test_the_access_entry_of_a_killed_run_is_used_and_deleted(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.fake.create_access_entry(
            clusterName="prod", principalArn=ROLE, tags={"castai-eks:temporary": "true"}
        )
        respond(event("Create", properties), deps, remaining=REMAINING)
        assert eks.entries == {}

    def test_an_access_entry_of_others_is_used_and_kept(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.fake.create_access_entry(clusterName="prod", principalArn=ROLE, tags={"team": "a"})
        respond(event("Create", properties), deps, remaining=REMAINING)
        assert eks.entries[ROLE].tags == {"team": "a"}
        assert eks.calls == []

    def test_no_access_entry_is_created_where_the_cluster_has_aws_auth_only(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.fake.mode = "CONFIG_MAP"
        respond(event("Create", properties), deps, remaining=REMAINING)
        assert eks.calls == []

    def test_a_401_is_retried_until_the_access_entry_is_effective(
        self, cluster: ServedCluster, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        cluster.faults.add("GET", "/", Answer(401), times=2)
        sleeps: list[float] = []
        counting = dataclasses.replace(deps, clock=Clock(sleep=sleeps.append))
        respond(event("Create", properties), counting, remaining=REMAINING)
        assert len(sleeps) == 2

    def test_the_access_entry_is_created_when_eks_knows_the_new_role(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.unknown_principal = 3
        respond(event("Create", properties), without_waiting(deps), remaining=REMAINING)
        assert eks.unknown_principal == 0
        assert eks.entries == {}

    def test_an_access_entry_that_could_not_be_deleted_is_in_the_reason(
        self, cluster: ServedCluster, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        cluster.faults.add("PATCH", "/namespaces/castai-agent/", Answer(422))
        eks.denied.add("DeleteAccessEntry")
        with pytest.raises(RequestFailedError, match=f"Remove access entry {ROLE} by hand"):
            respond(event("Create", properties), deps, remaining=REMAINING)
