"""The spot handler's stack: function, rules, queue, role, access entries, alarms."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

from lambdas.common.clock import SYSTEM
from lambdas.onboarding.policies import functions
from lambdas.spot_handler import notices, report
from lambdas.spot_handler.handler import REPORT_RESERVE
from lambdas.spot_handler.result import Outcome, Result
from lambdas.spot_handler.settings import Environment
from stacks.constructs.bundling import LOCAL
from stacks.constructs.spot_rules import EVENT_KINDS, RETURNED
from tests.infra.checks import text
from tests.infra.conftest import ACCOUNT, VARIANTS, Assembly, Stack, Synthesise, without_assets
from tests.support.iam_evaluator import Request, is_allowed

FUNCTION = "AWS::Lambda::Function"
ROLE = "AWS::IAM::Role"
RULE = "AWS::Events::Rule"
QUEUE = "AWS::SQS::Queue"
ALARM = "AWS::CloudWatch::Alarm"
ENTRY = "AWS::EKS::AccessEntry"


def arn(logical: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [logical, "Arn"]}


def managed(name: str) -> dict[str, Any]:
    return {"Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, f":iam::aws:policy/{name}"]]}


def statements(stack: Stack) -> dict[str, tuple[list[str], list[str]]]:
    """The actions and resources of the role's statements by Sid, each sorted."""
    (policy,) = stack.one(ROLE)["Policies"]

    def many(value: Any) -> list[Any]:
        return value if isinstance(value, list) else [value]

    found = {}
    for statement in policy["PolicyDocument"]["Statement"]:
        denied = statement["Sid"] == "NoInterfacesForCode"
        bound = {"Condition"} if denied or statement["Sid"] == "DecryptApiKey" else set()
        assert statement.keys() == {"Sid", "Effect", "Action", "Resource", *bound}
        assert statement["Effect"] == ("Deny" if denied else "Allow")
        resources = sorted(text(resource) for resource in many(statement["Resource"]))
        found[statement["Sid"]] = (sorted(many(statement["Action"])), resources)
    return found


class TestFunction:
    def test_it_has_the_newest_python_on_arm64_and_the_handlers_dotted_path(
        self, default: Stack
    ) -> None:
        function = default.one(FUNCTION)
        assert function["Runtime"] == "python3.14"
        assert function["Architectures"] == ["arm64"]
        assert function["Handler"] == "lambdas.spot_handler.handler.lambda_handler"

    def test_its_time_out_is_longer_than_the_notice_and_the_report(self, default: Stack) -> None:
        assert default.one(FUNCTION)["Timeout"] > notices.NOTICE_PERIOD + REPORT_RESERVE

    def test_it_logs_json_to_its_own_log_group_with_retention(self, default: Stack) -> None:
        logging = default.one(FUNCTION)["LoggingConfig"]
        assert logging["LogFormat"] == "JSON"
        assert logging["LogGroup"] == {"Ref": default.id("AWS::Logs::LogGroup")}
        assert default.one("AWS::Logs::LogGroup") == {
            "LogGroupName": "/aws/lambda/castai-spot-handler",
            "RetentionInDays": 30,
        }

    @pytest.mark.parametrize(
        ("name", "threshold"), [("default", "INFO"), ("everything", "INFO"), ("imported", "DEBUG")]
    )
    def test_lambdas_log_level_drops_neither_metrics_nor_lines_of_the_handler(
        self, synthesise: Synthesise, name: str, threshold: str
    ) -> None:
        stack = synthesise(VARIANTS[name]).stack("spot-handler")
        logging = stack.one(FUNCTION)["LoggingConfig"]
        assert logging["ApplicationLogLevel"] == threshold

    def test_the_handler_parses_its_environment(self, default: Stack, everything: Stack) -> None:
        environment = everything.one(FUNCTION)["Environment"]["Variables"]
        settings = Environment.from_env(environment)
        assert settings == Environment.from_env(
            {
                "MODE": "cordon",
                "ON_DEADLINE": "leave",
                "CONCURRENCY": "20",
                "MARGIN_SECONDS": "2.5",
                "CLUSTERS": "blue,green",
                "DRILL_SOURCES": "platform.drill",
                "LOG_LEVEL": "ERROR",
                "CASTAI_API_KEY_SECRET": "castai/api-key",
            }
        )
        assert (
            Environment.from_env(default.one(FUNCTION)["Environment"]["Variables"]) == Environment()
        )

    def test_every_variable_of_the_environment_is_one_of_the_handlers(
        self, everything: Stack
    ) -> None:
        assert set(everything.one(FUNCTION)["Environment"]["Variables"]) <= set(
            Environment.__struct_encode_fields__
        )

    def test_vpc_tracing_snapstart_and_concurrency_are_set_by_context_only(
        self, default: Stack, everything: Stack
    ) -> None:
        optional = {"VpcConfig", "TracingConfig", "SnapStart", "ReservedConcurrentExecutions"}
        assert not default.one(FUNCTION).keys() & optional
        function = everything.one(FUNCTION)
        assert function["VpcConfig"] == {
            "SubnetIds": ["subnet-0a1b2c3d", "subnet-0a1b2c3e"],
            "SecurityGroupIds": ["sg-0a1b2c3d"],
        }
        assert function["TracingConfig"] == {"Mode": "Active"}
        assert function["SnapStart"] == {"ApplyOn": "PublishedVersions"}
        assert function["ReservedConcurrentExecutions"] == 50

    def test_local_bundling_has_this_machines_architecture(self, imported: Stack) -> None:
        assert imported.one(FUNCTION)["Architectures"] == [LOCAL.architecture]


