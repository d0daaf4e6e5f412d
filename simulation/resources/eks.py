"""Fakes of EKS's access entries and Lambda's functions, with AWS's answers and error codes.

moto has no access entries, and needs Docker for functions.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

ACCOUNT = "123456789012"


def refusal(code: str, message: str = "") -> ClientError:
    """An AWS error as botocore raises it."""
    return ClientError({"Error": {"Code": code, "Message": message or code}}, "Call")


@dataclass
class Entry:
    """One access entry."""

    arn: str
    kind: str
    groups: list[str]
    tags: dict[str, str]
    principal_id: str = ""
    """The unique id of the principal when the entry was created."""
    created: float = 0.0
    """Epoch seconds."""
    policies: list[str] = field(default_factory=list)


class FakeLambda:
    """The functions of a region: the role of each by its name."""

    def __init__(self) -> None:
        self.roles: dict[str, str] = {}

    def get_function_configuration(self, *, FunctionName: str) -> Any:  # noqa: N803
        if FunctionName not in self.roles:
            raise refusal("ResourceNotFoundException", f"Function not found: {FunctionName}")
        return {"FunctionName": FunctionName, "Role": self.roles[FunctionName]}


class FakeEks:
    """One cluster and its access entries, with the methods of boto3's client."""

    def __init__(self, name: str, *, region: str, vpc: str) -> None:
        self.name, self.region, self.vpc = name, region, vpc
        self.mode = "API_AND_CONFIG_MAP"
        self.status = "ACTIVE"
        self.ip_family = "ipv4"
        self.endpoint, self.ca_pem = "https://cluster.invalid", "-----BEGIN CERTIFICATE-----\n"
        self.entries: dict[str, Entry] = {}
        self.unique_id: Callable[[str], str] = lambda arn: arn
        """Returns the unique id of the principal that has this ARN now."""
        self.now: Callable[[], float] = lambda: 0.0
        self.exists = True
        self.is_throttled: Callable[[], bool] = lambda: False

    @property
    def arn(self) -> str:
        return f"arn:aws:eks:{self.region}:{ACCOUNT}:cluster/{self.name}"

    def describe_cluster(self, *, name: str) -> Any:
        if not self.exists or name != self.name:
            raise refusal("ResourceNotFoundException", f"No cluster found for name: {name}.")
        return {
            "cluster": {
                "name": name,
                "arn": self.arn,
                "endpoint": self.endpoint,
                "status": self.status,
                "certificateAuthority": {"data": base64.b64encode(self.ca_pem.encode()).decode()},
                "resourcesVpcConfig": {"vpcId": self.vpc},
                "accessConfig": {"authenticationMode": self.mode},
                "kubernetesNetworkConfig": {"ipFamily": self.ip_family},
                "tags": {},
            }
        }

    def admits(self, principal: str) -> bool:
        """Whether an entry gives the principal access: it is bound to the principal's unique id."""
        entry = self.entries.get(principal)
        return entry is not None and entry.principal_id == self.unique_id(principal)

    def entry_arn(self, principal: str) -> str:
        """The ARN of an entry; without an entry, the ARN that IAM decides on."""
        kind, _, name = principal.rpartition(":")[2].partition("/")
        last = "0a1b" if principal in self.entries else "*"
        entry = f"access-entry/{self.name}/{kind}/{ACCOUNT}/{name.rpartition('/')[2]}/{last}"
        return f"arn:aws:eks:{self.region}:{ACCOUNT}:{entry}"

    def _answer(self) -> None:
        if self.is_throttled():
            raise refusal("ThrottlingException")

    def _looked_up(self, cluster: str, principal: str) -> Entry:
        self._answer()
        if "API" not in self.mode:
            raise refusal("InvalidRequestException", "the authentication mode has no entries")
        if cluster != self.name or principal not in self.entries:
            raise refusal("ResourceNotFoundException", f"no access entry for {principal}")
        return self.entries[principal]

    def list_access_entries(self, *, clusterName: str, nextToken: str = "") -> Any:  # noqa: N803
        """List one entry in each page, so that the tests use paging."""
        del clusterName
        self._answer()
        all_of_them, at = sorted(self.entries), int(nextToken or 0)
        page: dict[str, Any] = {"accessEntries": all_of_them[at : at + 1]}
        if at + 1 < len(all_of_them):
            page["nextToken"] = str(at + 1)
        return page

    def describe_access_entry(self, *, clusterName: str, principalArn: str) -> Any:  # noqa: N803
        entry = self._looked_up(clusterName, principalArn)
        return {
            "accessEntry": {
                "clusterName": clusterName,
                "principalArn": principalArn,
                "accessEntryArn": self.entry_arn(principalArn),
                "kubernetesGroups": list(entry.groups),
                "type": entry.kind,
                "tags": dict(entry.tags),
                "createdAt": datetime.fromtimestamp(entry.created, UTC),
            }
        }

    def create_access_entry(
        self,
        *,
        clusterName: str,  # noqa: N803
        principalArn: str,  # noqa: N803
        type: str = "STANDARD",  # noqa: A002
        kubernetesGroups: list[str] | None = None,  # noqa: N803
        tags: dict[str, str] | None = None,
    ) -> Any:
        self._answer()
        if "API" not in self.mode:
            raise refusal("InvalidRequestException", "the authentication mode has no entries")
        if principalArn in self.entries:
            raise refusal("ResourceInUseException", f"{principalArn} has an entry")
        self.entries[principalArn] = Entry(
            principalArn,
            type,
            list(kubernetesGroups or ()),
            dict(tags or {}),
            self.unique_id(principalArn),
            self.now(),
        )
        return self.describe_access_entry(clusterName=clusterName, principalArn=principalArn)

    def update_access_entry(
        self,
        *,
        clusterName: str,  # noqa: N803
        principalArn: str,  # noqa: N803
        kubernetesGroups: list[str],  # noqa: N803
    ) -> Any:
        self._looked_up(clusterName, principalArn).groups = list(kubernetesGroups)
        return self.describe_access_entry(clusterName=clusterName, principalArn=principalArn)

    def delete_access_entry(self, *, clusterName: str, principalArn: str) -> Any:  # noqa: N803
        self._looked_up(clusterName, principalArn)
        del self.entries[principalArn]
        return {}

    def associate_access_policy(
        self,
        *,
        clusterName: str,  # noqa: N803
        principalArn: str,  # noqa: N803
        policyArn: str,  # noqa: N803
        accessScope: dict[str, Any],  # noqa: N803
    ) -> Any:
        if accessScope["type"] != ("namespace" if "namespaces" in accessScope else "cluster"):
            raise refusal("InvalidParameterException", "the access scope")
        entry = self._looked_up(clusterName, principalArn)
        if policyArn not in entry.policies:
            entry.policies.append(policyArn)
        return {}

    def disassociate_access_policy(
        self,
        *,
        clusterName: str,  # noqa: N803
        principalArn: str,  # noqa: N803
        policyArn: str,  # noqa: N803
    ) -> Any:
        policies = self._looked_up(clusterName, principalArn).policies
        if policyArn not in policies:
            raise refusal("ResourceNotFoundException", f"{policyArn} is not associated")
        policies.remove(policyArn)
        return {}

    def list_associated_access_policies(
        self,
        *,
        clusterName: str,  # noqa: N803
        principalArn: str,  # noqa: N803
    ) -> Any:
        entry = self._looked_up(clusterName, principalArn)
        return {"associatedAccessPolicies": [{"policyArn": arn} for arn in entry.policies]}

    def tag_resource(self, *, resourceArn: str, tags: dict[str, str]) -> Any:  # noqa: N803
        self._by_arn(resourceArn).tags.update(tags)
        return {}

    def untag_resource(self, *, resourceArn: str, tagKeys: list[str]) -> Any:  # noqa: N803
        for key in tagKeys:
            self._by_arn(resourceArn).tags.pop(key, None)
        return {}

    def _by_arn(self, arn: str) -> Entry:
        return next(entry for each, entry in self.entries.items() if self.entry_arn(each) == arn)
