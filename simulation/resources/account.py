"""One AWS account: moto without HTTP, with the behaviour that moto lacks.

A call by HTTP takes moto 5 ms, most of it for the SDK's request and answer; here it takes 0.3 ms.
moto parses nothing and serializes nothing: its response class gets the parameters, and its result
is read by the model of the service.
"""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from unittest import mock
from urllib.parse import unquote

import boto3
import moto.iam.models
from botocore.exceptions import ClientError, ParamValidationError
from botocore.validate import ParamValidator
from moto.core.constants import MISSING
from moto.core.exceptions import ServiceException
from moto.core.serialize import AttributePickerContext, XFormedAttributePicker
from moto.core.utils import get_value
from moto.ec2.exceptions import DependencyViolationError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.instances import Instance
from moto.ec2.responses import EC2Response
from moto.ec2.utils import filter_dict_attribute_mapping
from moto.iam.exceptions import DeleteConflictException
from moto.iam.models import AWSManagedPolicy, IAMBackend, iam_backends
from moto.iam.responses import IamResponse
from moto.moto_api._internal import mock_random
from moto.secretsmanager.models import secretsmanager_backends
from moto.secretsmanager.responses import SecretsManagerResponse
from werkzeug.exceptions import HTTPException

from simulation.resources.calls import READS
from simulation.resources.eks import ACCOUNT

MANAGED: Final = (
    "AmazonEC2ReadOnlyAccess",
    "IAMReadOnlyAccess",
    "AmazonEKSWorkerNodePolicy",
    "AmazonEC2ContainerRegistryReadOnly",
    "AmazonEKS_CNI_Policy",
    "AmazonSSMManagedInstanceCore",
    "service-role/AmazonEBSCSIDriverPolicy",
)
"""The policies of AWS that the onboarding attaches. To load all of moto's takes seconds."""

_RESPONSES: Final[Mapping[str, Any]] = {
    "iam": IamResponse,
    "ec2": EC2Response,
    "secretsmanager": SecretsManagerResponse,
}
_REQUESTS: Final = logging.getLogger("botocore.endpoint")
_ANSWERS: Final = logging.getLogger("botocore.parsers")
_delete_group = EC2Backend._delete_security_group  # noqa: SLF001 - moto's own deletes a group in use
_delete_user = IAMBackend.delete_user


def iam_tables() -> Any:
    """moto's tables of IAM."""
    return iam_backends[ACCOUNT]["aws"]


def ec2_tables(region: str) -> Any:
    """moto's tables of EC2 in a region."""
    return ec2_backends[ACCOUNT][region]


def secrets_tables(region: str) -> Any:
    """moto's tables of Secrets Manager in a region."""
    return secretsmanager_backends[ACCOUNT][region]


# moto as AWS --------------------------------------------------------------------------------------


@contextmanager
def as_aws(now: Callable[[], float]) -> Iterator[None]:
    """Let moto behave as AWS where the onboarding sees the difference. `now`: epoch seconds.

    moto has no filter of DescribeInstances by the ARN of the instance profile, deletes security
    groups in use and users with access keys, and takes the date of this machine.
    """
    with (
        mock.patch.dict(filter_dict_attribute_mapping, {"iam-instance-profile.arn": "own_profile"}),
        mock.patch.object(Instance, "own_profile", property(_profile_arn), create=True),
        mock.patch.object(EC2Backend, "_delete_security_group", _delete_unless_in_use),
        mock.patch.object(IAMBackend, "delete_user", _delete_user_without_keys),
        mock.patch.object(moto.iam.models, "utcnow", _iam_clock(now)),
    ):
        yield


def reset(regions: Iterable[str], seed: int = 0) -> None:
    """An empty account. Ids and keys follow from the seed."""
    with mock.patch.dict(os.environ, {"MOTO_EC2_LOAD_DEFAULT_AMIS": "false"}):
        tables = [iam_tables()]
        tables += [of(region) for region in regions for of in (ec2_tables, secrets_tables)]
        mock_random.seed(seed)  # moto makes tables, with ids, when they are first read
        for each in tables:
            each.reset()
    add_managed_policies()


