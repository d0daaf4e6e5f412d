"""Start and end the sandbox of a folder. Both are idempotent."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from lightkube import Client

from kubesim.certificates import Certificates
from sandbox import (
    account,
    castai_process,
    cluster_process,
    emulator_process,
    external,
    kubernetes,
    wait,
)
from sandbox.account import Machine
from sandbox.aws import Aws
from sandbox.errors import SandboxError
from sandbox.state import API_KEY_SECRET, CLUSTER, Kubernetes, State

ROOT = Path(__file__).parents[1]
WORKLOADS = Path(__file__).parent / "workloads.yaml"
RBAC = ROOT / "manifests" / "spot-handler-rbac.yaml"
JOINED = "--- # when the other nodes have joined\n"  # splits the workloads
MACHINES = (
    Machine("m6i.xlarge", "a", spot=True),
    Machine("m6i.xlarge", "b"),
    Machine("m6i.xlarge", "c"),
)
SETTLING = 30.0  # s for all pods to be ready

Progress = Callable[[str], None]


def up(
    folder: Path,
    progress: Progress,
    *,
    kubeconfig: Path | None = None,
    cluster: str = CLUSTER,
    machines: Sequence[Machine] = MACHINES,
    workloads: str | None = None,
    concurrency: int = emulator_process.CONCURRENCY,
    spot_handler_rights: bool = True,
) -> State:
    """Start the folder's sandbox if it does not run, and return its state.

    kubeconfig: a cluster to use instead of the simulated one. Its objects are not changed. Its
    nodes become the instances; a later `up` with the kubeconfig adds those of new nodes.
    workloads: YAML for the simulated cluster instead of the demo's.
    spot_handler_rights: apply manifests/spot-handler-rbac.yaml, as users without onboarding do.
    If one of its processes has ended, the sandbox is ended and started again: the account exists
    only in the emulator's memory.
    Raises SandboxError after all its processes are ended.
    """
    state = State.load(folder)
    if state is not None and state.kubernetes and _alive(state):
        if kubeconfig is not None:
            return _place(state, kubeconfig, external.node_instances(kubeconfig, progress))
        return state
    down(folder)
    try:
        state = State(folder=str(folder), cluster=cluster)
        if kubeconfig is not None:
            instances = external.node_instances(kubeconfig, progress)
            state = msgspec.structs.replace(state, region=instances[0].region)
            state = _start_account(state, progress, concurrency, external.Review.of(folder))
            progress(f"creating the instances of {len(instances)} nodes")
            return _place(state, kubeconfig, instances)
        return _start(
            state,
            progress,
            machines=machines,
            workloads=WORKLOADS.read_text() if workloads is None else workloads,
            concurrency=concurrency,
            spot_handler_rights=spot_handler_rights,
        )
    except BaseException:
        down(folder, keep_logs=True)
        raise


def _start(
    state: State,
    progress: Progress,
    *,
    machines: Sequence[Machine],
    workloads: str,
    concurrency: int,
    spot_handler_rights: bool,
) -> State:
    state = _start_account(state, progress, concurrency)
    aws = Aws(state)
    progress(f"creating {len(machines)} instances")
    nodes = account.launch(aws, state.cluster, account.subnets(aws, state.cluster), machines)
    state = msgspec.structs.replace(state, nodes=tuple(nodes))
    progress("starting the simulated cluster")
    certificates = Certificates.ensure(state.path / "tls")
    kubernetes_state = cluster_process.start(
        state.path, certificates, aws.token_review_url(state.cluster)
    )
    state = msgspec.structs.replace(state, kubernetes=kubernetes_state)
    state.save()
    aws.place_cluster(state.cluster, *kubernetes.server(Path(kubernetes_state.kubeconfig)))
    progress("starting the workloads")
    if spot_handler_rights:
        with kubernetes.administrator(state) as client:
            kubernetes.apply(client, RBAC.read_text())
    populate(state, workloads)
    return state


def _start_account(
    state: State,
    progress: Progress,
    concurrency: int,
    review: external.Review | None = None,
) -> State:
    """Start the AWS emulator and CAST AI; create the administrator, VPC and EKS cluster."""
    state.path.mkdir(parents=True, exist_ok=True)
    certificates = Certificates.ensure(state.path / "tls")
    progress("starting the AWS emulator")
    emulator = emulator_process.start(
        state.path,
        certificates,
        account=state.account,
        region=state.region,
        concurrency=concurrency,
        review=review,
    )
    state = msgspec.structs.replace(state, ca=str(certificates.ca), emulator=emulator)
    state.save()  # from here on `down` ends the emulator
    aws = Aws(state)
    state = msgspec.structs.replace(state, administrator=account.create_administrator(aws))
    state.save()
    aws = Aws(state)
    progress("starting the CAST AI API")
    castai, api_key = castai_process.start(state.path)
    state = msgspec.structs.replace(state, castai=castai)
    state.save()
    aws.secrets.create_secret(Name=API_KEY_SECRET, SecretString=api_key)
    progress(f"creating VPC and EKS cluster {state.cluster}")
    account.create_cluster(aws, state.cluster, account.create_network(aws, state.cluster))
    return state


def populate(state: State, workloads: str) -> None:
    """Create nodes and workloads, and wait until every pod is ready."""
    first, _, rest = workloads.partition(JOINED)
    with kubernetes.administrator(state) as client:
        kubernetes.join(client, state.nodes[:1])
        kubernetes.apply(client, first)
        _ready(client)
        kubernetes.join(client, state.nodes[1:])
        if rest:
            kubernetes.apply(client, rest)
        _ready(client)


def _ready(client: Client) -> None:
    wait.until(lambda: kubernetes.settled(client), "every pod to be ready", timeout=SETTLING)


def down(folder: Path, *, keep_logs: bool = False) -> list[str]:
    """End the sandbox's processes and remove its folder. Returns the ended processes' names.

    What an API server of the user was started with stays: the TokenReview's file and certificates.
    """
    state = State.load(folder)
    ended = []
    if state is not None:
        for name, process in state.processes().items():
            if process.alive():
                process.end()
                ended.append(name)
    if keep_logs:
        (folder / "state.json").unlink(missing_ok=True)
    elif (folder / external.REVIEW_FILE).exists() and (state is None or state.external):
        for path in folder.iterdir():
            if path.name in {external.REVIEW_FILE, "tls"}:
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return ended


def running(folder: Path) -> State:
    """Return the state of the folder's running sandbox. Raises SandboxError if none runs."""
    state = State.load(folder)
    if state is None or state.kubernetes is None:
        raise SandboxError("Start the sandbox first: python -m sandbox up")
    if not _alive(state):
        raise SandboxError("Start the sandbox again, a process has ended: python -m sandbox up")
    return state


