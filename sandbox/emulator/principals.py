"""An access entry is bound to its principal's unique id, as in EKS.

The entry of a role or user that was deleted and created again gives no access any more, although
the ARN is the same. EKS does not create an entry for a principal that does not exist.
Source: EKS API reference, AccessEntry, principalArn.
"""

import re
from typing import Any

import guard

_PRINCIPAL = re.compile(r"arn:aws:iam::(\d{12}):(?:(role|user)/(?:.+/)?([^/]+)|root)")


def install() -> None:
    """Patch the emulator's EKS: record the id in a new entry, and compare it in a token review."""
    eks = guard.module("ministack.services.eks")
    build = guard.function(eks, "_build_access_entry", "cluster_name", "principal_arn", "body")
    create = guard.function(eks, "_create_access_entry", "cluster_name", "body")
    find = guard.function(
        eks, "_access_entry_for_principal", "cluster_name", "account_id", "region", "principal_arn"
    )
    refusal = guard.function(eks, "_error", "status", "code", "message")
    current = _Ids()
    recorded: dict[str, str] = {}  # unique id of the principal, by the entry's ARN

    def build_with_id(cluster_name: str, principal_arn: str, body: dict[str, Any]) -> Any:
        entry = build(cluster_name, principal_arn, body)
        recorded[entry["accessEntryArn"]] = current.of(principal_arn)
        return entry

    def create_if_exists(cluster_name: str, body: dict[str, Any]) -> Any:
        principal = str(body.get("principalArn", ""))
        if not _PRINCIPAL.fullmatch(principal):
            message = "The principalArn parameter format is not valid"
            return refusal(400, "InvalidParameterException", message)
        if not current.of(principal):
            message = "The specified principalArn is invalid: invalid principal."
            return refusal(400, "InvalidParameterException", message)
        return create(cluster_name, body)

    def find_same(cluster_name: str, account_id: str, region: str, principal_arn: str) -> Any:
        entry = find(cluster_name, account_id, region, principal_arn)
        if entry and recorded.get(entry["accessEntryArn"]) == current.of(entry["principalArn"]):
            return entry
        return None

    eks._build_access_entry = build_with_id  # type: ignore[attr-defined]
    eks._create_access_entry = create_if_exists  # type: ignore[attr-defined]
    eks._access_entry_for_principal = find_same  # type: ignore[attr-defined]


class _Ids:
    """The unique ids of the principals that exist."""

    def __init__(self) -> None:
        iam = guard.module("ministack.services.iam")
        self._stores = {
            "role": (guard.value(iam, "_roles", object), "RoleId"),
            "user": (guard.value(iam, "_users", object), "UserId"),
        }

    def of(self, principal: str) -> str:
        """Return the unique id; empty if there is no such principal."""
        match = _PRINCIPAL.fullmatch(principal)
        if match is None:
            return ""
        account, kind, name = match.groups()
        if kind is None:
            return str(account)
        store, field = self._stores[kind]
        record = store.get_scoped(account, None, name) or {}
        return str(record[field]) if record.get("Arn") == principal else ""
