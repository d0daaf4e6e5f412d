"""CAST AI's client on the simulated API, and with answers that are not in CAST AI's API."""

from __future__ import annotations

import json
import traceback

import httpx2
import pytest

from lambdas.common import castai, retry
from lambdas.common.castai import (
    BadAnswerError,
    CastaiApi,
    KeyRefusedError,
    NotYetError,
    RequestRefusedError,
    UnavailableError,
    UnknownClusterError,
)
from lambdas.common.errors import PermanentError, RetryableError
from sandbox.castai_api.state import State
from tests.support.fake_time import FakeTime
from tests.unit.common.conftest import KEY, START, Answering

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/cast-eks-prod-cluster-role-0a1b2c3d"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture
def cluster_id(api: CastaiApi) -> str:
    return api.register("prod", "eu-central-1", ACCOUNT)


def assert_backed_off(time: FakeTime, tries: int) -> None:
    longest = retry.SLOW.delays[:tries]
    assert len(time.slept) == tries
    assert all(d * retry.SPREAD <= s <= d for s, d in zip(time.slept, longest, strict=True))


class TestCluster:
    def test_a_cluster_is_registered_once_by_name_region_and_account(
        self, api: CastaiApi, cluster_id: str
    ) -> None:
        assert api.register("prod", "eu-central-1", ACCOUNT) == cluster_id
        assert api.register("prod", "eu-west-1", ACCOUNT) != cluster_id
        assert api.register("prod", "eu-central-1", "210987654321") != cluster_id

    def test_a_new_cluster_is_connecting_and_waits_for_the_agent(
        self, api: CastaiApi, cluster_id: str
    ) -> None:
        cluster = api.get(cluster_id)
        assert (cluster.status, cluster.agent_status) == ("connecting", "waiting-connection")

    def test_the_principal_is_created_once_and_then_read(
        self, api: CastaiApi, cluster_id: str, state: State
    ) -> None:
        arn = api.assume_role_principal(cluster_id)
        assert arn == f"arn:aws:iam::809060229965:user/cast-crossrole-{cluster_id}"
        assert api.assume_role_principal(cluster_id) == arn
        calls = [entry.method for entry in state.log if "principal" in entry.path]
        assert calls == ["GET", "POST", "GET"]

    def test_the_principal_is_deleted_and_a_missing_one_is_no_error(
        self, api: CastaiApi, cluster_id: str, state: State
    ) -> None:
        api.assume_role_principal(cluster_id)
        api.delete_principal(cluster_id)
        assert state.clusters[cluster_id].principal == ""
        api.delete_principal("7e0e6b0c-0000-0000-0000-000000000000")

    def test_the_handover_of_the_role_is_retried_until_iam_has_propagated_it(
        self, api: CastaiApi, cluster_id: str, state: State, time: FakeTime
    ) -> None:
        state.propagation = 3
        api.assume_role_principal(cluster_id)
        api.hand_over_role(cluster_id, ROLE)
        assert state.clusters[cluster_id].credentials["role"] == ROLE
        assert_backed_off(time, 3)
        assert api.get(cluster_id).status == "ready"

    def test_the_key_is_handed_over_as_json_inside_json(
        self, api: CastaiApi, cluster_id: str, state: State
    ) -> None:
        api.hand_over_key(cluster_id, "AKIAEXAMPLE", SECRET)
        assert state.clusters[cluster_id].credentials["accessKeyId"] == "AKIAEXAMPLE"
        body = castai.key_call(cluster_id, "AKIAEXAMPLE", SECRET).body
        assert body is not None
        assert json.loads(body["credentials"]) == {
            "accessKeyId": "AKIAEXAMPLE",
            "secretAccessKey": SECRET,
        }

    def test_a_handover_that_never_succeeds_says_what_to_check(
        self, api: CastaiApi, cluster_id: str, state: State, time: FakeTime
    ) -> None:
        state.propagation = 1000
        api.assume_role_principal(cluster_id)
        with pytest.raises(NotYetError, match="check its trust policy"):
            api.hand_over_role(cluster_id, ROLE, within=20)
        assert time.now <= START + 20

    def test_an_interruption_is_reported(
        self, api: CastaiApi, cluster_id: str, state: State
    ) -> None:
        provider_id = "aws:///eu-central-1a/i-0123456789abcdef0"
        api.send(castai.event_call(cluster_id, castai.INTERRUPTED, "", provider_id))
        (event,) = state.clusters[cluster_id].events
        assert (event["event_type"], event["node_id"]) == ("interrupted", "")
        assert event["provider_id"] == provider_id

    def test_disconnect_and_delete_can_be_repeated(
        self, api: CastaiApi, cluster_id: str, state: State
    ) -> None:
        state.agent(cluster_id, "online")
        state.disconnect_reads = 3
        api.disconnect(cluster_id)
        assert state.clusters[cluster_id].agent_status == "disconnecting"
        api.delete(cluster_id)
        assert state.clusters == {}
        api.disconnect(cluster_id)
        api.delete(cluster_id)
        assert api.register("prod", "eu-central-1", ACCOUNT) != cluster_id

    def test_disconnect_keeps_nodes_and_kubernetes_objects(self) -> None:
        assert castai.disconnect_call("id").body == {
            "deleteProvisionedNodes": False,
            "keepKubernetesResources": True,
        }

    def test_an_unknown_cluster_is_named(self, api: CastaiApi) -> None:
        with pytest.raises(UnknownClusterError, match=r"Check the CAST AI cluster id.*no-such"):
            api.get("no-such")

    def test_an_id_is_quoted_in_the_path(self, api: CastaiApi) -> None:
        with pytest.raises(UnknownClusterError):
            api.get("x/../../../agent.yaml")
        assert castai.get_call("a/b").path.endswith("/a%2Fb")


