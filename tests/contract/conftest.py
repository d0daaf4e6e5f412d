"""One suite, three kinds of cluster.

- simulated (the default): once without controllers, like kube-apiserver alone, and once with them;
- `--cluster=real`: etcd and kube-apiserver (and kube-controller-manager, if present) from the
  folder in KUBEBUILDER_ASSETS, on loopback;
- `--kubeconfig FILE`: any cluster. The user must be its administrator. The tests create and remove
  namespaces, nodes and cluster roles named `contract-…`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kubesim import ServedCluster, SimulatedCluster
from kubesim.controllers import ALL
from tests.contract.api import BINDINGS, NODES, ROLES, Api, Space, Target, unique
from tests.contract.control_plane import ControlPlane

_SKIPPED = pytest.StashKey[bool]()
BARE = "simulated, bare"
SIMULATED = (BARE, "simulated, with controllers")
GROUP = "rbac.authorization.k8s.io"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster", choices=("simulated", "real"), default="simulated")
    parser.addoption("--kubeconfig", type=Path, help="run the contract suite on this cluster")


def _missing() -> list[str]:
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    return [name for name in ("etcd", "kube-apiserver") if not shutil.which(name, path=assets)]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the binaries of a real control plane, print one line instead of many skips."""
    if config.getoption("--cluster", default="simulated") != "real" or not _missing():
        return
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    items[:] = [item for item in items if item not in ours]
    config.hook.pytest_deselected(items=ours)
    config.stash[_SKIPPED] = True
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        what = " and ".join(_missing())
        reporter.write_line(f"contract suite skipped: put {what} into KUBEBUILDER_ASSETS")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and _SKIPPED in session.config.stash:
        session.exitstatus = pytest.ExitCode.OK


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" not in metafunc.fixturenames:
        return
    chosen: tuple[str, ...] = SIMULATED
    if metafunc.config.getoption("--kubeconfig", default=None):
        chosen = ("kubeconfig",)
    elif metafunc.config.getoption("--cluster", default="simulated") == "real":
        chosen = ("real",)
    metafunc.parametrize("target", chosen, indirect=True, scope="session")


@pytest.fixture(scope="session")
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("cluster")
    if request.param == "kubeconfig":
        path = request.config.getoption("--kubeconfig")
        with Api.of(path).client as client:
            yield Target(Api(client), path, disruption_controller=True)
    elif request.param == "real":
        yield from _real(folder)
    else:
        yield from _simulated(folder, bare=request.param == BARE)


def _simulated(folder: Path, *, bare: bool) -> Iterator[Target]:
    without = [controller.name for controller in ALL] if bare else []
    with ServedCluster(without=without) as cluster:
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(cluster.kubeconfig())
        with Api.of(kubeconfig).client as client:
            compact = partial(cluster.run, SimulatedCluster.compact)
            yield Target(Api(client), kubeconfig, not bare, compact)


def _real(folder: Path) -> Iterator[Target]:
    assets = Path(os.environ["KUBEBUILDER_ASSETS"])
    with ControlPlane(assets, folder) as plane, Api.of(plane.kubeconfig).client as client:
        yield Target(Api(client), plane.kubeconfig, plane.disruption_controller, plane.compact)


@pytest.fixture
def api_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Api]:
    """A real API server whose objects no controller changes."""
    path = request.config.getoption("--kubeconfig")
    if path:
        with Api.of(path).client as client:
            yield Api(client)
    elif request.config.getoption("--cluster") == "real":
        assets = Path(os.environ["KUBEBUILDER_ASSETS"])
        with (
            ControlPlane(assets, tmp_path, controllers=False) as plane,
            Api.of(plane.kubeconfig).client as client,
        ):
            yield Api(client)
    else:
        pytest.skip("compares with a real API server: use --cluster=real")


@pytest.fixture
def space(target: Target) -> Iterator[Space]:
    """A namespace and a node, both empty."""
    admin = target.admin
    space = Space(target, unique("space"), unique("node"))
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space.name}}
    admin.post("/api/v1/namespaces", namespace).ok()
    # Pods need it. A controller of the cluster may have created it already.
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    made = admin.post(f"/api/v1/namespaces/{space.name}/serviceaccounts", account)
    assert made.status in (201, 409), made.body
    make_node(admin, space.node)
    try:
        yield space
    finally:
        for pod in admin.get(space.pods).body["items"]:
            path = f"{space.pods}/{pod['metadata']['name']}"
            admin.patch(path, {"metadata": {"finalizers": None}})
            admin.delete(path, gracePeriodSeconds=0)
        admin.delete(f"/api/v1/namespaces/{space.name}")
        admin.delete(f"{NODES}/{space.node}")


def make_node(admin: Api, name: str) -> dict[str, object]:
    """Create a node without a kubelet: the test sets the status of its pods."""
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name},
            "annotations": {"sandbox/kubelet": "off"},
        },
        "spec": {"providerID": f"aws:///eu-central-1a/i-{name}"},
    }
    return admin.post(NODES, node).ok()


@pytest.fixture
def unprivileged(target: Target) -> Api:
    """A user without any right."""
    return target.admin.acting_as(unique("unprivileged"))


@pytest.fixture
def drainer(target: Target) -> Iterator[Api]:
    """A user with the rights of the spot handler, who may also apply cluster roles."""
    admin, name = target.admin, unique("drainer")
    role = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "patch"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "delete"]},
            {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]},
            {"apiGroups": [GROUP], "resources": ["clusterroles"], "verbs": ["create", "patch"]},
        ],
    }
    binding = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": name}],
    }
    admin.post(ROLES, role).ok()
    admin.post(BINDINGS, binding).ok()
    yield admin.acting_as(name)
    admin.delete(f"{BINDINGS}/{name}")
    admin.delete(f"{ROLES}/{name}")