def add_managed_policies() -> None:
    """Add the AWS managed policies that the onboarding attaches."""
    for path in MANAGED:
        prefix, _, name = path.rpartition("/")
        arn = f"arn:aws:iam::aws:policy/{path}"
        iam_tables().managed_policies[arn] = AWSManagedPolicy.from_data(
            name,
            ACCOUNT,
            "us-east-1",
            {
                "Arn": arn,
                "Path": f"/{prefix}/" if prefix else "/",
                "CreateDate": "2020-01-01T00:00:00+00:00",
                "DefaultVersionId": "v1",
                "Document": {"Version": "2012-10-17", "Statement": []},
                "UpdateDate": "2020-01-01T00:00:00+00:00",
            },
        )


def unique_id(arn: str) -> str:
    """IAM's unique id of a user or role; of one that does not exist, its ARN."""
    name, tables = arn.rpartition("/")[2], iam_tables()
    if ":user/" in arn:
        return str(tables.users[name].id) if name in tables.users else arn
    return next((str(role.id) for role in tables.roles.values() if role.name == name), arn)


def _iam_clock(now: Callable[[], float]) -> Callable[[], datetime]:
    """A date as moto has it: IAM cuts to whole seconds, moto has no time zone."""
    return lambda: datetime.fromtimestamp(int(now()), UTC).replace(tzinfo=None)


def _profile_arn(instance: Any) -> str:
    held = instance.ec2_backend.iam_instance_profile_associations.get(instance.id)
    return str(held.iam_instance_profile.arn) if held else ""


def _delete_unless_in_use(ec2: Any, vpc_id: str | None, group_id: str) -> None:
    """As EC2: refuse while a network interface or a rule of another group uses the group."""
    holding = {group.id for eni in ec2.enis.values() for group in eni.group_set}
    naming = {
        rule.source_group.get("GroupId")
        for groups in ec2.groups.values()
        for group in groups.values()
        if group.id != group_id
        for rule in (*group.ingress_rules, *group.egress_rules)
    }
    if group_id in holding | naming:
        raise DependencyViolationError(f"resource {group_id} has a dependent object")
    _delete_group(ec2, vpc_id, group_id)


def _delete_user_without_keys(iam: Any, user_name: str) -> None:
    """As IAM: refuse while the user has access keys."""
    if iam.get_user(user_name).access_keys:
        message = "Cannot delete entity, must delete access keys first."
        raise DeleteConflictException(message)
    _delete_user(iam, user_name)


# moto without HTTP --------------------------------------------------------------------------------


@cache
def sdk_client(service: str) -> Any:
    """The SDK's client: the model of the service, and the names of its operations."""
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    return boto3.client(service, region_name="eu-central-1", **keys)  # type: ignore[call-overload]