class TestApiKey:
    def test_a_wrong_key_is_refused_without_a_retry(
        self, state: State, api: CastaiApi, time: FakeTime
    ) -> None:
        state.api_key = "another"
        with pytest.raises(KeyRefusedError, match="Give a valid CAST AI API key"):
            api.register("prod", "eu-central-1", ACCOUNT)
        assert time.slept == []

    def test_a_key_without_full_access_is_refused_with_what_to_do(
        self, answering: Answering
    ) -> None:
        with pytest.raises(KeyRefusedError, match="full access"):
            answering(httpx2.Response(403)).get("id")

    @pytest.mark.parametrize("key", ["", "  \n", "two words", "schlüssel", "a\x00b"])
    def test_what_cannot_be_a_key_is_refused_before_any_request(self, key: str) -> None:
        with pytest.raises(PermanentError, match="Put CAST AI's API key") as caught:
            CastaiApi(key)
        if key.strip():
            assert key not in str(caught.value)

    def test_a_newline_after_the_key_is_removed(self) -> None:
        assert CastaiApi(f"{KEY}\n")._sender._key == KEY

    def test_the_key_is_sent_as_a_header_and_for_the_manifest_as_a_token_too(self) -> None:
        assert castai.headers(castai.get_call("id"), KEY) == {"X-API-Key": KEY}
        manifest = castai.headers(castai.manifest_call(), KEY)
        assert manifest["Authorization"] == f"Token {KEY}"

    def test_no_secret_is_in_an_error_or_a_repr(self, answering: Answering) -> None:
        echo = httpx2.Response(422, json={"message": f"bad {SECRET} for {KEY}"})
        api = answering(echo)
        call = castai.key_call("id", "AKIAEXAMPLE", SECRET)
        try:
            api.send(call)
        except RequestRefusedError as error:
            shown = "".join(traceback.format_exception(error)) + repr(error)
        for text in (shown, repr(api), repr(call)):
            assert SECRET not in text
            assert KEY not in text
        assert "bad *** for ***" in shown

    @pytest.mark.parametrize(
        "url", ["http://api.cast.ai", "api.cast.ai", "https://u:p@api.cast.ai", "ftp://x", "https:"]
    )
    def test_a_url_without_https_or_with_credentials_is_refused(self, url: str) -> None:
        with pytest.raises(PermanentError):
            CastaiApi(KEY, url)

    def test_a_loopback_url_needs_no_tls(self) -> None:
        assert CastaiApi(KEY, "http://127.0.0.1:8080/").url == "http://127.0.0.1:8080"