class TestDelivery:
    def test_there_is_a_rule_for_each_kind_of_event_that_the_handler_parses(self) -> None:
        kinds = (*EVENT_KINDS, RETURNED)
        assert {(kind.source, kind.detail_type) for kind in kinds} == set(notices.PARSERS)

    def test_with_uncordon_returned_there_is_a_rule_for_running_instances(
        self, synthesise: Synthesise
    ) -> None:
        stack = synthesise({"castai:uncordonReturned": True}).stack("spot-handler")
        rules = stack.all(RULE).values()
        (rule,) = (found for found in rules if "detail" in found["EventPattern"])
        assert rule["EventPattern"] == {
            "source": ["aws.ec2"],
            "detail-type": ["EC2 Instance State-change Notification"],
            "detail": {"state": ["running"]},
        }

    def test_the_rule_is_on_the_default_bus_and_matches_aws_only(self, default: Stack) -> None:
        rule = default.one(RULE)
        assert "EventBusName" not in rule
        assert rule["Name"] == "castai-spot-handler-SpotInterruption"
        assert rule["State"] == "ENABLED"
        assert rule["EventPattern"] == {
            "source": ["aws.ec2"],
            "detail-type": ["EC2 Spot Instance Interruption Warning"],
        }

    def test_drill_sources_are_in_the_event_pattern(self, everything: Stack) -> None:
        assert everything.one(RULE)["EventPattern"]["source"] == ["aws.ec2", "platform.drill"]

    @pytest.mark.parametrize("name", ["default", "everything"])
    def test_only_the_rule_may_invoke_its_target(self, synthesise: Synthesise, name: str) -> None:
        stack = synthesise(VARIANTS[name]).stack("spot-handler")
        (target,) = stack.one(RULE)["Targets"]
        permission = stack.one("AWS::Lambda::Permission")
        assert permission["FunctionName"] == target["Arn"]
        assert permission["Principal"] == "events.amazonaws.com"
        assert permission["SourceArn"] == arn(stack.id(RULE))

    def test_eventbridge_and_lambda_drop_events_older_than_the_notice(self, default: Stack) -> None:
        (target,) = default.one(RULE)["Targets"]
        invocation = default.one("AWS::Lambda::EventInvokeConfig")
        assert target["RetryPolicy"]["MaximumEventAgeInSeconds"] == notices.NOTICE_PERIOD
        assert invocation["MaximumEventAgeInSeconds"] == notices.NOTICE_PERIOD
        # Lambda's second retry is three minutes after the first invocation.
        assert invocation["MaximumRetryAttempts"] == 1

    def test_eventbridge_and_lambda_send_failed_events_to_the_failure_queue(
        self, default: Stack
    ) -> None:
        queue = arn(default.id(QUEUE))
        (target,) = default.one(RULE)["Targets"]
        invocation = default.one("AWS::Lambda::EventInvokeConfig")
        assert target["DeadLetterConfig"]["Arn"] == queue
        assert invocation["DestinationConfig"] == {"OnFailure": {"Destination": queue}}

    def test_with_snapstart_the_alias_is_invoked_and_configured(self, everything: Stack) -> None:
        (target,) = everything.one(RULE)["Targets"]
        alias = everything.id("AWS::Lambda::Alias")
        assert target["Arn"] == {"Ref": alias}
        # From the alias's ARN, so that the alias is created before its configuration.
        qualifier = everything.one("AWS::Lambda::EventInvokeConfig")["Qualifier"]
        assert qualifier == {"Fn::Select": [7, {"Fn::Split": [":", {"Ref": alias}]}]}

    def test_the_queue_is_encrypted_requires_tls_and_keeps_messages_two_weeks(
        self, default: Stack
    ) -> None:
        queue = default.one(QUEUE)
        assert queue["SqsManagedSseEnabled"] is True
        assert queue["MessageRetentionPeriod"] == 14 * 24 * 3600
        deny, allow = default.one("AWS::SQS::QueuePolicy")["PolicyDocument"]["Statement"]
        assert deny["Effect"] == "Deny"
        assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert allow["Principal"] == {"Service": "events.amazonaws.com"}
        assert allow["Condition"] == {"ArnEquals": {"aws:SourceArn": arn(default.id(RULE))}}


