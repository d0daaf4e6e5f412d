"""A cluster of the user instead of the simulated one: its nodes, and what its API server needs.

The sandbox only reads this cluster. It prints the commands for what has to be written there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
import yaml

from lambdas.common.eks import sign_token
from lambdas.common.names import AGENT, CLUSTER_ADMIN, SPOT_HANDLER_GROUP, VIEW
from sandbox import kubernetes
from sandbox.aws import Aws
from sandbox.errors import SandboxError
from sandbox.kubernetes import Permission, Subject
from sandbox.state import REGION, Node, State

Obj = dict[str, Any]
REVIEW_FILE = "token-review.kubeconfig"
MANIFEST = "manifests/spot-handler-rbac.yaml"
CAPACITY_LABELS = ("eks.amazonaws.com/capacityType", "karpenter.sh/capacity-type")
TYPE_LABEL = "node.kubernetes.io/instance-type"
ZONE_LABEL = "topology.kubernetes.io/zone"
_PROVIDER_ID = re.compile(
    r"aws:///(?P<zone>[a-z0-9-]+)/(?P<instance>i-(?:[0-9a-f]{8}|[0-9a-f]{17}))"
)
_REGION = re.compile(r"[a-z]{2,}(?:-[a-z]+)+-\d+")
_IP_NAME = re.compile(r"ip-(\d+)-(\d+)-(\d+)-(\d+)\.")

# The groups that the TokenReview returns for access policies, which only EKS itself evaluates, and
# the ClusterRole that has about the same rules. EKS limits VIEW to the namespace.
POLICY_GROUPS = {
    f"eks:access-policy:{CLUSTER_ADMIN}:*": "cluster-admin",
    f"eks:access-policy:{VIEW}:{AGENT}": "view",
}

TOKEN_USER = Subject("", "")  # the token's own user
CHECKED = "sandbox:check"  # a user without permissions of its own


class NodeInstance(NamedTuple):
    """An instance that is a node of the user's cluster."""

    node: Node
    kind: str
    """Instance type; empty if no label says it."""
    address: str
    """Private IPv4 address; empty if the node has none."""

    @property
    def region(self) -> str:
        found = _REGION.match(self.node.zone)
        return found.group() if found else ""


class Step(NamedTuple):
    """What is left to do in the user's cluster, and the commands."""

    what: str
    commands: tuple[str, ...]


# The nodes ----------------------------------------------------------------------------------------


def node_instances(kubeconfig: Path, progress: Callable[[str], None]) -> list[NodeInstance]:
    """Return the instances of the cluster's nodes; report each node that has none.

    Raises SandboxError if no node has an instance, or if they are in several regions.
    """
    nodes = kubernetes.nodes(kubeconfig)
    if not nodes:
        raise SandboxError(
            f"Add a node to the cluster of {kubeconfig}: it has none, and a notice is for an "
            "instance that is a node"
        )
    found = list(instances_of(nodes))
    advice = list(without_instance(nodes, kubeconfig))
    if not found:
        said = "Give the nodes the provider ids of EC2 instances: no node has one"
        raise SandboxError("\n".join([said, *advice]))
    for line in advice:
        progress(line)
    regions = {each.region for each in found}
    if len(regions) > 1 or "" in regions:
        zones = ", ".join(sorted({each.node.zone for each in found}))
        raise SandboxError(f"Use a cluster in one region: its nodes are in {zones}")
    return found


def instances_of(nodes: Sequence[Obj]) -> Iterator[NodeInstance]:
    """Yield the instances of these nodes. All are spot instances if no label says it."""
    found = [(node, match) for node in nodes if (match := _PROVIDER_ID.fullmatch(_given(node)))]
    labelled = any(_capacity(node) for node, _match in found)
    for node, match in found:
        yield NodeInstance(
            Node(
                instance=match["instance"],
                name=node["metadata"]["name"],
                zone=match["zone"],
                spot=_capacity(node) == "spot" if labelled else True,
            ),
            kind=_labels(node).get(TYPE_LABEL, ""),
            address=_address(node),
        )


def without_instance(nodes: Sequence[Obj], kubeconfig: Path) -> Iterator[str]:
    """Yield the advice for each node that is no EC2 instance. Only an empty id can be changed."""
    for node in nodes:
        name, given = node["metadata"]["name"], _given(node)
        if _PROVIDER_ID.fullmatch(given):
            continue
        if given:
            yield f"node {name} is no EC2 instance, and its provider id {given} cannot be changed"
            continue
        zone = _labels(node).get(ZONE_LABEL) or REGION + "a"
        instance = "i-" + hashlib.sha256(name.encode()).hexdigest()[:17]
        spec = {"spec": {"providerID": f"aws:///{zone}/{instance}"}}
        patch = shlex.quote(json.dumps(spec, separators=(",", ":")))
        yield f"kubectl --kubeconfig {kubeconfig} patch node {name} -p {patch}"


def _given(node: Obj) -> str:
    return str(node.get("spec", {}).get("providerID") or "")


def _labels(node: Obj) -> dict[str, str]:
    return node["metadata"].get("labels") or {}