class Moto:
    """A client of one service and region, with the methods of boto3's."""

    def __init__(
        self,
        service: str,
        region: str,
        keep_secret: Callable[[str], None] = lambda _: None,
        before_write: Callable[[], None] = lambda: None,
    ) -> None:
        """`keep_secret` gets each secret access key that IAM makes."""
        self._service, self._region = service, region
        self._keep_secret, self._before_write = keep_secret, before_write
        self.meta = sdk_client(service).meta

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The method of an operation."""

        def call(**arguments: Any) -> Any:
            return self._call(name, arguments)

        return call

    def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Log as the SDK does at DEBUG (botocore, endpoint.py and parsers.py)."""
        _REQUESTS.debug("Making request for %s with params: %s", name, arguments)
        answer = self._answer(name, arguments)
        _ANSWERS.debug("Response body:\n%r", answer)
        return answer

    def _answer(self, name: str, arguments: dict[str, Any]) -> Any:
        if not name.startswith(READS):
            self._before_write()
        operation = self.meta.service_model.operation_model(self.meta.method_to_api_mapping[name])
        report = ParamValidator().validate(arguments, operation.input_shape)
        if report.has_errors():
            raise ParamValidationError(report=report.generate_report())
        for member in operation.idempotent_members:  # as the SDK
            arguments.setdefault(member, str(mock_random.uuid4()))
        response = _RESPONSES[self._service]()
        response.current_account, response.region = ACCOUNT, self._region
        response.partition, response.data = "aws", {}
        response.querystring, response.headers, response.uri_match = {}, {}, {}
        response.params, response.body = copy.deepcopy(arguments), json.dumps(arguments)
        try:
            result = getattr(response, name)()
        except ServiceException as error:
            raise _refusal(str(error.code), str(error.message), operation.name) from error
        except HTTPException as error:
            code = str(getattr(error, "error_type", "InternalFailure"))
            raise _refusal(code, str(getattr(error, "message", "")), operation.name) from error
        except ValueError as error:  # the role is not in the instance profile
            raise _refusal("NoSuchEntity", str(error), operation.name) from error
        if name == "create_access_key":
            self._keep_secret(result.result["AccessKey"].secret_access_key)
        if isinstance(result, str):
            return {key: each for key, each in json.loads(result).items() if each is not None}
        return _Reader(type(response), operation).read(result.result)


@cache
def _correction(response: Any, path: str) -> Callable[[Any], Any] | None:
    """moto's correction of this part of an answer, unless it is the encoding as a URL."""
    for end, correct in response.RESPONSE_KEY_PATH_TO_TRANSFORMER.items():
        if correct.__name__ != "url_encode" and path.endswith(end):
            return correct  # type: ignore[no-any-return]
    return None


_names: Final[dict[tuple[type, str, Any], tuple[str, ...]]] = {}
"""The names that moto tries for a member: they follow from the class of the value and the shape."""


def _names_of(value: Any, key: str, shape: Any) -> tuple[str, ...]:
    known = (type(value), key, shape)
    if known not in _names:
        context = AttributePickerContext(obj=value, key=key, shape=shape)
        found = XFormedAttributePicker().get_possible_keys(context)
        _names[known] = tuple(dict.fromkeys(found))
    return _names[known]


def _refusal(code: str, message: str, operation: str) -> ClientError:
    given: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": 400},
    }
    return ClientError(given, operation)


class _Reader:
    """Reads moto's result into the data that the SDK returns."""

    def __init__(self, response: Any, operation: Any) -> None:
        self._response, self._operation = response, operation
        self._path: list[str] = [operation.name]

    def read(self, result: object) -> dict[str, Any]:
        shape = self._operation.output_shape
        if shape is None or result is None:
            return {}
        answer: dict[str, Any] = self._value(result, shape, shape.name)
        return answer

    def _value(self, value: Any, shape: Any, key: str) -> Any:
        if value is None:
            return None
        self._path.append(key)
        try:
            if shape.type_name == "structure":
                members = {
                    name: self._value(self._member(value, name, member), member, name)
                    for name, member in shape.members.items()
                }
                return {name: each for name, each in members.items() if each is not None}
            if shape.type_name == "list":
                return [self._value(each, shape.member, shape.member.name) for each in value]
            if shape.type_name == "timestamp":
                return _date(value)
            if key.endswith("Document") and isinstance(value, str):
                return _document(value)
            return value
        finally:
            self._path.pop()

    def _member(self, value: Any, name: str, shape: Any) -> Any:
        for key in _names_of(value, name, shape):
            found = get_value(value, key)
            if found is not MISSING:
                break
        else:
            found = None
        correct = _correction(self._response, ".".join((*self._path, name)))
        return correct(found) if correct else found


def _document(text: str) -> Any:
    """As the SDK does with IAM's documents, which some answers have as in a URL."""
    return json.loads(text if text.startswith("{") else unquote(text))


def _date(value: Any) -> Any:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and not value.tzinfo else value
