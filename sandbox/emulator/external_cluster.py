"""An EKS cluster that exists outside the emulator: its instances' ids, its TokenReview's secret.

The nodes of such a cluster have provider ids, so their instances need these ids: RunInstances with
an instance id as its ClientToken launches that instance, in the zone of its subnet and with EC2's
name for it. The API server was started with the TokenReview's URL, so the URL has to stay the same.
"""

import contextvars
from typing import Any

import guard

Parameters = dict[str, Any]
_given: contextvars.ContextVar[str] = contextvars.ContextVar("given", default="")


def install(review_secret: str = "") -> None:
    """Patch the emulator. Without a secret the emulator's own is used."""
    _given_instances()
    if review_secret:
        _given_secret(review_secret)


def _given_instances() -> None:
    ec2 = guard.module("ministack.services.ec2")
    actions = guard.value(ec2, "_ACTION_MAP", dict)
    instances = guard.value(ec2, "_instances", object)
    subnets = guard.value(ec2, "_subnets", object)
    pattern = guard.value(ec2, "_INSTANCE_ID_RE", object)
    parameter = guard.function(ec2, "_p", "params", "key")
    region = guard.function(ec2, "get_region")
    new_id = guard.function(ec2, "_new_instance_id")
    run = actions["RunInstances"]

    def instance_id() -> Any:
        return _given.get() or new_id()

    def run_given(p: Parameters) -> Any:
        wanted = parameter(p, "ClientToken") or ""
        if not pattern.match(wanted):
            return run(p)
        reset = _given.set(wanted)
        try:
            answer = run(p)
        finally:
            _given.reset(reset)
        instance = instances[wanted]
        zone = subnets[instance["SubnetId"]]["AvailabilityZone"]
        instance["Placement"] = {**instance["Placement"], "AvailabilityZone": zone}
        by_resource = parameter(p, "PrivateDnsNameOptions.HostnameType") == "resource-name"
        address = "ip-" + instance["PrivateIpAddress"].replace(".", "-")
        instance["PrivateDnsName"] = f"{wanted if by_resource else address}.{domain()}"
        return answer

    def domain() -> str:
        here = region()
        return "ec2.internal" if here == "us-east-1" else f"{here}.compute.internal"

    ec2._new_instance_id = instance_id  # type: ignore[attr-defined]
    actions["RunInstances"] = run_given


def _given_secret(secret: str) -> None:
    eks = guard.module("ministack.services.eks")
    create = guard.function(eks, "_create_cluster", "body", "creator_arn")
    clusters = guard.value(eks, "_clusters", object)

    def create_with_secret(body: Parameters, creator_arn: str | None = None) -> Any:
        answer = create(body, creator_arn)
        cluster = clusters.get(body.get("name"))
        if cluster is not None:
            cluster["_auth_token"] = secret
        return answer

    eks._create_cluster = create_with_secret  # type: ignore[attr-defined]
