"""Every policy document of the app: each function that makes one, with each value of each axis.

A function is found by its return type and an axis by a parameter's name or type. So a new document
or a new flag is in the product without a change here; a new parameter of another type needs values.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from enum import EnumType
from itertools import product
from typing import Any, NamedTuple, get_args, get_type_hints

from lambdas.common.errors import PermanentError
from lambdas.onboarding import policies
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.policies.scope import USER_CLUSTER_CHARACTERS, FunctionScope, Mode, Scope

ACCOUNT = "111122223333"
CLUSTER_ID = "1a2b3c4d-0000-4000-8000-000000000001"
VPC_ID = "vpc-0123456789abcdef0"
# The longest name of a region in each partition.
REGIONS = {"aws": "ap-northeast-1", "aws-cn": "cn-northwest-1", "aws-us-gov": "us-gov-west-1"}
CLUSTER = "c" * 100
PATH = "/" + "p" * 60 + "/"
PARTS = frozenset({"document", "equality"})  # modules that make no document of their own

Values = Mapping[str, tuple[Any, ...]]


class Made(NamedTuple):
    """What a function made of its arguments."""

    function: str
    arguments: Mapping[str, Any]
    documents: Mapping[str, Document]
    refused: PermanentError | ValueError | None = None

    def __str__(self) -> str:
        return f"{self.function}({self.arguments})"


def axes(partition: str) -> Values:
    """The values of each parameter by its name."""
    region = REGIONS[partition]
    scopes = tuple(
        Scope(partition, region, ACCOUNT, cluster, cluster_id, vpc_id, path, "s" * 64)
        for cluster in ("c" * USER_CLUSTER_CHARACTERS, CLUSTER)
        for cluster_id, vpc_id in ((CLUSTER_ID, VPC_ID), ("", ""))
        for path in ("/", PATH)
    )
    iam, key = f"arn:{partition}:iam::{ACCOUNT}:", f"arn:{partition}:kms:{region}:{ACCOUNT}:key/"
    secret = "castai/" + "s" * 80
    known = f"arn:{partition}:secretsmanager:{region}:{ACCOUNT}:secret:{secret}-AbCdEf"
    kms = (None, key + "k" * 36)
    return {
        "scope": scopes,
        "where": (FunctionScope(partition, ACCOUNT, (region, "eu-west-1"), "f" * 64),),
        "partition": (partition,),
        "region": (region,),
        "account": (ACCOUNT,),
        "path": ("/", PATH),
        "cluster": (CLUSTER,),
        "clusters": ((), ("prod", CLUSTER)),
        "cluster_id": (CLUSTER_ID,),
        "vpc_id": (VPC_ID,),
        "name_prefix": ("p" * 32,),
        "modes": (tuple(Mode), (Mode.USER,), (Mode.ROLE,)),
        "boundary": (None, iam + "policy/" + "b" * 128),
        "own_role": ("r" * 64,),
        "own_role_arn": (iam + "role/" + "r" * 64,),
        "spot_role_name": ("s" * 64,),
        "function": ("f" * 64,),
        "failure_queue": ("q" * 80,),
        "api_key_secret": (None, secret, known),
        "api_key_kms_key": kms,
        "credentials_kms_key": kms,
        "principal": (f"arn:{partition}:iam::809060229965:user/cast-crossrole-{CLUSTER_ID}",),
        "principal_arn": (f"arn:{partition}:iam::809060229965:user/cast-crossrole-{CLUSTER_ID}",),
        "external_id": (CLUSTER_ID,),
        "service": ("lambda.amazonaws.com",),
        "qualifier": ("hnb659fds",),
        "measured": (True,),  # False for tokens only
        "as_json": (True,),
    }


def producers() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each public function of the policies' modules that returns documents, or statements."""
    for module in pkgutil.iter_modules(policies.__path__):
        if module.name in PARTS:
            continue
        found = importlib.import_module(f"{policies.__name__}.{module.name}")
        for name, function in inspect.getmembers(found, inspect.isfunction):
            own = function.__module__ == found.__name__ and not name.startswith("_")
            if own and get_type_hints(function)["return"] in {Document, dict[str, Document]}:
                yield f"{module.name}.{name}", function


def everything() -> Iterator[Made]:
    """Every document of every producer, in every partition."""
    for name, function in producers():
        for partition in REGIONS:
            yield from made(name, function, axes(partition))


def made(name: str, function: Callable[..., Any], values: Values) -> Iterator[Made]:
    """The function's documents for the product of its parameters' values."""
    hints = get_type_hints(function)
    names = list(inspect.signature(function).parameters)
    for chosen in product(*(_values(each, hints[each], values) for each in names)):
        arguments = dict(zip(names, chosen, strict=True))
        try:
            result = function(**arguments)
        except (PermanentError, ValueError) as error:
            yield Made(name, arguments, {}, error)
        else:
            yield Made(name, arguments, dict(found_in(name, result)))


def _values(name: str, hint: Any, values: Values) -> tuple[Any, ...]:
    if name in values:
        return values[name]
    if hint is bool:
        return (False, True)
    kinds = [each for each in (hint, *get_args(hint)) if isinstance(each, EnumType)]
    if kinds:
        return (*((None,) if type(None) in get_args(hint) else ()), *kinds[0])
    raise LookupError(f"Give values for the parameter {name} in {__name__}.axes")


def found_in(name: str, value: Any) -> Iterator[tuple[str, Document]]:
    """The documents in the result: itself, or at any depth of a map of names."""
    if isinstance(value, Mapping) and "Statement" in value:
        yield name, dict(value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from found_in(key, inner)
