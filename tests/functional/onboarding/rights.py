"""IAM's decision on each call of the onboarding: action, resource and condition keys.

They follow the service authorization reference of each service
(https://docs.aws.amazon.com/service-authorization/latest/reference/). moto and the fakes make no
decision. Calls to KMS are not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moto.iam.models import iam_backends

from lambdas.onboarding.policies.document import Document
from simulation.resources.eks import ACCOUNT, refusal
from tests.support.iam_evaluator import Request, is_allowed

Arguments = Mapping[str, Any]
_TAGGED = {"User", "Role", "Policy", "InstanceProfile"}


@dataclass
class Rights:
    """The policies of the caller, and the account whose resources they are evaluated on."""

    ec2: Any
    eks: Any
    region: str
    documents: Sequence[Document] = ()
    """Empty: every call is allowed."""

    def check(self, service: str, method: str, arguments: Arguments) -> None:
        """Decide on a call. Raises ClientError if the documents do not allow it."""
        if not self.documents:
            return
        requests: Callable[[str, Arguments], Iterator[Request]] = getattr(self, f"_{service}")
        action = "".join(word.capitalize() for word in method.split("_"))
        for request in requests(action, arguments):
            if not is_allowed(self.documents, request):
                code = "UnauthorizedOperation" if service == "ec2" else "AccessDenied"
                code += "Exception" if service in {"eks", "secretsmanager", "lambda"} else ""
                raise refusal(code, f"{request} is not allowed")

    # IAM ------------------------------------------------------------------------------------------

    def _iam(self, action: str, given: Arguments) -> Iterator[Request]:
        if action == "ListRoles":  # has no resource types
            yield Request("iam:ListRoles", "*")
            return
        if "InstanceProfileName" in given:
            kind, name = "InstanceProfile", given["InstanceProfileName"]
        elif "RoleName" in given or "UserName" in given:
            kind = "Role" if "RoleName" in given else "User"
            name = given[f"{kind}Name"]
        elif "PolicyArn" in given or "PolicyName" in given:
            kind, name = "Policy", given.get("PolicyName", "")
        else:
            raise NotImplementedError(f"iam:{action}")
        created = action == f"Create{kind}"
        if kind == "Policy" and not created:
            arn = given["PolicyArn"]
        else:
            arn = self._arn(kind, name, given.get("Path") if created else None)
        context = {
            key: value
            for key, value in (
                ("iam:PolicyARN", given.get("PolicyArn")),
                ("iam:PermissionsBoundary", self._boundary(kind, name, given)),
            )
            if value
        }
        yield Request(f"iam:{action}", arn, context)
        if created and given.get("Tags") and kind in _TAGGED:
            yield Request(f"iam:Tag{kind}", arn)
        if action == "AddRoleToInstanceProfile":
            passed = {"iam:PassedToService": "ec2.amazonaws.com"}
            yield Request("iam:PassRole", self._arn("Role", given["RoleName"]), passed)

    def _arn(self, kind: str, name: str, path: str | None = None) -> str:
        """The ARN of a resource. Without one, IAM takes the path of the call, or none."""
        found = self._found(kind, name) if path is None else None
        if found:
            return str(found.arn)
        resource = {"InstanceProfile": "instance-profile"}.get(kind, kind.lower())
        return f"arn:aws:iam::{ACCOUNT}:{resource}{path or '/'}{name}"

    def _found(self, kind: str, name: str) -> Any:
        """Look a resource up in moto's tables: calls would take a third of the tests' time."""
        tables = iam_backends[ACCOUNT]["aws"]
        if kind == "User":
            return tables.users.get(name)
        every = tables.roles if kind == "Role" else tables.instance_profiles
        return next((each for each in every.values() if each.name == name), None)

    def _boundary(self, kind: str, name: str, given: Arguments) -> str | None:
        if "PermissionsBoundary" in given:
            return str(given["PermissionsBoundary"])
        found = self._found(kind, name) if kind in {"User", "Role"} else None
        bound = getattr(found, "permissions_boundary_arn", None)  # moto has none for users
        return str(bound) if bound else None

    # EC2 ------------------------------------------------------------------------------------------

    def _ec2(self, action: str, given: Arguments) -> Iterator[Request]:
        if action.startswith("Describe"):
            yield Request(f"ec2:{action}", "*")
        elif action == "CreateSecurityGroup":
            made = self._regional("ec2", "security-group/sg-made")
            yield Request("ec2:CreateSecurityGroup", made)
            yield Request("ec2:CreateSecurityGroup", self._regional("ec2", f"vpc/{given['VpcId']}"))
            yield Request("ec2:CreateTags", made, {"ec2:CreateAction": "CreateSecurityGroup"})
        else:
            for group in given.get("Resources") or [given["GroupId"]]:
                yield Request(
                    f"ec2:{action}",
                    self._regional("ec2", f"security-group/{group}"),
                    self._of_group(group),
                )

    def _of_group(self, group: str) -> dict[str, str | list[str]]:
        (found,) = self.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
        tags = {f"ec2:ResourceTag/{tag['Key']}": tag["Value"] for tag in found.get("Tags", ())}
        return {"ec2:Vpc": self._regional("ec2", f"vpc/{found['VpcId']}"), **tags}

    # EKS ------------------------------------------------------------------------------------------

    def _eks(self, action: str, given: Arguments) -> Iterator[Request]:
        principal = given.get("principalArn")
        if "resourceArn" in given:
            yield Request(f"eks:{action}", given["resourceArn"])
        elif principal is None:
            yield Request(f"eks:{action}", self.eks.arn)
        elif action == "CreateAccessEntry":
            yield Request("eks:CreateAccessEntry", self.eks.arn, {"eks:principalArn": principal})
            if given.get("tags"):
                yield Request("eks:TagResource", self.eks.entry_arn(principal))
        else:
            policy = {"eks:policyArn": given["policyArn"]} if "policyArn" in given else {}
            yield Request(f"eks:{action}", self.eks.entry_arn(principal), policy)

    # Secrets Manager ------------------------------------------------------------------------------

    def _secretsmanager(self, action: str, given: Arguments) -> Iterator[Request]:
        secret = str(given.get("SecretId") or given["Name"])
        if not secret.startswith("arn:"):
            secret = self._regional("secretsmanager", f"secret:{secret}-AbCdEf")
        yield Request(f"secretsmanager:{action}", secret)
        if action == "CreateSecret" and given.get("Tags"):
            yield Request("secretsmanager:TagResource", secret)

    # Lambda ---------------------------------------------------------------------------------------

    def _lambda(self, action: str, given: Arguments) -> Iterator[Request]:
        yield Request(
            f"lambda:{action}", self._regional("lambda", f"function:{given['FunctionName']}")
        )

    def _regional(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.region}:{ACCOUNT}:{resource}"
