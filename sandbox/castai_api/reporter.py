"""Send the castai-agent's reports for a cluster whose pods run nothing or cannot reach the API.

The agent's environment and Secret in the cluster give the API URL, the API key and the cluster's
identity. A report goes to that API with that key while the Deployment is available.
"""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
from lightkube import ApiError, Client
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Secret

from lambdas.common.names import AGENT
from sandbox import kubernetes
from sandbox.errors import SandboxError
from sandbox.state import State

EVERY = 0.5  # s between two reports
TIMEOUT = 5.0  # s for one

_IDENTITY = {
    "accountId": "EKS_ACCOUNT_ID",
    "region": "EKS_REGION",
    "clusterName": "EKS_CLUSTER_NAME",
}


@contextlib.contextmanager
def reporting(client: Client) -> Iterator[None]:
    """Send reports from a thread until the `with` block ends. `client` reads the cluster."""
    with _reporting(lambda: client):
        yield


@contextlib.contextmanager
def reporting_for(folder: Path) -> Iterator[None]:
    """As `reporting`, for the cluster that the folder's sandbox has at the time of the report."""
    with _reporting(_Placed(folder)):
        yield


class _Placed:
    """The client of the sandbox's cluster; None while there is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kubeconfig = ""
        self._client: Client | None = None

    def __call__(self) -> Client | None:
        state = State.load(self._folder)
        kubeconfig = state.kubernetes.kubeconfig if state and state.kubernetes else ""
        if kubeconfig != self._kubeconfig:
            self._client = kubernetes.connect(Path(kubeconfig)) if kubeconfig else None
            self._kubeconfig = kubeconfig
        return self._client


@contextlib.contextmanager
def _reporting(find: Callable[[], Client | None]) -> Iterator[None]:
    end = threading.Event()
    thread = threading.Thread(target=_run, args=(find, end), name=AGENT, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(TIMEOUT + EVERY)


def _run(find: Callable[[], Client | None], end: threading.Event) -> None:
    last: tuple[str, str, dict[str, str]] | None = None
    while not end.wait(EVERY):
        # The next report follows.
        with contextlib.suppress(ApiError, httpx2.HTTPError, SandboxError):
            client = find()
            found = agent(client) if client else None
            if found:
                _report(*found, status="online")
            elif last:
                _report(*last, status="non-responding")
            last = found


def agent(client: Client) -> tuple[str, str, dict[str, str]] | None:
    """Return URL, key and cluster of the running agent; None if no agent runs."""
    try:
        deployment = client.get(Deployment, AGENT, namespace=AGENT)
        secret = client.get(Secret, AGENT, namespace=AGENT)
    except ApiError as error:
        if error.status.code == 404:
            return None
        raise
    if not deployment.status or not deployment.status.availableReplicas or not deployment.spec:
        return None
    pod = deployment.spec.template.spec
    containers = [each for each in (pod.containers if pod else []) if each.name == "agent"]
    given = {each.name: each.value or "" for each in (containers[0].env or [])}
    key = base64.b64decode((secret.data or {}).get("API_KEY", "")).decode()
    identity = {field: given.get(variable, "") for field, variable in _IDENTITY.items()}
    return given.get("API_URL", ""), key, identity


def _report(url: str, key: str, identity: dict[str, str], *, status: str) -> None:
    body = {"eks": identity, "status": status}
    httpx2.post(f"{url}/_sandbox/agent", json=body, headers={"X-API-Key": key}, timeout=TIMEOUT)