class TestRole:
    def test_it_has_this_name_trust_policy_and_tag(self, default: Stack) -> None:
        role = default.one(ROLE)
        assert role["RoleName"] == "CastLambdaRoleForSpot"
        assert role["AssumeRolePolicyDocument"] == functions.lambda_trust("aws")
        assert {"Key": "cast:managed-by", "Value": "cast.ai"} in role["Tags"]
        assert default.one(FUNCTION)["Role"] == arn(default.id(ROLE))

    def test_managed_has_the_documented_policies_and_two_more_statements(
        self, default: Stack
    ) -> None:
        assert default.one(ROLE)["ManagedPolicyArns"] == [
            managed("CloudWatchLogsFullAccess"),
            managed("service-role/AWSLambdaRole"),
            managed("AmazonEC2ReadOnlyAccess"),
        ]
        here = "<Region>:<AccountId>"
        assert statements(default) == {
            "FindCluster": (
                ["eks:DescribeCluster"],
                [f"arn:<Partition>:eks:{here}:cluster/*"],
            ),
            "KeepFailedNotices": (
                ["sqs:SendMessage"],
                [f"arn:<Partition>:sqs:{here}:castai-spot-handler-failures"],
            ),
        }

    def test_least_privilege_has_these_statements_for_the_regions_of_the_role(
        self, everything: Stack
    ) -> None:
        assert "ManagedPolicyArns" not in everything.one(ROLE)
        central, west = (f"{region}:<AccountId>" for region in ("eu-central-1", "eu-west-1"))
        assert statements(everything) == {
            "WriteOwnLog": (
                ["logs:CreateLogStream", "logs:PutLogEvents"],
                [
                    f"arn:<Partition>:logs:{place}:log-group:/aws/lambda/acme-spot-handler:*"
                    for place in (central, west)
                ],
            ),
            "FindInstance": (["ec2:DescribeInstances"], ["*"]),
            "FindCluster": (
                ["eks:DescribeCluster"],
                # This stack does not have the names of the clusters of the other region.
                [f"arn:<Partition>:eks:{place}:cluster/*" for place in (central, west)],
            ),
            "KeepFailedNotices": (
                ["sqs:SendMessage"],
                [
                    f"arn:<Partition>:sqs:{place}:acme-spot-handler-failures"
                    for place in (central, west)
                ],
            ),
            "ReadApiKey": (
                ["secretsmanager:GetSecretValue"],
                [
                    f"arn:<Partition>:secretsmanager:{place}:secret:castai/api-key-??????"
                    for place in (central, west)
                ],
            ),
            "Trace": (["xray:PutTelemetryRecords", "xray:PutTraceSegments"], ["*"]),
            "AttachToVpc": (
                [
                    "ec2:AssignPrivateIpAddresses",
                    "ec2:CreateNetworkInterface",
                    "ec2:DeleteNetworkInterface",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:DescribeSubnets",
                    "ec2:UnassignPrivateIpAddresses",
                ],
                ["*"],
            ),
            "NoInterfacesForCode": (
                [
                    "ec2:AssignPrivateIpAddresses",
                    "ec2:CreateNetworkInterface",
                    "ec2:DeleteNetworkInterface",
                    "ec2:UnassignPrivateIpAddresses",
                ],
                ["*"],
            ),
        }

    def test_a_role_of_one_region_may_describe_the_listed_clusters_only(
        self, synthesise: Synthesise
    ) -> None:
        assembly = synthesise({"castai:clusters": "blue"})
        _, resources = statements(assembly.stack("spot-handler"))["FindCluster"]
        assert resources == ["arn:<Partition>:eks:<Region>:<AccountId>:cluster/blue"]

    def test_the_statements_have_the_names_of_log_group_and_queue(self, everything: Stack) -> None:
        found = statements(everything)
        group = everything.one("AWS::Logs::LogGroup")["LogGroupName"]
        queue = everything.one(QUEUE)["QueueName"]
        assert all(f":{group}:" in resource for resource in found["WriteOwnLog"][1])
        assert all(r.endswith(f":{queue}") for r in found["KeepFailedNotices"][1])

    def test_it_may_read_the_api_key_and_use_its_kms_key(self, synthesise: Synthesise) -> None:
        key = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/0a1b2c3d"
        secret = f"arn:aws:secretsmanager:eu-central-1:{ACCOUNT}:secret:castai-AbCdEf"
        context = {"castai:apiKeySecret": secret, "castai:apiKeyKmsKey": key}
        found = statements(synthesise(context).stack("spot-handler"))
        assert found["ReadApiKey"] == (["secretsmanager:GetSecretValue"], [secret])
        assert found["DecryptApiKey"] == (["kms:Decrypt"], [key])

    @pytest.mark.parametrize("name", ["default", "everything", "imported"])
    def test_there_is_no_other_policy_of_the_role(self, synthesise: Synthesise, name: str) -> None:
        template = synthesise(VARIANTS[name]).stack("spot-handler").template
        kinds = {resource["Type"] for resource in template["Resources"].values()}
        assert not kinds & {"AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy"}

    def test_an_imported_role_is_used_and_not_changed(self, imported: Stack) -> None:
        assert imported.all(ROLE) == {}
        assert text(imported.one(FUNCTION)["Role"]) == (
            "arn:<Partition>:iam::<AccountId>:role/CastLambdaRoleForSpot"
        )

    def test_it_has_the_permissions_boundary_of_the_settings(
        self, default: Stack, everything: Stack
    ) -> None:
        assert "PermissionsBoundary" not in default.one(ROLE)
        assert text(everything.one(ROLE)["PermissionsBoundary"]) == (
            "arn:<Partition>:iam::<AccountId>:policy/platform/Boundary"
        )


