"""Start and end the sandbox of a folder. Both are idempotent."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from lightkube import Client

from kubesim.certificates import Certificates
from sandbox import account, castai_process, cluster_process, emulator_process, kubernetes, wait
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

    kubeconfig: a cluster to use instead of the simulated one. Its objects are not changed.
    workloads: YAML for the simulated cluster instead of the demo's.
    spot_handler_rights: apply manifests/spot-handler-rbac.yaml, as users without onboarding do.
    If one of its processes has ended, the sandbox is ended and started again: the account exists
    only in the emulator's memory.
    Raises SandboxError after all its processes are ended.
    """
    state = State.load(folder)
    if state is not None and state.kubernetes and _alive(state):
        if kubeconfig is not None:
            state = _place(state, Aws(state), kubeconfig)
            state.save()
        return state
    down(folder)
    try:
        return _start(
            State(folder=str(folder), cluster=cluster),
            progress,
            kubeconfig=kubeconfig,
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
    kubeconfig: Path | None,
    machines: Sequence[Machine],
    workloads: str,
    concurrency: int,
    spot_handler_rights: bool,
) -> State:
    state.path.mkdir(parents=True, exist_ok=True)
    certificates = Certificates.ensure(state.path / "tls")
    progress("starting the AWS emulator")
    emulator = emulator_process.start(
        state.path,
        certificates,
        account=state.account,
        region=state.region,
        concurrency=concurrency,
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
    progress(f"creating VPC, EKS cluster {state.cluster} and {len(machines)} instances")
    subnets = account.create_network(aws, state.cluster)
    account.create_cluster(aws, state.cluster, subnets)
    nodes = account.launch(aws, state.cluster, subnets, machines)
    state = msgspec.structs.replace(state, nodes=tuple(nodes))
    if kubeconfig is not None:
        state = _place(state, aws, kubeconfig)
        state.save()
        return state
    progress("starting the simulated cluster")
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
    """End the sandbox's processes and remove its folder. Returns the ended processes' names."""
    state = State.load(folder)
    ended = []
    if state is not None:
        for name, process in state.processes().items():
            if process.alive():
                process.end()
                ended.append(name)
    if keep_logs:
        (folder / "state.json").unlink(missing_ok=True)
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


def _place(state: State, aws: Aws, kubeconfig: Path) -> State:
    """Let the EKS cluster point to another cluster. End the simulated cluster if it runs."""
    endpoint, authority = kubernetes.server(kubeconfig)
    aws.place_cluster(state.cluster, endpoint, authority)
    if state.kubernetes is not None and state.kubernetes.process is not None:
        state.kubernetes.process.end()
    url = aws.token_review_url(state.cluster)
    review = kubernetes.review_config(url, Path(state.ca).read_text())
    (state.path / "token-review.kubeconfig").write_text(review)
    placed = Kubernetes(kubeconfig=str(kubeconfig.absolute()), token_review_url=url)
    return msgspec.structs.replace(state, kubernetes=placed)
