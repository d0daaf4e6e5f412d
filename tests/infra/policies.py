"""The policy documents of a template, with values in the place of references."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.infra.conftest import ACCOUNT, Assembly, Stack
from tests.support.iam_reference import faults, listed, overlap, statements, wide_actions

REGION = "eu-central-1"
PSEUDO = {"AWS::Partition": "aws", "AWS::Region": REGION, "AWS::AccountId": ACCOUNT}
# The ARNs of the resources that documents refer to, by their types.
ARNS = {
    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/",
    "AWS::Logs::LogGroup": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:",
    "AWS::Lambda::Function": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:",
    "AWS::SNS::Topic": f"arn:aws:sns:{REGION}:{ACCOUNT}:",
    "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT}:",
    "AWS::Events::Rule": f"arn:aws:events:{REGION}:{ACCOUNT}:rule/",
    "AWS::StepFunctions::StateMachine": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:",
}
DOCUMENTS = ("PolicyDocument", "AssumeRolePolicyDocument")
# Kinds of resource with a document. A document of another kind is a finding, so that it is looked
# at whether the service reference is right for it.
KINDS = {
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
}
# A function with this right creates its log group again after its stack has deleted it: Lambda
# writes the last lines of a request after its answer.
CREATES_LOG_GROUPS = "logs:CreateLogGroup"
# Managed policies of AWS for functions have it: AWSLambdaBasicExecutionRole, AWSLambdaExecute.
# So has CloudWatchLogsFullAccess, of the default spot role, which test_checks.py acknowledges.
EXECUTION_POLICY = re.compile(r"policy/(?:service-role/)?(AWSLambda\w*Execut\w+)")
# By Sid: statements for all resources whose actions take resources. The unit tests have the reason.
WIDE = {"AttachToVpc"}


class Deployed(NamedTuple):
    """A document of a template."""

    kind: str
    logical: str
    document: dict[str, Any]


def policy_findings(assembly: Assembly) -> list[str]:
    """What is wrong with the documents of every stack, by AWS's service reference."""
    found = []
    for name, template in assembly.templates.items():
        documents = list(deployed(Stack(template)))
        assert documents, name
        attached = EXECUTION_POLICY.findall(json.dumps(template))
        found += [f"{name}: {each} allows {CREATES_LOG_GROUPS}" for each in attached]
        for kind, logical, document in documents:
            said = [] if kind in KINDS else [f"{kind} has a document"]
            for each in statements(document):
                said += [*faults(each), *_creating(each)]
                if each.get("Sid") not in WIDE and "Resource" in each:
                    said += [f"{action} on every resource" for action in wide_actions(each)]
            found += [f"{logical}: {what}" for what in said]
    return found


def _creating(statement: dict[str, Any]) -> list[str]:
    """The allowed actions of a statement that are, or match, the creation of log groups."""
    if statement["Effect"] == "Deny":
        return []
    wanted = CREATES_LOG_GROUPS.lower()
    found = [each for each in listed(statement["Action"]) if overlap(each.lower(), wanted)]
    return [f"{each} allows {CREATES_LOG_GROUPS}" for each in found]


def deployed(stack: Stack) -> Iterator[Deployed]:
    """Every document at any place of the template."""
    for logical, resource in stack.template["Resources"].items():
        for value in _documents(resource.get("Properties", {})):
            yield Deployed(resource["Type"], logical, _resolved(value, stack))


def _documents(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from _documents(each)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key in DOCUMENTS:
                yield inner
            else:
                yield from _documents(inner)


def _resolved(value: Any, stack: Stack) -> Any:
    if isinstance(value, list):
        return [_resolved(each, stack) for each in value]
    if not isinstance(value, dict):
        return value
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return separator.join(_resolved(parts, stack))
    if "Fn::GetAtt" in value:
        logical, attribute = value["Fn::GetAtt"]
        assert attribute == "Arn"
        return _arn(logical, stack)
    if "Ref" in value:
        return PSEUDO.get(value["Ref"]) or _arn(value["Ref"], stack)
    return {key: _resolved(inner, stack) for key, inner in value.items()}


def _arn(logical: str, stack: Stack) -> str:
    kind = stack.template["Resources"][logical]["Type"]
    # CloudFormation gives the ARN of a log group with its streams.
    return ARNS[kind] + logical + (":*" if kind == "AWS::Logs::LogGroup" else "")