class TestClusterAccess:
    def test_the_role_joins_the_group_in_each_listed_cluster(self, everything: Stack) -> None:
        entries = everything.all(ENTRY).values()
        assert {entry["ClusterName"] for entry in entries} == {"blue", "green"}
        for entry in entries:
            assert entry["PrincipalArn"] == arn(everything.id(ROLE))
            assert entry["Type"] == "STANDARD"
            assert entry["KubernetesGroups"] == ["castai:spot-handler"]
            assert "AccessPolicies" not in entry

    def test_there_is_no_entry_without_listed_clusters_or_cluster_access(
        self, default: Stack, imported: Stack
    ) -> None:
        assert default.all(ENTRY) == {}
        assert imported.all(ENTRY) == {}


class TestAlarms:
    def test_there_is_one_for_each_metric_of_a_failed_drain(self, default: Stack) -> None:
        found = {
            (alarm["Namespace"], alarm["MetricName"], alarm["Statistic"])
            for alarm in default.all(ALARM).values()
        }
        assert found == {
            ("AWS/Lambda", "Errors", "Sum"),
            ("AWS/Lambda", "Throttles", "Sum"),
            ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum"),
            ("CastAI/SpotHandler", "PodsLeft", "Sum"),
        }
        for alarm in default.all(ALARM).values():
            assert (alarm["Threshold"], alarm["EvaluationPeriods"], alarm["Period"]) == (1, 1, 60)
            assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
            assert alarm["TreatMissingData"] == "notBreaching"

    def test_the_alarm_on_pods_left_has_namespace_and_dimensions_of_the_handlers_metric(
        self, default: Stack, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (alarm,) = (a for a in default.all(ALARM).values() if a["MetricName"] == "PodsLeft")
        now = SYSTEM.now()
        report.measure(Result(Outcome.PARTIAL, reason="", started=now, ended=now))
        written = set()
        for line in capsys.readouterr().out.splitlines():
            record = json.loads(line)
            for metrics in record["_aws"]["CloudWatchMetrics"]:
                for names in metrics["Dimensions"]:
                    values = tuple(sorted((name, record[name]) for name in names))
                    written |= {
                        (metrics["Namespace"], metric["Name"], values)
                        for metric in metrics["Metrics"]
                    }
        dimensions = tuple(sorted((d["Name"], d["Value"]) for d in alarm["Dimensions"]))
        assert (alarm["Namespace"], "PodsLeft", dimensions) in written

    def test_alarms_are_sent_to_the_topic_of_the_settings(
        self, default: Stack, everything: Stack, imported: Stack
    ) -> None:
        assert default.all("AWS::SNS::Topic") == {}
        assert all("AlarmActions" not in alarm for alarm in default.all(ALARM).values())
        topic = {"Ref": everything.id("AWS::SNS::Topic")}
        assert all(alarm["AlarmActions"] == [topic] for alarm in everything.all(ALARM).values())
        subscription = everything.one("AWS::SNS::Subscription")
        assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "ops@example.org")
        assert "KmsMasterKeyId" not in everything.one(
            "AWS::SNS::Topic"
        )  # CloudWatch alarms cannot use the AWS managed key
        own = VARIANTS["imported"]["castai:alarmTopicArn"]
        assert imported.all("AWS::SNS::Topic") == {}
        assert all(alarm["AlarmActions"] == [own] for alarm in imported.all(ALARM).values())