class TestRetries:
    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_a_temporary_status_is_retried(
        self, answering: Answering, time: FakeTime, status: int
    ) -> None:
        api = answering(httpx2.Response(status), httpx2.Response(200, json={"id": "x"}))
        assert api.register("prod", "eu-central-1", ACCOUNT) == "x"
        assert_backed_off(time, 1)

    @pytest.mark.parametrize(
        "error", [httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow"), httpx2.ReadError("x")]
    )
    def test_a_missing_answer_is_retried_and_then_says_what_to_check(
        self, answering: Answering, time: FakeTime, error: Exception
    ) -> None:
        with pytest.raises(UnavailableError, match=r"Check that api\.test can be reached"):
            answering(error).get("id")
        assert START + 20 < time.now <= START + castai.CALL_TIME

    def test_the_deadline_ends_the_retries(self, answering: Answering, time: FakeTime) -> None:
        with pytest.raises(UnavailableError):
            answering(httpx2.Response(503), deadline=START + 1.6).get("id")
        assert_backed_off(time, 2)

    def test_the_time_out_of_a_request_is_not_after_the_deadline(self, time: FakeTime) -> None:
        limits = []

        def handle(request: httpx2.Request) -> httpx2.Response:
            limits.append(request.extensions["timeout"]["read"])
            return httpx2.Response(200, json={"id": "x"})

        transport = httpx2.MockTransport(handle)
        for deadline in (START + 3, float("inf")):
            CastaiApi(KEY, deadline=deadline, clock=time.clock, transport=transport).register(
                "prod", "eu-central-1", ACCOUNT
            )
        assert limits == [3.0, castai.REQUEST_TIMEOUT]

    @pytest.mark.parametrize(("header", "least"), [("3", 3.0), ("600", 15.0), ("soon", 0.25)])
    def test_a_retry_waits_as_retry_after_says_up_to_a_limit(
        self, answering: Answering, time: FakeTime, header: str, least: float
    ) -> None:
        busy = httpx2.Response(429, headers={"retry-after": header})
        answering(busy, httpx2.Response(200, json={"id": "x"})).register("p", "r", ACCOUNT)
        (slept,) = time.slept
        assert least <= slept <= least + retry.SLOW.delays[0] * (1 - retry.SPREAD)

    def test_a_400_is_not_retried(self, api: CastaiApi, cluster_id: str, time: FakeTime) -> None:
        with pytest.raises(RequestRefusedError, match="must be one of interrupted"):
            api.send(castai.event_call(cluster_id, "exploded", "", "aws:///a/i-0"))
        assert time.slept == []


class TestUnexpectedAnswers:
    @pytest.mark.parametrize(
        "answer",
        [
            httpx2.Response(200, text="<html>Sign in to the proxy</html>"),
            httpx2.Response(200, json={"organizationId": "x"}),
            httpx2.Response(200, json={"id": 7}),
            httpx2.Response(200, json={"id": ""}),
            httpx2.Response(200, json=[]),
            httpx2.Response(200, text=""),
        ],
    )
    def test_the_error_says_to_check_the_url_and_the_proxy(
        self, answering: Answering, answer: httpx2.Response
    ) -> None:
        with pytest.raises(BadAnswerError, match="Check the API's URL and any proxy"):
            answering(answer).register("prod", "eu-central-1", ACCOUNT)

    @pytest.mark.parametrize("arn", ["*", "", "arn:aws:iam::*:root", "arn:aws:s3:::x", f"{ROLE}\n"])
    def test_a_principal_that_is_no_iam_arn_is_refused(
        self, answering: Answering, arn: str
    ) -> None:
        with pytest.raises(BadAnswerError, match="not the ARN of an IAM user or role"):
            answering(httpx2.Response(200, json={"arn": arn})).assume_role_principal("id")

    def test_a_redirect_is_not_followed(self, answering: Answering) -> None:
        moved = httpx2.Response(302, headers={"location": "https://elsewhere.test/"})
        with pytest.raises(RequestRefusedError, match="302"):
            answering(moved).get("id")

    def test_an_error_page_is_not_quoted(self, answering: Answering) -> None:
        page = httpx2.Response(502, text="<html>" + "x" * 10_000)
        with pytest.raises(UnavailableError) as caught:
            answering(page).get("id")
        assert len(str(caught.value)) < 300

    def test_a_long_message_is_cut(self, answering: Answering) -> None:
        with pytest.raises(RequestRefusedError) as caught:
            answering(httpx2.Response(400, json={"message": "y" * 10_000})).get("id")
        assert len(str(caught.value)) < 400


def test_failure_classifies_an_answer_of_an_asynchronous_caller() -> None:
    call = castai.event_call("id", castai.INTERRUPTED, "", "aws:///a/i-0")
    assert castai.failure(call, httpx2.Response(200), "key") is None
    assert castai.failure(call, httpx2.Response(204), "key") is None
    assert isinstance(castai.failure(call, httpx2.Response(503), "key"), RetryableError)
    assert isinstance(castai.failure(call, httpx2.Response(401, text="{}"), "key"), PermanentError)
