"""The spot handler's stack with other settings, and its removal."""

from __future__ import annotations

from pathlib import Path

from sandbox.aws import Aws
from sandbox.cdk import Cdk
from sandbox.demo import inventory
from sandbox.state import State
from tests.integration.pool import FUNCTION, Pool

SETTINGS = {"castai:namePrefix": "other", "castai:spotRoleName": "OtherCastRole"}


def test_with_the_managed_policies_a_notice_drains_the_node(
    pool: Pool, state: State, account: Aws
) -> None:
    """A second stack beside the first: the same notice invokes both functions."""
    cdk = Cdk(account, Path(state.folder), name="managed")
    cdk.synth({"castai:clusters": state.cluster, "castai:rolePolicies": "managed", **SETTINGS})
    cdk.deploy()
    try:
        attached = account.iam.list_attached_role_policies(RoleName=SETTINGS["castai:spotRoleName"])
        names = {policy["PolicyName"] for policy in attached["AttachedPolicies"]}
        assert names == {"CloudWatchLogsFullAccess", "AWSLambdaRole", "AmazonEC2ReadOnlyAccess"}
        node = pool.node()
        pool.pod(node)
        event = pool.notice(node)
        both = {delivery["function"]: delivery for delivery in pool.ended(event, 2)}
        assert set(both) == {FUNCTION, "other-spot-handler"}
        assert both["other-spot-handler"]["result"]["outcome"] == "drained"
    finally:
        cdk.destroy()
    found = inventory.account(account, state.cluster)
    left = [name for _kind, name in found if "other" in name.lower()]
    assert left == []
