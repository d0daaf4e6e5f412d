"""A Lambda function from a package of lambdas/, with its own log group, bundled without Docker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import jsii
from aws_cdk import (
    AssetHashType,
    BundlingOptions,
    DockerImage,
    Duration,
    ILocalBundling,
    RemovalPolicy,
)
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.constructs.bundling import LAMBDA_PYTHON, LOCKS, ROOT, Bundle, Target
from stacks.constructs.nag import acknowledge

ARCHITECTURES = {
    "arm64": lambda_.Architecture.ARM_64,
    "x86_64": lambda_.Architecture.X86_64,
}


class PythonFunction(lambda_.Function):
    """`lambdas.<package>.handler.lambda_handler` under the given name and role.

    `log_level` is the handler's own threshold. Lambda's threshold must not be higher. Subnets and
    security groups are ids, so that no VPC is looked up at synth; empty: no VPC.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,  # noqa: A002 - CDK's own name for it
        *,
        package: str,
        name: str,
        role: iam.IRole,
        description: str,
        target: Target,
        memory_mb: int,
        timeout: Duration,
        log_level: str,
        log_retention_days: int,
        environment: Mapping[str, str],
        tracing: bool = False,
        snap_start: bool = False,
        reserved_concurrency: int | None = None,
        subnet_ids: Sequence[str] = (),
        security_group_ids: Sequence[str] = (),
    ) -> None:
        bundle = Bundle(package, LOCKS[package], target)
        self.code_version = bundle.code_version()
        self.own_log_group = _log_group(scope, f"{id}Log", name, log_retention_days)
        super().__init__(
            scope,
            id,
            function_name=name,
            description=description,
            runtime=lambda_.Runtime(
                f"python{target.runtime}",
                lambda_.RuntimeFamily.PYTHON,
                supports_snap_start=True,  # aws-cdk-lib does not list all; the settings check it
            ),
            architecture=ARCHITECTURES[target.architecture],
            handler=f"lambdas.{package}.handler.lambda_handler",
            code=_code(bundle),
            role=role,
            memory_size=memory_mb,
            timeout=timeout,
            environment=dict(environment),
            log_group=self.own_log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            # Metrics are log lines without a level. Lambda treats them as INFO, so a higher
            # threshold here would drop them. The handler's own logger applies log_level.
            application_log_level_v2=lambda_.ApplicationLogLevel.DEBUG
            if log_level == "DEBUG"
            else lambda_.ApplicationLogLevel.INFO,
            system_log_level_v2=lambda_.SystemLogLevel.INFO,
            tracing=lambda_.Tracing.ACTIVE if tracing else lambda_.Tracing.DISABLED,
            snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS if snap_start else None,
            reserved_concurrent_executions=reserved_concurrency,
        )
        if target.runtime != LAMBDA_PYTHON:
            acknowledge(
                self,
                {"L1": f"castai:python is {target.runtime}, which Lambda also supports."},
            )
        if subnet_ids:
            cast(
                "lambda_.CfnFunction", self.node.default_child
            ).vpc_config = lambda_.CfnFunction.VpcConfigProperty(
                subnet_ids=list(subnet_ids), security_group_ids=list(security_group_ids)
            )


def _log_group(scope: Construct, id: str, function_name: str, days: int) -> logs.LogGroup:  # noqa: A002 - CDK's own name for it
    group = logs.LogGroup(
        scope,
        id,
        log_group_name=f"/aws/lambda/{function_name}",
        removal_policy=RemovalPolicy.DESTROY,  # destroying the stack leaves nothing behind
    )
    cast("logs.CfnLogGroup", group.node.default_child).retention_in_days = days
    return group


def _code(bundle: Bundle) -> lambda_.Code:
    return lambda_.Code.from_asset(
        str(ROOT / "lambdas"),
        asset_hash_type=AssetHashType.CUSTOM,
        asset_hash=bundle.fingerprint(),
        bundling=BundlingOptions(
            image=DockerImage.from_registry("none"),  # required by the interface, never pulled
            local=_LocalBundling(bundle),
        ),
    )


@jsii.implements(ILocalBundling)
class _LocalBundling:
    """Bundling on this machine, for CDK. An error ends the synth."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def try_bundle(self, output_dir: str, *_options: object, **_more: object) -> bool:
        self._bundle.build(Path(output_dir))
        return True
