"""Reads a snapshot from a cluster's Kubernetes API: lists, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx2
import lightkube
import msgspec
import yaml
from lightkube.config.client_adapter import ExecAuth, user_auth
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError

from lambdas.common.aws_calls import AwsCalls
from lambdas.common.clock import SYSTEM, Clock
from lambdas.common.errors import PermanentError
from lambdas.common.kubernetes_objects import REQUEST_TIMEOUT, Kube
from savings import objects
from savings.objects import Around
from savings.offers import REGION_LABELS
from savings.rights import Rights
from savings.snapshot import ON_DEMAND, SPOT, Market, Node, Snapshot

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

T = TypeVar("T")

_PATIENCE: Final = 600.0  # s: a list whose pages are too old begins again
_INSTANCES: Final = 200  # of a request: the most values of a filter

MarketsOf = Callable[[Sequence[str]], Mapping[str, Market]]
"""The markets of EC2 instances, by id."""
Progress = Callable[[str], None]

READ: Final = {
    "Namespace": "v1",
    "Node": "v1",
    "PersistentVolume": "v1",
    "PersistentVolumeClaim": "v1",
    "Pod": "v1",
    "DaemonSet": "apps/v1",
    "Deployment": "apps/v1",
    "ReplicaSet": "apps/v1",
    "StatefulSet": "apps/v1",
    "Job": "batch/v1",
    "PodDisruptionBudget": "policy/v1",
}
"""The kinds that are listed, and the apiVersion of each."""


def read(
    kube: Kube,
    *,
    cluster: str,
    region: str,
    markets_of: MarketsOf,
    rights: Rights,
    account: str = "",
    progress: Progress = lambda _: None,
    clock: Clock = SYSTEM,
) -> Snapshot:
    """The cluster as it is now.

    An empty `region` is taken from the nodes. `markets_of` is asked about nodes whose labels do not
    say whether they are on spot. A list that the cluster refuses is noted in `rights`, and its
    objects are missing in the snapshot.
    """
    reader = _Reader(kube, rights, progress)
    sets = reader.list("ReplicaSet", lambda obj: (objects.owned(obj), objects.workload(obj)))
    around = Around(
        owners=dict(owned for owned, _ in sets) | dict(reader.list("Job", objects.owned)),
        claims=dict(reader.list("PersistentVolumeClaim", objects.claim)),
        volumes=dict(reader.list("PersistentVolume", objects.volume)),
        namespaces=dict(reader.list("Namespace", objects.namespace)),
    )
    workloads = [
        *reader.list("Deployment", objects.workload),
        *reader.list("StatefulSet", objects.workload),
        *(workload for _, workload in sets),
    ]
    pods = reader.list("Pod", lambda obj: objects.pod(obj, around))
    known = {(pod.namespace, pod.owner) for pod in pods if pod is not None}
    nodes = _nodes(reader, markets_of, rights)
    if not region:
        rights.check()
    return Snapshot(
        cluster=cluster,
        region=region or _region(nodes),
        account=account,
        taken=datetime.fromtimestamp(clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        nodes=nodes,
        pods=tuple(pod for pod in pods if pod is not None),
        daemon_sets=tuple(reader.list("DaemonSet", objects.daemon_set)),
        workloads=tuple(each for each in workloads if (each.namespace, each.owner) in known),
        budgets=tuple(reader.list("PodDisruptionBudget", objects.budget)),
    )


class _Reader:
    """Lists, each once."""

    def __init__(self, kube: Kube, rights: Rights, progress: Progress) -> None:
        self._kube = kube
        self._rights = rights
        self._progress = progress

    def list(self, kind: str, make: Callable[[Any], T]) -> Sequence[T]:
        """What `make` makes of each object of a kind of READ; nothing where the cluster refuses."""
        found, first = 0, ""

        def counted(obj: dict[str, Any]) -> T:
            nonlocal found, first
            place = f"{obj['metadata'].get('namespace')}/{obj['metadata']['name']}"
            first = first or place
            found = 1 if place == first else found + 1  # a list that was too old begins anew
            if found % 1000 == 0:
                self._progress(f"reading {kind}: {found:,}")
            return make(obj)

        self._progress(f"reading {kind}")
        listed: Sequence[T] = ()
        with self._rights.read():
            listed = self._kube.list_as(counted, READ[kind], kind, patience=_PATIENCE)
        return tuple(listed)


def _nodes(reader: _Reader, markets_of: MarketsOf, rights: Rights) -> tuple[Node, ...]:
    found = reader.list("Node", objects.node)
    unknown = [instance for _, instance in found if instance]
    markets: Mapping[str, Market] = {}
    if unknown:
        with rights.read():
            markets = markets_of(unknown)
    return tuple(
        msgspec.structs.replace(node, market=markets.get(instance, node.market))
        for node, instance in found
    )


def _region(nodes: Sequence[Node]) -> str:
    for node in nodes:
        if region := next((node.labels[key] for key in REGION_LABELS if key in node.labels), ""):
            return region
    raise PermanentError("Give --region: no node of the cluster says its own")


def open_kubeconfig(path: Path, *, until: float, clock: Clock = SYSTEM) -> Kube:
    """The cluster of a kubeconfig's current context, by its own credentials, plugins included.

    Raises PermanentError for a file that is none, or a plugin that fails.
    """
    try:
        config = lightkube.KubeConfig.from_file(path).get()
        _try_plugin(config)
        client = lightkube.Client(config, timeout=httpx2.Timeout(REQUEST_TIMEOUT), trust_env=False)
    except KeyError as error:
        raise PermanentError(f"Check the kubeconfig {path}: {error} is not in it") from error
    except (AttributeError, TypeError) as error:
        raise PermanentError(f"Check the kubeconfig {path}: it is no kubeconfig") from error
    except (ConfigError, OSError, ValueError, yaml.YAMLError) as error:
        raise PermanentError(f"Check the kubeconfig {path}: {error}") from error
    return Kube(client, clock=clock, until=until)


def _try_plugin(config: SingleConfig | None) -> None:
    """Check that there is a user, and get a token of its credential plugin, if there is one.

    lightkube's client runs it within a request, where its failure is no answer of the cluster.
    Raises ConfigError.
    """
    if config is None or config.user is None:
        raise ConfigError("its current context has no user")
    auth = user_auth(config.user)
    if not isinstance(auth, ExecAuth):
        return
    try:
        next(auth.sync_auth_flow(httpx2.Request("GET", config.cluster.server)))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError("its credential plugin answers without status.token") from error


def markets_of(calls: AwsCalls, ec2: EC2Client, instances: Sequence[str]) -> dict[str, Market]:
    """Whether each of these EC2 instances is on spot."""
    found: dict[str, Market] = {}
    for at in range(0, len(instances), _INSTANCES):
        some = {"Name": "instance-id", "Values": list(instances[at : at + _INSTANCES])}
        for reservation in calls.items(ec2.describe_instances, "Reservations", Filters=[some]):
            for instance in reservation["Instances"]:
                spot = instance.get("InstanceLifecycle") == "spot"
                found[instance["InstanceId"]] = SPOT if spot else ON_DEMAND
    return found
