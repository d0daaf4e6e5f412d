"""AWS's own names in each partition: services that assume roles, and managed policies."""

from __future__ import annotations

from collections.abc import Iterable

from lambdas.onboarding.policies.document import Document, document_of


def service_trust(service: str) -> Document:
    return document_of(
        [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}]
    )


def aws_managed(partition: str, policies: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"arn:{partition}:iam::aws:policy/{policy}" for policy in policies)


def dns_suffixes(partition: str) -> list[str]:
    """The suffixes of AWS's endpoints; both if the partition is not known before deployment."""
    if partition in {"aws", "aws-us-gov"}:
        return [".amazonaws.com"]
    return (
        [".amazonaws.com.cn"] if partition == "aws-cn" else [".amazonaws.com", ".amazonaws.com.cn"]
    )


def ec2_services(partition: str) -> str | list[str]:
    if partition in {"aws", "aws-us-gov"}:
        return "ec2.amazonaws.com"
    return ["ec2.amazonaws.com", "ec2.amazonaws.com.cn"]
