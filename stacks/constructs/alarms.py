"""CloudWatch alarms of the spot handler, for everything that may leave a node undrained."""

from __future__ import annotations

from aws_cdk import ArnFormat, Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from lambdas.common.names import METRICS_NAMESPACE, METRICS_SERVICE
from stacks.settings import SpotHandlerSettings


class SpotAlarms(Construct):
    """Errors, throttles, dead letters and pods left; each fires at the first one in a minute."""

    def __init__(
        self,
        scope: Construct,
        id: str,  # noqa: A002 - CDK's own name for it
        *,
        name: str,
        settings: SpotHandlerSettings,
        function: lambda_.IFunction,
        failures: sqs.IQueue,
    ) -> None:
        super().__init__(scope, id)
        minute = Duration.minutes(1)
        topic = _topic(self, settings, name)
        # An alarm reads one combination of dimensions and cannot search. So the handler emits
        # PodsLeft twice: with service, cluster and outcome, and with service alone.
        pods_left = cloudwatch.Metric(
            namespace=METRICS_NAMESPACE,
            metric_name="PodsLeft",
            dimensions_map={"service": METRICS_SERVICE},
            statistic="Sum",
            period=minute,
        )
        for alarm_id, metric, description in (
            (
                "Errors",
                function.metric_errors(period=minute),
                "The spot handler failed: a node may not have been drained. Look at its log.",
            ),
            (
                "Throttles",
                function.metric_throttles(period=minute),
                "Notices waited for an execution: raise the reserved or the account's concurrency.",
            ),
            (
                "DeadLetters",
                failures.metric_approximate_number_of_messages_visible(
                    period=minute, statistic="Maximum"
                ),
                "Notices were not handled. They are in the failure queue, with the reason.",
            ),
            (
                "PodsLeft",
                pods_left,
                "Pods were still on a node at its instance's interruption. The log names them.",
            ),
        ):
            alarm = metric.create_alarm(
                self,
                alarm_id,
                alarm_name=f"{name}-{alarm_id}",
                alarm_description=description,
                threshold=1,
                evaluation_periods=1,
                comparison_operator=(
                    cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD
                ),
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            )
            if topic:
                alarm.add_alarm_action(actions.SnsAction(topic))


def _topic(scope: Construct, settings: SpotHandlerSettings, name: str) -> sns.ITopic | None:
    """The topic of the alarms, if one is set. `name` is the first part of its name."""
    if settings.alarm_topic_arn:
        return sns.Topic.from_topic_arn(scope, "Topic", settings.alarm_topic_arn)
    if settings.alarm_email:
        # No KMS key: CloudWatch cannot publish to a topic with SNS's own key (alias/aws/sns).
        topic = sns.Topic(scope, "Topic", topic_name=f"{name}-alarms", enforce_ssl=True)
        topic.add_to_resource_policy(_for_alarms(topic, name))
        topic.add_subscription(subscriptions.EmailSubscription(settings.alarm_email))
        return topic
    return None


def _for_alarms(topic: sns.ITopic, name: str) -> iam.PolicyStatement:
    """Let CloudWatch publish for our alarms. A topic's own policy replaces SNS's default one.

    https://docs.aws.amazon.com/sns/latest/dg/sns-access-policy-use-cases.html
    """
    stack = Stack.of(topic)
    alarms = stack.format_arn(
        service="cloudwatch",
        resource="alarm",
        resource_name=f"{name}-*",
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )
    return iam.PolicyStatement(
        sid="AllowAlarms",
        principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
        actions=["sns:Publish"],
        resources=[topic.topic_arn],
        conditions={
            "ArnLike": {"aws:SourceArn": alarms},
            "StringEquals": {"aws:SourceAccount": stack.account},
        },
    )
