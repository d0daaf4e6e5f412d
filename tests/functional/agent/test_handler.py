"""The custom resource from the Provider framework's requests to a connected cluster, and back."""

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
from tests.functional.agent.conftest import ACCOUNT, KEY, REGION, ROLE, Eks, Secrets
from tests.functional.agent.test_apply import is_available, of_the_agent

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


def reported(castai: State) -> None:
    """The agent reports, as it does once its pod runs."""
    (cluster_id,) = castai.clusters
    castai.agent(cluster_id, "online")


class TestConnecting:
    def test_create_then_complete(
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
        reported(castai)
        assert respond(waiting, deps, remaining=REMAINING) == {"IsComplete": True}

    def test_update_is_create_again(
        self, cluster: ServedCluster, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        first = respond(event("Create", properties), deps, remaining=REMAINING)
        properties["Replicas"] = "2"
        again = respond(event("Update", properties), deps, remaining=REMAINING)
        assert again["PhysicalResourceId"] == first["PhysicalResourceId"]
        deployment = cluster.get("Deployment", AGENT, AGENT)
        assert deployment is not None
        assert deployment["spec"]["replicas"] == 2

    def test_another_cluster_is_another_resource(
        self, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        first = respond(event("Create", properties), deps, remaining=REMAINING)
        properties["ClusterName"] = "other"
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
    def test_a_secret_without_a_key_is_explained(
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
        eks.cluster = None
        with pytest.raises(RequestFailedError, match="ResourceNotFoundException"):
            respond(event("Create", properties), deps, remaining=REMAINING)

    def test_wrong_properties_are_listed(
        self, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        properties |= {"Replicas": "many", "Tolerance": "x"}
        with pytest.raises(RequestFailedError, match=r"(?s)Tolerance.*Replicas"):
            respond(event("Create", properties), deps, remaining=REMAINING)

    def test_a_long_list_ends_with_a_whole_line(
        self, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        wrong = [f"Tolerance{number:02}" for number in range(40)]
        with pytest.raises(RequestFailedError) as error:
            respond(event("Create", properties | dict.fromkeys(wrong, "x")), deps, remaining=1)
        first, *lines, last = str(error.value).splitlines()
        assert first == "Correct these properties:"
        assert len({line.partition(": ")[2] for line in lines}) == 1
        assert last == "…"


def test_a_servers_words_are_cut_before_they_are_logged_or_returned(
    cluster: ServedCluster,
    deps: Dependencies,
    properties: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An admission webhook may answer with whatever it wants to say."""
    words = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422}
    flood = Answer(422, words | {"message": "no " * 100_000})
    cluster.faults.add("PATCH", "/namespaces/castai-agent/", flood)
    with pytest.raises(RequestFailedError) as caught:
        respond(event("Create", properties), deps, remaining=REMAINING)
    assert str(caught.value).startswith("Change what refuses this request: applying ")
    assert "no no no" in str(caught.value)
    assert caught.value.__suppress_context__  # Lambda logs no cause, which has all of it
    (logged,) = caplog.records
    assert 500 < len(str(vars(logged))) < 5000


class TestWaiting:
    def waiting(
        self, deps: Dependencies, properties: dict[str, Any], **more: Any
    ) -> dict[str, Any]:
        request = event("Create", properties)
        return {**request, **respond(request, deps, remaining=REMAINING), **more}

    def test_the_end_says_what_is_wrong(
        self, cluster: ServedCluster, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        cluster.delete("Node", "node-1")
        waiting = self.waiting(deps, properties, **{READY_UNTIL: 0})
        cluster.until(lambda state: state.list("Pod", AGENT))
        with pytest.raises(RequestFailedError, match=r"\(waited 600 s\)"):
            respond(waiting, deps, remaining=REMAINING)

    def test_an_agent_that_castai_does_not_see(
        self, cluster: ServedCluster, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        waiting = self.waiting(deps, properties, **{READY_UNTIL: 0})
        cluster.until(is_available)
        with pytest.raises(RequestFailedError, match="CAST AI sees it as waiting-connection"):
            respond(waiting, deps, remaining=REMAINING)

    def test_an_api_that_is_down_for_a_moment_fails_nothing(
        self, cluster: ServedCluster, deps: Dependencies, castai: State, properties: dict[str, Any]
    ) -> None:
        waiting = self.waiting(deps, properties)
        cluster.until(is_available)
        castai.outage = 1000
        impatient = dataclasses.replace(
            deps,
            open_api=lambda key, url, clock, _: CastaiApi(
                key, url, clock=clock, deadline=clock.now()
            ),
        )
        assert respond(waiting, impatient, remaining=REMAINING) == {"IsComplete": False}

    def test_looking_takes_the_right_to_look_once_for_the_whole_wait(
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
        reported(castai)
        assert respond(waiting, deps, remaining=REMAINING) == {"IsComplete": True}
        assert eks.calls == ["create", "AmazonEKSViewPolicy", "delete"]
        assert eks.entries == {}

    def test_the_right_to_look_ends_with_the_time(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        waiting = self.waiting(deps, properties)
        respond(waiting, deps, remaining=REMAINING)
        assert eks.entries
        with pytest.raises(RequestFailedError, match="waited 600 s"):
            respond({**waiting, READY_UNTIL: 0}, deps, remaining=REMAINING)
        assert eks.entries == {}

    def test_the_right_to_look_ends_with_an_error(
        self, deps: Dependencies, eks: Eks, secrets: Secrets, properties: dict[str, Any]
    ) -> None:
        waiting = self.waiting(deps, properties)
        respond(waiting, deps, remaining=REMAINING)
        secrets.text = ""
        with pytest.raises(RequestFailedError, match="holds something else"):
            respond(waiting, deps, remaining=REMAINING)
        assert eks.entries == {}

    def test_the_right_to_look_ends_with_a_removal_that_comes_in_between(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        waiting = self.waiting(deps, properties)
        respond(waiting, deps, remaining=REMAINING)
        request = event("Delete", properties, PhysicalResourceId="x")
        respond(request, deps, remaining=REMAINING)
        assert eks.entries == {}

    @pytest.mark.parametrize("mode", ["API", "CONFIG_MAP"])
    def test_an_entry_that_a_person_made_is_looked_with_and_stays(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any], mode: str
    ) -> None:
        eks.mode = mode
        theirs = {ROLE: {"tags": {"team": "platform"}}}
        eks.entries.update(theirs)
        waiting = self.waiting(deps, properties, **{READY_UNTIL: 0})
        with pytest.raises(RequestFailedError, match="waited 600 s"):
            respond(waiting, deps, remaining=REMAINING)
        assert (eks.entries, eks.calls) == (theirs, [])

    def test_a_right_that_could_not_be_taken_back_is_in_the_reason(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        waiting = self.waiting(deps, properties)
        respond(waiting, deps, remaining=REMAINING)
        eks.throttled["DeleteAccessEntry"] = 10_000
        with pytest.raises(RequestFailedError, match=f"Remove access entry {ROLE} by hand"):
            respond({**waiting, READY_UNTIL: 0}, in_no_time(deps), remaining=REMAINING)


OPERATIONS = ["DescribeCluster", "DescribeAccessEntry", "CreateAccessEntry", "DeleteAccessEntry"]


def in_no_time(deps: Dependencies) -> Dependencies:
    """Time passes only where code sleeps."""
    passed = [deps.clock.now()]

    def sleep(seconds: float) -> None:
        passed[0] += seconds

    return dataclasses.replace(deps, clock=Clock(now=lambda: passed[0], sleep=sleep))


class TestThrottling:
    """EKS's control plane has limits for the whole account; the SDK's own retries are off."""

    @pytest.mark.parametrize("operation", [*OPERATIONS, "AssociateAccessPolicy"])
    def test_a_throttled_call_is_made_again(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any], operation: str
    ) -> None:
        eks.throttled[operation] = 3
        request = event("Create", properties)
        answer = respond(request, in_no_time(deps), remaining=REMAINING)
        respond({**request, **answer}, in_no_time(deps), remaining=REMAINING)
        eks.throttled[operation] = 3
        gone = {**event("Delete", properties), "PhysicalResourceId": "x"}
        respond(gone, deps, remaining=REMAINING)  # the cluster needs its time to end a namespace
        assert eks.throttled[operation] == 0
        assert eks.entries == {}

    def test_so_is_that_for_the_key(
        self, deps: Dependencies, secrets: Secrets, properties: dict[str, Any]
    ) -> None:
        secrets.throttled = 3
        respond(event("Create", properties), in_no_time(deps), remaining=REMAINING)
        assert secrets.throttled == 0

    @pytest.mark.parametrize("operation", OPERATIONS[:3])
    def test_one_look_that_is_throttled_throughout_is_followed_by_another(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any], operation: str
    ) -> None:
        request = event("Create", properties)
        waiting = {**request, **respond(request, deps, remaining=REMAINING)}
        eks.throttled[operation] = 10_000
        quick = in_no_time(deps)
        assert respond(waiting, quick, remaining=REMAINING) == {"IsComplete": False}
        eks.throttled.clear()
        assert respond(waiting, quick, remaining=REMAINING) == {"IsComplete": False}
        assert list(eks.entries) == [ROLE]


class TestNewRights:
    """The policy for a cluster is made a moment before the cluster's resource needs it."""

    def test_a_policy_that_eks_does_not_know_yet_is_waited_for(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.unknown_rights = 5
        respond(event("Create", properties), in_no_time(deps), remaining=REMAINING)
        assert eks.calls[:2] == ["create", "AmazonEKSClusterAdminPolicy"]

    def test_one_that_never_comes_is_named(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.unknown_rights = 10_000
        with pytest.raises(RequestFailedError, match=r"^Allow eks:DescribeCluster to this"):
            respond(event("Create", properties), in_no_time(deps), remaining=REMAINING)


class TestDisconnecting:
    def connected(self, deps: Dependencies, properties: dict[str, Any]) -> str:
        answer = respond(event("Create", properties), deps, remaining=REMAINING)
        return str(answer["PhysicalResourceId"])

    def test_nothing_of_the_agent_remains(
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

    def test_neither_key_nor_sound_properties_are_needed(
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

    def test_a_cluster_that_is_gone_took_the_agent_along(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.cluster = None
        answer = respond(
            event("Delete", properties, PhysicalResourceId="x"), deps, remaining=REMAINING
        )
        assert answer["PhysicalResourceId"] == "x"

    def test_another_resources_agent_stays(
        self, cluster: ServedCluster, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        self.connected(deps, properties)
        before = of_the_agent(cluster)
        request = event("Delete", properties, PhysicalResourceId="x")
        respond({**request, "LogicalResourceId": "Other"}, deps, remaining=REMAINING)
        assert of_the_agent(cluster) == before


class TestOwnAccess:
    def test_it_exists_while_we_work(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        respond(event("Create", properties), deps, remaining=REMAINING)
        assert eks.calls == ["create", "AmazonEKSClusterAdminPolicy", "delete"]
        assert eks.entries == {}

    def test_it_goes_when_the_work_fails(
        self, cluster: ServedCluster, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        cluster.faults.add("PATCH", "/namespaces/castai-agent/", Answer(422))
        with pytest.raises(RequestFailedError):
            respond(event("Create", properties), deps, remaining=REMAINING)
        assert eks.entries == {}

    def test_what_a_killed_run_left_is_used_and_removed(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.entries[ROLE] = {"tags": {"castai-eks:temporary": "true"}}
        respond(event("Create", properties), deps, remaining=REMAINING)
        assert eks.entries == {}

    def test_an_entry_that_a_person_made_stays(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.entries[ROLE] = {"tags": {"team": "platform"}}
        respond(event("Create", properties), deps, remaining=REMAINING)
        assert eks.entries == {ROLE: {"tags": {"team": "platform"}}}
        assert eks.calls == []

    def test_a_cluster_with_aws_auth_only_has_none(
        self, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        eks.mode = "CONFIG_MAP"
        respond(event("Create", properties), deps, remaining=REMAINING)
        assert eks.calls == []

    def test_the_cluster_may_take_a_moment_to_know_it(
        self, cluster: ServedCluster, deps: Dependencies, properties: dict[str, Any]
    ) -> None:
        cluster.faults.add("GET", "/", Answer(401), times=2)
        naps: list[float] = []
        patient = dataclasses.replace(deps, clock=Clock(sleep=naps.append))
        respond(event("Create", properties), patient, remaining=REMAINING)
        assert len(naps) == 2

    def test_what_could_not_be_removed_is_in_the_reason(
        self, cluster: ServedCluster, deps: Dependencies, eks: Eks, properties: dict[str, Any]
    ) -> None:
        cluster.faults.add("PATCH", "/namespaces/castai-agent/", Answer(422))
        eks.denied.add("DeleteAccessEntry")
        with pytest.raises(RequestFailedError, match=f"Remove access entry {ROLE} by hand"):
            respond(event("Create", properties), deps, remaining=REMAINING)
