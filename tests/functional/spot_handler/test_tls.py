"""The handler on a served cluster: sockets, TLS with the cluster's own CA, RBAC."""

from __future__ import annotations

import pytest

from kubesim import ServedCluster
from lambdas.common import eks
from lambdas.common.errors import ClusterUnavailableError
from tests.functional.spot_handler.conftest import (
    Account,
    EksUsers,
    SpotTestbed,
    call,
    point_cluster_at,
)
from tests.support.events import spot_notice

pytestmark = pytest.mark.usefixtures("container")


def test_a_drain_over_tls_after_endpoint_and_ca_have_changed(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    users = EksUsers()
    for _ in range(2):  # the second time under another endpoint and another CA
        with ServedCluster(authenticators=[users]) as cluster:
            point_cluster_at(cluster.endpoint, cluster.ca_pem)
            cluster.run(lambda inner: SpotTestbed(account, inner, users).build())
            for name in ("a", "b", "c"):
                cluster.add_pod(name, account.dns_name, shutdown=0.01)
            result = call(spot_notice(account.instance, time=None))
            assert (result["outcome"], result["pods"]["evicted"]) == ("drained", 3)
            assert cluster.pods_on(account.dns_name) == []
            assert {entry.user_agent for entry in cluster.log.entries} == {
                "castai-eks-spot-handler"
            }
    assert eks.TOKEN_PREFIX not in capsys.readouterr().out  # no token in the log


def test_a_server_with_another_ca_gets_no_request(account: Account) -> None:
    with ServedCluster() as real, ServedCluster() as other:
        point_cluster_at(other.endpoint, real.ca_pem)
        with pytest.raises(ClusterUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            call(spot_notice(account.instance, time=None), remaining=4_000)
        assert list(other.log.entries) == []
