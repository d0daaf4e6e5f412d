"""The spot handler's alarms, its stack with other settings, and its removal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.aws import Aws
from sandbox.cdk import Cdk
from sandbox.demo import inventory
from sandbox.errors import SandboxError
from sandbox.state import State
from tests.integration.pool import FUNCTION, Pool
from tests.support.cloudformation_registry import permissions

SETTINGS = {"castai:namePrefix": "other", "castai:spotRoleName": "OtherCastRole"}


def left_of_other(account: Aws, state: State) -> list[str]:
    """The names in the account that these settings give."""
    found = inventory.account(account, state.cluster)
    return [name for _kind, name in found if "other" in name.lower()]


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
    assert left_of_other(account, state) == []


ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"


@pytest.mark.long  # two bootstraps and two deployments
def test_with_the_registrys_permissions_and_no_others_a_stack_deploys_and_goes(
    stack: Cdk, state: State, account: Aws
) -> None:
    """After a bootstrap with a narrower policy; without one of its actions, the stack fails."""
    cdk = Cdk(account, Path(state.folder), name="narrow")
    cdk.synth({"castai:clusters": state.cluster, **SETTINGS})
    [template] = [json.loads(path.read_text()) for path in cdk.assembly.glob("*.template.json")]
    types = {each["Type"] for each in template["Resources"].values()} - {"AWS::CDK::Metadata"}
    of = [permissions(kind) for kind in types]
    changes = ("create", "update", "delete")
    actions = set[str]().union(*(each.get(change, set()) for each in of for change in changes))
    policy = account.iam.create_policy(
        PolicyName="narrow", PolicyDocument=allowing(actions - {"lambda:GetFunction"})
    )["Policy"]["Arn"]
    try:
        stack.bootstrap(policy)
        with pytest.raises(SandboxError, match="not authorized to perform: lambda:GetFunction"):
            cdk.deploy()
        account.iam.create_policy_version(
            PolicyArn=policy, PolicyDocument=allowing(actions), SetAsDefault=True
        )
        cdk.deploy()
        cdk.destroy()
    finally:
        stack.bootstrap(ADMINISTRATOR)
        cdk.destroy()
        for version in account.iam.list_policy_versions(PolicyArn=policy)["Versions"]:
            if not version["IsDefaultVersion"]:
                account.iam.delete_policy_version(PolicyArn=policy, VersionId=version["VersionId"])
        account.iam.delete_policy(PolicyArn=policy)
    assert left_of_other(account, state) == []


def allowing(actions: set[str]) -> str:
    allowed = {"Effect": "Allow", "Action": sorted(actions), "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [allowed]})


def test_an_alarm_is_delivered_only_while_the_topics_policy_lets_cloudwatch_publish(
    stack: Cdk, account: Aws
) -> None:
    """The e-mail of `castai:alarmEmail` has a queue beside it, which the test reads."""
    del stack  # deployed with the topic
    options = account.client_options()
    sns: Any = account.session.client("sns", **options)
    cloudwatch: Any = account.session.client("cloudwatch", **options)
    topic = f"arn:aws:sns:{account.region}:{account.account}:{FUNCTION}-alarms"
    allow = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*"}
    queue = account.sqs.create_queue(
        QueueName="alarms", Attributes={"Policy": json.dumps({"Statement": [allow]})}
    )["QueueUrl"]
    endpoint = f"arn:aws:sqs:{account.region}:{account.account}:alarms"
    subscription = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=endpoint)

    def alarm() -> list[str]:
        """The names of the delivered alarms."""
        for state in ("OK", "ALARM"):
            cloudwatch.set_alarm_state(
                AlarmName=f"{FUNCTION}-Errors", StateValue=state, StateReason="test"
            )
        found = account.sqs.receive_message(QueueUrl=queue).get("Messages", [])
        return [json.loads(json.loads(each["Body"])["Message"])["AlarmName"] for each in found]

    def history() -> str:
        [newest, *_] = cloudwatch.describe_alarm_history(
            AlarmName=f"{FUNCTION}-Errors", HistoryItemType="Action"
        )["AlarmHistoryItems"]
        return str(newest["HistorySummary"])

    policy = sns.get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"]
    statements = json.loads(policy)["Statement"]
    tls_only = {"Statement": [each for each in statements if each["Effect"] == "Deny"]}
    assert len(tls_only["Statement"]) == 1
    key = {"AttributeName": "KmsMasterKeyId"}
    try:
        assert alarm() == [f"{FUNCTION}-Errors"]
        assert history() == f"Successfully executed action {topic}"
        sns.set_topic_attributes(
            TopicArn=topic, AttributeName="Policy", AttributeValue=json.dumps(tls_only)
        )
        assert alarm() == []
        assert "not authorized to perform: SNS:Publish on resource" in history()
        sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
        key["AttributeValue"] = "alias/aws/sns"
        sns.set_topic_attributes(TopicArn=topic, **key)
        assert alarm() == []
        assert "AWSKMS" in history()
    finally:
        sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
        sns.set_topic_attributes(TopicArn=topic, **key | {"AttributeValue": ""})
        sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
        account.sqs.delete_queue(QueueUrl=queue)
