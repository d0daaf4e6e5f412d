"""Send the castai-agent's reports for the simulated cluster, whose pods run nothing.

The agent's environment and Secret in the cluster give the API URL, the API key and the cluster's
identity. A report goes to that API with that key while the Deployment is available.
"""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Iterator

import httpx2
from lightkube import ApiError, Client
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Secret

from lambdas.common.names import AGENT

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
    end = threading.Event()
    thread = threading.Thread(target=_run, args=(client, end), name=AGENT, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(TIMEOUT + EVERY)


def _run(client: Client, end: threading.Event) -> None:
    last: tuple[str, str, dict[str, str]] | None = None
    while not end.wait(EVERY):
        with contextlib.suppress(ApiError, httpx2.HTTPError):  # the next report follows
            found = agent(client)
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
