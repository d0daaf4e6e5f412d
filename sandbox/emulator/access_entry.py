"""Add AWS::EKS::AccessEntry to the emulator's CloudFormation.

The emulator's EKS API has access entries: the resource is created, updated and deleted there.
Properties and return values: CloudFormation template reference, AWS::EKS::AccessEntry.
"""

import json
from typing import Any

import guard

TYPE = "AWS::EKS::AccessEntry"
_REPLACING = ("ClusterName", "PrincipalArn", "Type")  # "update requires: replacement"


def install() -> None:
    """Register the type with the emulator's stack engine."""
    provisioners = guard.module("ministack.services.cloudformation.provisioners")
    handlers = guard.value(provisioners, "_RESOURCE_HANDLERS", dict)
    eks = guard.module("ministack.services.eks")
    guard.function(eks, "_create_access_entry", "cluster_name", "body")
    guard.function(eks, "_update_access_entry", "cluster_name", "principal_arn", "body")
    guard.function(eks, "_delete_access_entry", "cluster_name", "principal_arn")
    guard.function(eks, "_associate_access_policy", "cluster_name", "principal_arn", "body")
    guard.function(
        eks, "_disassociate_access_policy", "cluster_name", "principal_arn", "policy_arn"
    )
    entries = _AccessEntries(eks)
    handlers.setdefault(
        TYPE, {"create": entries.create, "update": entries.update, "delete": entries.delete}
    )


class _AccessEntries:
    """The three operations in the signatures of the emulator's stack engine."""

    def __init__(self, eks: Any) -> None:
        self._eks = eks

    def create(
        self, _logical_id: str, props: dict[str, Any], _stack: str
    ) -> tuple[str, dict[str, str]]:
        cluster, principal = props["ClusterName"], props["PrincipalArn"]
        body = {
            "principalArn": principal,
            "type": props.get("Type", "STANDARD"),
            "kubernetesGroups": props.get("KubernetesGroups", []),
            "tags": {tag["Key"]: tag["Value"] for tag in props.get("Tags", [])},
        }
        if "Username" in props:
            body["username"] = props["Username"]
        answer = _checked(self._eks._create_access_entry(cluster, body))
        for policy in props.get("AccessPolicies", []):
            self._associate(cluster, principal, policy)
        return (
            f"{principal}|{cluster}",
            {"AccessEntryArn": answer["accessEntry"]["accessEntryArn"]},
        )

    def update(
        self, physical_id: str, old: dict[str, Any], new: dict[str, Any], stack: str
    ) -> tuple[str, dict[str, str]]:
        if any(old.get(key) != new.get(key) for key in _REPLACING):
            created = self.create(physical_id, new, stack)
            self.delete(physical_id, old)
            return created
        cluster, principal = new["ClusterName"], new["PrincipalArn"]
        body = {"kubernetesGroups": new.get("KubernetesGroups", [])}
        if "Username" in new:
            body["username"] = new["Username"]
        answer = _checked(self._eks._update_access_entry(cluster, principal, body))
        wanted = [policy["PolicyArn"] for policy in new.get("AccessPolicies", [])]
        for policy in old.get("AccessPolicies", []):
            if policy["PolicyArn"] not in wanted:
                _checked(
                    self._eks._disassociate_access_policy(cluster, principal, policy["PolicyArn"])
                )
        for policy in new.get("AccessPolicies", []):
            self._associate(cluster, principal, policy)
        return physical_id, {"AccessEntryArn": answer["accessEntry"]["accessEntryArn"]}

    def delete(self, _physical_id: str, props: dict[str, Any]) -> None:
        answer = self._eks._delete_access_entry(props["ClusterName"], props["PrincipalArn"])
        if answer[0] != 404:  # 404: deleted already
            _checked(answer)

    def _associate(self, cluster: str, principal: str, policy: dict[str, Any]) -> None:
        scope = policy.get("AccessScope", {})
        body = {
            "policyArn": policy["PolicyArn"],
            "accessScope": {
                "type": scope.get("Type", "cluster"),
                "namespaces": scope.get("Namespaces", []),
            },
        }
        _checked(self._eks._associate_access_policy(cluster, principal, body))


def _checked(answer: tuple[int, Any, bytes]) -> dict[str, Any]:
    """Return the body of (status, headers, body). Raises ValueError for an error status."""
    status, _headers, body = answer
    decoded: dict[str, Any] = json.loads(body or b"{}")
    if status >= 400:
        raise ValueError(f"{TYPE}: {decoded.get('message', decoded)}")
    return decoded
