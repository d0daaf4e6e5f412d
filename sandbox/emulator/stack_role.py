"""CloudFormation acts as the stack's role, or as the caller where the stack has none.

The emulator changes every resource without a check. Here each change is evaluated with the
policies of the acting principal, as on AWS: a bootstrap with a narrower execution policy fails.
Source: CloudFormation user guide, "CloudFormation service role".
"""

import contextvars
from collections.abc import Callable
from typing import Any

import guard
from authorization import Parameters, first
from permissions import Permissions
from resource_permissions import CREATE, DELETE, UPDATE, Resource, checks

_acting: contextvars.ContextVar[Any] = contextvars.ContextVar("acting")
_caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="")
_CHANGES = (
    "CreateStack",
    "UpdateStack",
    "DeleteStack",
    "CreateChangeSet",
    "ExecuteChangeSet",
    "RollbackStack",
    "ContinueUpdateRollback",
)


class DeniedError(Exception):
    """The acting principal may not change the resource."""


class StackRole:
    """Wraps the operations on stacks and those on resources."""

    def __init__(self, permissions: Permissions) -> None:
        self._permissions = permissions
        self._formation = guard.module("ministack.services.cloudformation")
        self._stacks = guard.module("ministack.services.cloudformation.stacks")
        self._handlers = guard.module("ministack.services.cloudformation.handlers")
        self._change_sets = guard.module("ministack.services.cloudformation.changesets")
        helpers = guard.module("ministack.services.cloudformation.helpers")
        router = guard.module("ministack.core.router")
        self._responses = guard.module("ministack.core.responses")
        self._key_of = guard.function(router, "extract_access_key_id", "headers", "query_params")
        self._refusal = guard.function(helpers, "_error", "code", "message", "status")
        guard.function(self._handlers, "_resolve_stack", "stack_name")
        guard.function(self._change_sets, "_find_change_set", "cs_name", "stack_name")
        guard.function(self._stacks, "_replacing_change", "resource_type", "old_props", "new_props")

    def install(self) -> None:
        """Patch the emulator's CloudFormation."""
        serve = guard.function(self._formation, "handle_request", "method", "path", "headers")

        async def with_caller(
            method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]
        ) -> Any:
            _caller.set(self._key_of(headers, query))
            return await serve(method, path, headers, body, query)

        self._formation.handle_request = with_caller  # type: ignore[attr-defined]
        actions = guard.value(self._formation, "_ACTION_HANDLERS", dict)
        for name in _CHANGES:
            actions[name] = self._acting_in(actions[name])
        self._wrap_resources()

    def _acting_in(self, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def handle(params: Parameters) -> Any:
            role = first(params, "RoleARN") or self._remembered(params)
            principal = self._permissions.caller(_caller.get())
            if role:
                principal = self._permissions.assumed(role, "cloudformation.amazonaws.com")
            if principal is None:
                message = f"Role {role} is invalid or cannot be assumed"
                return self._refusal("ValidationError", message, 400)
            before = _acting.set(principal)  # the stack's task copies it
            try:
                answer = handler(params)
            finally:
                _acting.reset(before)
            for record in self._records(params):
                record["_role"] = role
            return answer

        return handle

    def _records(self, params: Parameters) -> list[dict[str, Any]]:
        """Return the change set and the stack that the request names."""
        stack_name, name = first(params, "StackName"), first(params, "ChangeSetName")
        _id, change_set = self._change_sets._find_change_set(name, stack_name)
        stack_name = stack_name or (change_set or {}).get("StackName", "")
        stack = self._handlers._resolve_stack(stack_name)
        return [record for record in (change_set, stack) if record]

    def _remembered(self, params: Parameters) -> str:
        """Return the role of the change set, else of the stack's last change; empty if none."""
        return next(filter(None, (each.get("_role") for each in self._records(params))), "")

    def _wrap_resources(self) -> None:
        stacks = self._stacks
        create = guard.function(stacks, "_provision_resource", "resource_type", "logical_id")
        update = guard.function(stacks, "_update_resource", "resource_type", "physical_id")
        delete = guard.function(stacks, "_delete_resource", "resource_type", "physical_id")

        def checked_create(kind: str, logical_id: str, props: Any, stack: str) -> Any:
            self._check(CREATE, kind, props, f"{stack}-{logical_id}-000000000000")
            return create(kind, logical_id, props, stack)

        def checked_update(
            kind: str, physical_id: str, old: Any, new: Any, *rest: Any, **named: Any
        ) -> Any:
            if stacks._replacing_change(kind, old, new):
                self._check(CREATE, kind, new, physical_id)
                self._check(DELETE, kind, old, physical_id)
            elif old != new:
                self._check(UPDATE, kind, {**old, **new}, physical_id)  # removals included
            return update(kind, physical_id, old, new, *rest, **named)

        def checked_delete(kind: str, physical_id: str, props: Any, *rest: Any) -> Any:
            self._check(DELETE, kind, props, physical_id)
            return delete(kind, physical_id, props, *rest)

        stacks._provision_resource = checked_create  # type: ignore[attr-defined]
        stacks._update_resource = checked_update  # type: ignore[attr-defined]
        stacks._delete_resource = checked_delete  # type: ignore[attr-defined]

    def _check(self, operation: str, kind: str, props: Any, identifier: str) -> None:
        """Raise DeniedError for the first action that the acting principal may not do."""
        region, account = self._responses.get_region(), self._responses.get_account_id()
        properties = props if isinstance(props, dict) else {}
        for check in checks(operation, Resource(kind, properties, identifier, region, account)):
            if message := self._permissions.refusal(_acting.get(), check, region):
                raise DeniedError(f'Resource handler returned message: "{message}"')