def _capacity(node: Obj) -> str:
    """Return `spot` or `on-demand`; empty if no label says it."""
    given = next((_labels(node)[name] for name in CAPACITY_LABELS if name in _labels(node)), "")
    return given.lower().replace("_", "-")


def _address(node: Obj) -> str:
    """Return the address that EC2's DNS name of the instance has, so that this name is the node's.

    Of a node with another name it is the InternalIP. Empty if there is none.
    """
    if match := _IP_NAME.match(node["metadata"]["name"]):
        return ".".join(match.groups())
    for each in (node.get("status") or {}).get("addresses") or ():
        if each["type"] == "InternalIP" and re.fullmatch(r"[\d.]+", each["address"]):
            return str(each["address"])
    return ""


# The TokenReview ----------------------------------------------------------------------------------


class Review(NamedTuple):
    """What of the TokenReview's URL has to stay for an API server that was started with it."""

    port: int
    secret: str

    @classmethod
    def of(cls, folder: Path) -> Review | None:
        """Return that of the folder's file; None if there is none."""
        try:
            content = yaml.safe_load((folder / REVIEW_FILE).read_text())
        except FileNotFoundError:
            return None
        url = urlsplit(content["clusters"][0]["cluster"]["server"])
        return cls(url.port or 0, url.path.rpartition("/")[2])


def write_review(folder: Path, url: str, certificate_authority: str) -> Path:
    """Write the file for kube-apiserver's --authentication-token-webhook-config-file."""
    path = folder / REVIEW_FILE
    authority = base64.b64encode(certificate_authority.encode()).decode()
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "sandbox", "cluster": {"server": url, "certificate-authority-data": authority}}
        ],
        "users": [{"name": "apiserver"}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "apiserver"}}],
        "current-context": "sandbox",
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


# What is left to do -------------------------------------------------------------------------------


def steps(state: State) -> list[Step]:
    """Return what is left to do in the user's cluster, in order. Empty: nothing.

    It asks the API server with the administrator's EKS token, as `castai-eks` does.
    """
    if not state.external:
        return []
    everything = [_bindings(state, POLICY_GROUPS), _spot_handler(state)]
    token = _token(state)
    try:
        if not _has(state, token, TOKEN_USER, Permission("*", "*", "*")):
            return everything
        return list(_left_to_bind(state, token))
    except httpx2.HTTPStatusError as error:
        if error.response.status_code == httpx2.codes.UNAUTHORIZED:
            return [_restart(state), *everything]
        return [Step(f"look at the API server: {error}", ())]
    except httpx2.HTTPError as error:
        return [Step(f"start the API server, which does not answer: {error}", ())]


def _left_to_bind(state: State, token: str) -> Iterator[Step]:
    """Yield what an administrator, who may impersonate, sees to be missing."""
    viewers = f"eks:access-policy:{VIEW}:{AGENT}"
    if not _has(
        state, token, Subject("", CHECKED, viewers), Permission("list", "pods", namespace=AGENT)
    ):
        yield _bindings(state, {viewers: POLICY_GROUPS[viewers]})
    handler = Subject("", CHECKED, SPOT_HANDLER_GROUP)
    if not _has(state, token, handler, Permission("create", "pods/eviction")):
        yield _spot_handler(state)


def _has(state: State, token: str, subject: Subject, permission: Permission) -> bool:
    return kubernetes.rights(state, subject, {"": permission}, token=token)[""]


def bindings_to_remove(state: State) -> str:
    """Return the command that removes what `steps` advised for the sandbox only."""
    names = " ".join(map(_binding, POLICY_GROUPS))
    return f"{_kubectl(state)} delete clusterrolebinding {names} --ignore-not-found"


def _restart(state: State) -> Step:
    file = state.path / REVIEW_FILE
    return Step(
        "restart the API server at the same address, so that it accepts the sandbox's EKS tokens:",
        (f"kube-apiserver … --authentication-token-webhook-config-file={file}",),
    )


def _bindings(state: State, groups: Mapping[str, str]) -> Step:
    kubectl = _kubectl(state)
    return Step(
        f"bind the access policies, which only EKS has (it limits {VIEW} to one namespace):",
        tuple(
            f"{kubectl} create clusterrolebinding {_binding(group)} "
            f"--clusterrole={role} --group={shlex.quote(group)}"
            for group, role in groups.items()
        ),
    )


def _binding(group: str) -> str:
    return f"sandbox-{group.split(':')[2].lower()}"


def _spot_handler(state: State) -> Step:
    return Step(
        "give the spot handler its permissions (castai-eks onboard does it too):",
        (f"{_kubectl(state)} apply --server-side -f {MANIFEST}",),
    )


def _kubectl(state: State) -> str:
    return f"kubectl --kubeconfig {state.kubernetes.kubeconfig if state.kubernetes else ''}"


def _token(state: State) -> str:
    aws = Aws(state)
    credentials = aws.session.get_credentials()
    if credentials is None:
        raise SandboxError("Start the sandbox first: python -m sandbox up")
    return sign_token(
        credentials, region=aws.region, dns_suffix="amazonaws.com", cluster=state.cluster
    )
