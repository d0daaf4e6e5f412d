"""etcd, kube-apiserver and, if present, kube-controller-manager as processes on loopback."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kubesim.certificates import Certificates
from kubesim.serve import kubeconfig

HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
TOKEN = "contract-admin"
CONTROLLERS = ",".join(
    f"{name}-controller"
    for name in ("disruption", "namespace", "serviceaccount", "garbage-collector")
)


class ControlPlane:
    """A real control plane from a folder of binaries, as setup-envtest installs them.

    It uses RBAC, a token file and a certificate from its own CA. Without kube-controller-manager,
    the status of budgets is not set and namespaces are not emptied. There are no kubelets and no
    scheduler.
    """

    def __init__(self, assets: Path, folder: Path, *, controllers: bool = True) -> None:
        self._assets = assets
        self._folder = folder
        self._processes = contextlib.ExitStack()
        self.kubeconfig = folder / "kubeconfig"
        self._etcd = ""
        self.disruption_controller = controllers and (
            shutil.which("kube-controller-manager", path=assets) is not None
        )

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._processes.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._processes.close()

    def compact(self) -> None:
        """Remove all earlier versions from etcd, as kube-apiserver does every five minutes."""
        with httpx2.Client(base_url=self._etcd, trust_env=False) as client:
            read = client.post("/v3/kv/range", json={"key": "AA=="})  # a key that is not there
            revision = read.raise_for_status().json()["header"]["revision"]
            done = client.post("/v3/kv/compaction", json={"revision": revision, "physical": True})
            done.raise_for_status()

    def _start(self) -> None:
        certificates = Certificates.ensure(self._folder / "tls")
        keys = self._service_account_keys()
        etcd, peer, api = (_free_port() for _ in range(3))
        self._etcd = f"http://{HOST}:{etcd}"
        self._run(
            "etcd",
            data_dir=self._folder / "etcd",
            listen_client_urls=self._etcd,
            advertise_client_urls=self._etcd,
            listen_peer_urls=f"http://{HOST}:{peer}",
            initial_advertise_peer_urls=f"http://{HOST}:{peer}",
            initial_cluster=f"default=http://{HOST}:{peer}",
            unsafe_no_fsync="true",
        )
        tokens = self._folder / "tokens.csv"
        tokens.write_text(f'{TOKEN},kubernetes-admin,admin,"system:masters"\n')
        server = self._run(
            "kube-apiserver",
            etcd_servers=self._etcd,
            bind_address=HOST,
            advertise_address=HOST,
            secure_port=api,
            tls_cert_file=certificates.certificate,
            tls_private_key_file=certificates.key,
            token_auth_file=tokens,
            authorization_mode="RBAC",
            service_account_issuer="https://kubernetes.default.svc",
            service_account_key_file=keys,
            service_account_signing_key_file=keys,
            service_cluster_ip_range="10.0.0.0/24",
        )
        endpoint, authority = f"https://{HOST}:{api}", certificates.ca.read_text()
        self.kubeconfig.write_text(kubeconfig(endpoint, authority, TOKEN))
        self._await_ready(server, endpoint, authority)
        if self.disruption_controller:
            self._run(
                "kube-controller-manager",
                kubeconfig=self.kubeconfig,
                controllers=CONTROLLERS,
                leader_elect="false",
                secure_port=0,
            )

    def _run(self, name: str, **flags: object) -> subprocess.Popen[bytes]:
        binary = shutil.which(name, path=self._assets)
        assert binary is not None
        arguments = [f"--{flag.replace('_', '-')}={value}" for flag, value in flags.items()]
        log = self._processes.enter_context((self._folder / f"{name}.log").open("wb"))
        process = subprocess.Popen([binary, *arguments], stdout=log, stderr=subprocess.STDOUT)  # noqa: S603 - the user's own binaries
        self._processes.callback(_stop, process)
        return process

    def _await_ready(self, server: subprocess.Popen[bytes], endpoint: str, authority: str) -> None:
        context = ssl.create_default_context(cadata=authority)
        end = time.monotonic() + START_SECONDS
        with httpx2.Client(
            verify=context, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False
        ) as client:
            while server.poll() is None and time.monotonic() < end:
                with contextlib.suppress(httpx2.TransportError):
                    if client.get(f"{endpoint}/readyz").status_code == 200:
                        return
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(0.1)  # ends early if the process ends
        log = (self._folder / "kube-apiserver.log").read_text()[-2000:]
        message = f"Read its log: kube-apiserver is not ready after {START_SECONDS} s\n{log}"
        raise RuntimeError(message)

    def _service_account_keys(self) -> Path:
        path = self._folder / "service-account.key"
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return path


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