@pytest.mark.parametrize(
    ("region", "partition"),
    [("eu-central-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")],
)
class TestTopicPolicy:
    """The topic's policy, which replaces SNS's default policy: it decides who may publish."""

    @pytest.fixture
    def may_publish(
        self, synthesise: Synthesise, region: str, partition: str
    ) -> Callable[..., bool]:
        settings = VARIANTS["everything"] | {"castai:snapStart": False}
        stack = synthesise(settings, region).stack("spot-handler")
        topic = {"Ref": stack.id("AWS::SNS::Topic")}
        policy = stack.one("AWS::SNS::TopicPolicy")
        assert policy["Topics"] == [topic]
        arn = f"arn:{partition}:sns:{region}:{ACCOUNT}:acme-spot-handler-alarms"
        statements = json.loads(
            json.dumps(policy["PolicyDocument"]["Statement"]).replace(
                json.dumps(topic), json.dumps(arn)
            )
        )
        (name, *_) = (alarm["AlarmName"] for alarm in stack.all(ALARM).values())
        alarm = f"arn:{partition}:cloudwatch:{region}:{ACCOUNT}:alarm:{name}"

        def may_publish(service: str = "cloudwatch.amazonaws.com", **changes: str) -> bool:
            context = {"SecureTransport": "true", "SourceAccount": ACCOUNT, "SourceArn": alarm}
            aws = {f"aws:{key}": value for key, value in (context | changes).items()}
            own = [
                {key: part for key, part in statement.items() if key != "Principal"}
                for statement in statements
                if statement["Principal"] in ({"Service": service}, {"AWS": "*"}, "*")
            ]
            return is_allowed([{"Statement": own}], Request("sns:Publish", arn, aws))  # type: ignore[typeddict-item]

        return may_publish

    def test_cloudwatch_may_publish_for_our_alarms(self, may_publish: Callable[..., bool]) -> None:
        assert may_publish()

    def test_no_other_service_alarm_account_or_transport_may_publish(
        self, may_publish: Callable[..., bool], partition: str
    ) -> None:
        other = f"arn:{partition}:cloudwatch:eu-central-1:{ACCOUNT}:alarm:other"
        assert not may_publish("events.amazonaws.com")
        assert not may_publish(SourceArn=other)
        assert not may_publish(SourceAccount="999999999999")
        assert not may_publish(SecureTransport="false")


class TestStack:
    def test_stack_and_outputs_have_descriptions(self, default: Stack) -> None:
        assert default.template["Description"]
        outputs = default.template["Outputs"]
        assert outputs.keys() == {"FunctionName", "RoleArn", "LogGroupName", "FailureQueueUrl"}
        assert all(output["Description"] for output in outputs.values())

    def test_every_resource_with_tags_has_those_of_the_settings(self, everything: Stack) -> None:
        for kind in (FUNCTION, ROLE, QUEUE, ENTRY, ALARM, RULE, "AWS::Logs::LogGroup"):
            for properties in everything.all(kind).values():
                assert {"Key": "team", "Value": "platform"} in properties["Tags"], kind

    def test_every_resource_is_deleted_with_the_stack(self, variant: Assembly) -> None:
        for template in variant.templates.values():
            for logical, resource in template["Resources"].items():
                if resource["Type"] != "AWS::Lambda::Version":
                    assert resource.get("DeletionPolicy", "Delete") == "Delete", logical

    def test_snapshot(self, everything: Stack, snapshot: SnapshotAssertion) -> None:
        as_json = snapshot.use_extension(JSONSnapshotExtension)
        assert without_assets(everything.template) == as_json