def _alive(state: State) -> bool:
    return all(process.alive() for process in state.processes().values())


def _place(state: State, kubeconfig: Path, instances: Sequence[external.NodeInstance]) -> State:
    """Let the EKS cluster point to the user's cluster and save the state.

    The nodes' instances are launched. The simulated cluster is ended if it runs, with its
    instances.
    Raises SandboxError if the instances are in another region than the sandbox.
    """
    if instances[0].region != state.region:
        raise SandboxError(
            f"End the sandbox first (python -m sandbox down): it is in {state.region}, the nodes "
            f"are in {instances[0].region}"
        )
    aws = Aws(state)
    endpoint, authority = kubernetes.server(kubeconfig)
    aws.place_cluster(state.cluster, endpoint, authority)
    if state.kubernetes is not None and state.kubernetes.process is not None:
        state.kubernetes.process.end()
    nodes = tuple(each.node for each in instances)
    former = {node.instance for node in state.nodes} - {node.instance for node in nodes}
    if former:
        aws.ec2.terminate_instances(InstanceIds=sorted(former))
    account.launch_as(aws, state.cluster, instances)
    url = aws.token_review_url(state.cluster)
    external.write_review(state.path, url, Path(state.ca).read_text())
    placed = Kubernetes(kubeconfig=str(kubeconfig.absolute()), token_review_url=url)
    state = msgspec.structs.replace(state, kubernetes=placed, nodes=nodes)
    state.save()
    return state
