"""All additions to the emulator, in the order in which they are installed.

Import it after the emulator's settings are in the environment: the emulator reads them at import.
"""

from typing import Any

import access_entry
import access_policies
import cluster_vpc
import delete_conflicts
import external_cluster
import groups_in_use
import guard
import price_api
import principals
import role_logs
import root_logger
import secret_deletion
import template_conditions
from alarm_actions import AlarmActions
from asynchronous import AsyncInvocations
from condition_keys import ConditionKeys
from control_api import ControlApi
from faults import Faults
from further_checks import FurtherChecks
from permissions import Permissions
from rule_targets import RuleTargets
from stack_role import StackRole


def install(config: dict[str, Any], endpoint: str) -> tuple[ControlApi, AsyncInvocations]:
    """Patch the emulator. Returns its application, and the invocations to end with it.

    Raises EmulatorChangedError if the emulator lacks something that a patch needs.
    """
    application = guard.module("ministack.app")
    guard.function(application, "app", "scope", "receive", "send")
    permissions = Permissions()
    invocations = AsyncInvocations(config["concurrency"], config["retry_pause"], endpoint)
    invocations.install()
    RuleTargets(invocations, permissions).install()
    role_logs.install(permissions)
    root_logger.install()
    ConditionKeys().install()
    FurtherChecks().install()
    StackRole(permissions).install()
    AlarmActions(permissions).install()
    price_api.install()
    faults = Faults()
    faults.install()
    for module in (
        template_conditions,
        access_entry,
        access_policies,
        principals,
        cluster_vpc,
        groups_in_use,
        delete_conflicts,
        secret_deletion,
    ):
        module.install()
    external_cluster.install(config.get("secret", ""))
    control_api = ControlApi(
        application.app,
        token=config["token"],
        account=config["account"],
        region=config["region"],
        endpoint=endpoint,
        invocations=invocations,
        faults=faults,
    )
    return control_api, invocations
