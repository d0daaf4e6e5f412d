"""The sandbox's state between two commands: `<folder>/state.json`."""

import os
from pathlib import Path

import msgspec

from sandbox.errors import SandboxError
from sandbox.processes import Process

FOLDER = Path(".sandbox")
ACCOUNT = "111122223333"  # an account id that AWS reserves for documentation
REGION = "eu-central-1"
CLUSTER = "demo"
API_KEY_SECRET = "castai/api-key"  # noqa: S105 - the secret's name


class Emulator(msgspec.Struct, frozen=True):
    """The AWS emulator."""

    process: Process
    endpoint: str
    token: str
    """Token of the emulator's control API."""
    root_secret: str
    """Secret access key of the account's root user."""


class Administrator(msgspec.Struct, frozen=True):
    """The IAM user that deploys."""

    access_key: str
    secret_key: str


class Node(msgspec.Struct, frozen=True):
    """An EC2 instance that is a node of the cluster."""

    instance: str
    name: str
    zone: str
    spot: bool

    @property
    def provider_id(self) -> str:
        """The node's ``spec.providerID``, as the cloud provider sets it."""
        return f"aws:///{self.zone}/{self.instance}"


class Kubernetes(msgspec.Struct, frozen=True):
    """The cluster that the emulator's EKS cluster points to."""

    kubeconfig: str
    """Path of an administrator's kubeconfig."""
    token_review_url: str
    process: Process | None = None
    """None for a cluster of the user."""


class CastAi(msgspec.Struct, frozen=True):
    """The simulated CAST AI API. The functions read its key from Secrets Manager."""

    process: Process
    url: str


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to use and to end the sandbox. It has secrets: only its owner can read it."""

    folder: str
    account: str = ACCOUNT
    region: str = REGION
    cluster: str = CLUSTER
    ca: str = ""
    emulator: Emulator | None = None
    administrator: Administrator | None = None
    kubernetes: Kubernetes | None = None
    castai: CastAi | None = None
    nodes: tuple[Node, ...] = ()

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def external(self) -> bool:
        """Whether the cluster is one of the user."""
        return self.kubernetes is not None and self.kubernetes.process is None

    def save(self) -> None:
        """Write the file atomically."""
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / f"state.json.{os.getpid()}"
        draft.touch(mode=0o600)
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(self)))
        draft.replace(self.path / "state.json")

    @classmethod
    def load(cls, folder: Path) -> "State | None":
        """Return the folder's state, or None if no sandbox was started there.

        Raises SandboxError for a file of another version.
        """
        try:
            return msgspec.json.decode((folder / "state.json").read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise SandboxError(
                f"Remove {folder}/state.json: another version of the sandbox wrote it ({error}). "
                "The processes in it may still run."
            ) from error

    def processes(self) -> dict[str, Process]:
        """Return the sandbox's processes by name."""
        found = {
            "AWS emulator": self.emulator.process if self.emulator else None,
            "simulated cluster": self.kubernetes.process if self.kubernetes else None,
            "CAST AI API": self.castai.process if self.castai else None,
        }
        return {name: process for name, process in found.items() if process is not None}
