"""Deleted secrets keep their names for a while, as in Secrets Manager.

A forced deletion is asynchronous: for a moment the name cannot be used. Here the next CreateSecret
with the name is refused, so that a caller that does not try again fails each time.
Source: Secrets Manager API reference, DeleteSecret and CreateSecret.
"""

from collections.abc import Callable
from typing import Any

import guard

REFUSED = 1  # calls of CreateSecret after a forced deletion
_BEING_DELETED = (
    "You can't create this secret because a secret with this name is already scheduled for "
    "deletion."
)
_MARKED = "You can't perform this operation on the secret because it was marked for deletion."
_WRITES = (
    "_tag_resource",
    "_untag_resource",
    "_update_secret_version_stage",
    "_rotate_secret",
    "_put_resource_policy",
    "_delete_resource_policy",
)

Handler = Callable[[dict[str, Any]], Any]


def install() -> None:
    """Patch the emulator's Secrets Manager."""
    service = guard.module("ministack.services.secretsmanager")
    secrets = guard.value(service, "_secrets", object)
    create = guard.function(service, "_create_secret", "data")
    delete = guard.function(service, "_delete_secret", "data")
    resolve = guard.function(service, "_resolve", "secret_id")
    refusal = guard.function(service, "error_response_json", "code", "message", "status")
    responses = guard.module("ministack.core.responses")
    ending: dict[tuple[str, str, str], int] = {}  # calls left to refuse, by account, region, name

    def key_of(name: str) -> tuple[str, str, str]:
        return responses.get_account_id(), responses.get_region(), name

    def create_unless_ending(data: dict[str, Any]) -> Any:
        name = str(data.get("Name"))
        left = ending.get(key_of(name), 0)
        if left or (secrets.get(name) or {}).get("DeletedDate"):
            ending[key_of(name)] = max(0, left - 1)
            return refusal("InvalidRequestException", _BEING_DELETED, 400)
        return create(data)

    def delete_and_remember(data: dict[str, Any]) -> Any:
        _key, secret = resolve(data.get("SecretId"))
        answer = delete(data)
        if secret and data.get("ForceDeleteWithoutRecovery") and answer[0] == 200:
            ending[key_of(secret["Name"])] = REFUSED
        return answer

    def unless_deleted(handler: Handler) -> Handler:
        def handle(data: dict[str, Any]) -> Any:
            _key, secret = resolve(data.get("SecretId"))
            if secret and secret.get("DeletedDate"):
                return refusal("InvalidRequestException", _MARKED, 400)
            return handler(data)

        return handle

    service._create_secret = create_unless_ending  # type: ignore[attr-defined]
    service._delete_secret = delete_and_remember  # type: ignore[attr-defined]
    for name in _WRITES:
        setattr(service, name, unless_deleted(guard.function(service, name, "data")))
