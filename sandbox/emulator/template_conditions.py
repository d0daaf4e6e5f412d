"""Fn::Join in a template's conditions, which the emulator takes for a constant.

The bootstrap template has one: its execution role would have no policy.
"""

from typing import Any

import guard

_USERS = ("engine", "stacks", "handlers", "changesets")


def install() -> None:
    """Patch the emulator to join before it evaluates the conditions."""
    modules = [guard.module(f"ministack.services.cloudformation.{name}") for name in _USERS]
    evaluate = guard.function(modules[0], "_evaluate_conditions", "template", "params")

    def evaluate_joined(template: dict[str, Any], params: dict[str, Any]) -> Any:
        conditions = joined(template.get("Conditions", {}), params)
        return evaluate({**template, "Conditions": conditions}, params)

    for module in modules:
        guard.function(module, "_evaluate_conditions", "template", "params")
        module._evaluate_conditions = evaluate_joined  # type: ignore[attr-defined]


def joined(value: Any, params: dict[str, Any]) -> Any:
    """Return the value with the text of each Fn::Join. Lists are parameters or literals."""
    if isinstance(value, list):
        return [joined(each, params) for each in value]
    if not isinstance(value, dict):
        return value
    if "Fn::Join" not in value:
        return {key: joined(each, params) for key, each in value.items()}
    separator, parts = value["Fn::Join"]
    found = _value(parts, params)
    return separator.join(
        str(_value(part, params))
        for part in (found.split(",") if isinstance(found, str) else found)
    )


def _value(value: Any, params: dict[str, Any]) -> Any:
    if isinstance(value, dict) and value.get("Ref") in params:
        return params[value["Ref"]]["Value"]
    return joined(value, params)
