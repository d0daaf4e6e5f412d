"""Run the CDK command line as users run it, in the sandbox or in an account of the user."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from sandbox.aws import NO_ACCOUNT
from sandbox.errors import SandboxError

ROOT = Path(__file__).parents[1]
FAILED = "Failed resources:"  # heading of the summary of a failed deployment
TAIL = 30  # lines of another output that an error shows; cdk.log has all
CLI = ROOT / "node_modules" / ".bin" / "cdk"


class Account(Protocol):
    """An AWS account and region. All AWS variables that the CDK CLI gets are in `environment`."""

    @property
    def account(self) -> str: ...

    @property
    def region(self) -> str: ...

    def environment(self) -> dict[str, str]: ...


class Cdk:
    """One synthesised app. All commands after `synth` use its cloud assembly."""

    def __init__(self, account: Account, folder: Path, *, name: str = "cdk.out") -> None:
        self._account = account
        self._folder = folder
        self.assembly = folder / name
        self._outputs = folder / f"{name}.outputs.json"

    def synth(self, context: Mapping[str, str]) -> None:
        """Run `cdk synth` with these settings.

        The zips are built for this machine, unless `castai:bundling` says otherwise.
        """
        settings = {"castai:bundling": "local", **context}
        arguments = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        self._run(
            "synth", "--quiet", "--app", f"{sys.executable} app.py", "-o", self.assembly, *arguments
        )

    def bootstrap(self, policy: str = "") -> None:
        """Run `cdk bootstrap`: create the bucket and the roles that deployments use.

        `policy` is the ARN of CloudFormation's policy, by default AdministratorAccess.
        """
        self._run(
            *("bootstrap", "--app", self.assembly),
            *(("--cloudformation-execution-policies", policy) if policy else ()),
            f"aws://{self._account.account}/{self._account.region}",
        )

    def deploy(self, *stacks: str) -> str:
        """Run `cdk deploy` of these stacks, or of all. Returns its output."""
        return self._run(
            "deploy",
            *("--app", self.assembly, "--require-approval", "never"),
            *("--outputs-file", self._outputs),
            *(stacks or ("--all",)),
        )

    def outputs(self) -> dict[str, str]:
        """Return the stack outputs of the last deployment."""
        stacks = msgspec.json.decode(self._outputs.read_bytes(), type=dict[str, dict[str, str]])
        return {name: value for outputs in stacks.values() for name, value in outputs.items()}

    def destroy(self, *stacks: str) -> str:
        """Run `cdk destroy` of these stacks, or of all. Returns its output."""
        return self._run("destroy", "--app", self.assembly, "--force", *(stacks or ("--all",)))

    def _run(self, *arguments: str | Path) -> str:
        if not CLI.exists():
            raise SandboxError("Install the CDK command line: make setup")
        done = subprocess.run(
            [CLI, *arguments, "--no-notices", "--no-color"],
            cwd=ROOT,
            env=environment_from(self._account.environment(), self._folder),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            # Ctrl-C reaches this process only, which then ends the command or undoes its work.
            start_new_session=True,
        )
        with (self._folder / "cdk.log").open("a") as log:
            log.write(f"$ cdk {' '.join(os.fspath(part) for part in arguments)}\n{done.stdout}\n")
        if done.returncode:
            raise SandboxError(f"cdk {arguments[0]} failed:\n{essence(done.stdout)}")
        return done.stdout


def chosen(context: Sequence[str] | None) -> dict[str, str]:
    """Return the settings of `-c KEY=VALUE`. Raises SandboxError for one without a value."""
    settings = {}
    for text in context or ():
        key, found, value = text.partition("=")
        if not found:
            raise SandboxError(f"Write -c {text}=VALUE: a context setting needs a value")
        settings[key] = value
    return settings


def essence(output: str) -> str:
    """Return what a failed command says about the cause: its summary, or else its last lines."""
    _, found, failed = output.rpartition(FAILED)
    lines = f"{found}{failed}".strip().splitlines()
    return "\n".join(lines if found else lines[-TAIL:])


def environment_from(aws: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the shell's variables (for package index, proxy) with these AWS variables only."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        # The Node of the project's environment.
        "PATH": os.pathsep.join([os.fspath(Path(sys.executable).parent), os.environ["PATH"]]),
        # The CLI caches account ids by access key: here, not in the user's home.
        "CDK_HOME": os.fspath(folder / "cdk-home"),
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        **NO_ACCOUNT,
        **aws,
    }
