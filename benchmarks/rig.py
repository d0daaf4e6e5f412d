"""The setup of a run: the handler's zip, containers that run it, AWS and a cluster.

Each is a separate process, so that they share only the machine's processors.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Self

import botocore
import psutil  # type: ignore[import-untyped] # its stubs are a separate package

from benchmarks.objects import CLUSTER, REGION, spot_notice
from kubesim.certificates import Certificates
from stacks.constructs.bundling import LOCAL, Bundle

ROOT = Path(__file__).parents[1]
CONTAINER = ROOT / "benchmarks" / "container.py"
REQUIREMENTS = ROOT / "lambdas" / "requirements.txt"
# The packages of Lambda's Python runtime.
RUNTIME_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six")
ENDED = 30.0  # s in which a process must end


class BenchmarkError(RuntimeError):
    """A benchmark cannot continue. The first line of the message says why."""


class LineProcess:
    """A process that reads lines of JSON and writes a line as the answer to each."""

    def __init__(
        self, command: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        with log.open("a") as sink:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                bufsize=1,
                cwd=ROOT,
                env=None if env is None else dict(env),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._in.close()
        try:
            self._process.wait(ENDED)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()

    @property
    def _in(self) -> IO[str]:
        assert self._process.stdin is not None  # noqa: S101 - it was opened as a pipe
        return self._process.stdin

    @property
    def _out(self) -> IO[str]:
        assert self._process.stdout is not None  # noqa: S101
        return self._process.stdout

    def usage(self) -> tuple[float, int]:
        """Return the process's resident memory in MB and its open file descriptors."""
        process = psutil.Process(self._process.pid)
        return process.memory_info().rss / 2**20, process.num_fds()

    def kill(self) -> None:
        """Kill the process at once; its answer is not needed."""
        self._process.kill()

    def read_line(self) -> str:
        """Read a line. Raises BenchmarkError with the log's end if the process has ended."""
        line = self._out.readline()
        if not line:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise BenchmarkError(f"A process has ended too early: {self._log}\n{tail}")
        return line.rstrip("\n")

    def send(self, message: object) -> None:
        """Send a line of JSON."""
        self._in.write(json.dumps(message) + "\n")
        self._in.flush()

    def request(self, message: object) -> Any:  # noqa: ANN401 - JSON
        """Send a line of JSON and read the answer."""
        self.send(message)
        return json.loads(self.read_line())


class Simulation(LineProcess):
    """The simulated cluster: benchmarks/simulation.py, which has the commands."""

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        super().__init__(
            [sys.executable, "-m", "benchmarks.simulation", self.kubeconfig],
            log=folder / "cluster.log",
        )
        self.endpoint = self.read_line()

    def do(self, command: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Send one command. Returns its answer."""
        return self.request({"do": command, **arguments})


class Rig:
    """The folder with the zip's content and certificates. Starts AWS and containers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.zip = folder / "zip"
        self.sources = folder / "sources"
        self.runtime = folder / "runtime"
        self.log = folder / "containers.log"
        self._certificates = Certificates.ensure(folder / "certificates")
        self._config = folder / "aws.json"
        self._config.write_text("{}")
        # As long as the SDK's CA bundle: reading it is part of every first call.
        self._ca_bundle = folder / "ca-bundle.pem"
        self._ca_bundle.write_bytes(
            (Path(botocore.__file__).parent / "cacert.pem").read_bytes()
            + self._certificates.ca.read_bytes()
        )

    def bundle(self) -> None:
        """Build the zip's folder for this machine, and a copy without bytecode."""
        self.zip.mkdir()
        Bundle("spot_handler", REQUIREMENTS, LOCAL).build(self.zip)
        shutil.copytree(self.zip, self.sources, ignore=shutil.ignore_patterns("__pycache__"))
        self.runtime.mkdir()
        for name in RUNTIME_PACKAGES:
            spec = find_spec(name)
            if spec is None or spec.origin is None:
                raise BenchmarkError(f"Install {name}: the function's runtime has it")
            origin = Path(spec.origin)
            source = origin.parent if origin.name == "__init__.py" else origin
            (self.runtime / source.name).symlink_to(source)

    @contextmanager
    def aws(self) -> Iterator[AwsEndpoint]:
        """Start AWS with one cluster and its instances. Yields its process."""
        certificate, key = self._certificates.certificate, self._certificates.key
        command: list[str | Path] = [sys.executable, "-m", "benchmarks.aws_endpoint"]
        command += [self._config, certificate, key]
        with AwsEndpoint(command, log=self.folder / "aws.log") as endpoint:
            endpoint.url = f"https://127.0.0.1:{endpoint.read_line()}"
            endpoint.config, endpoint.ca_pem = self._config, self._certificates.ca.read_text()
            yield endpoint
            endpoint.kill()

    def environment(self, aws: AwsEndpoint, *paths: Path, **more: str) -> dict[str, str]:
        """Return a container's environment, as Lambda sets it."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(str(path) for path in (*paths, self.runtime)),
            "PYTHONDONTWRITEBYTECODE": "1",  # /var/task is read-only
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_SESSION_TOKEN": "benchmark",
            "AWS_ENDPOINT_URL": aws.url,
            "AWS_CA_BUNDLE": str(self._ca_bundle),
            "AWS_LAMBDA_FUNCTION_NAME": "spot-handler",
            **more,
        }

    def container(self, aws: AwsEndpoint, **more: str) -> Container:
        """Start a container."""
        if "BENCHMARK_KUBECONFIG" in more:  # runs from the repository, whose code reads the file
            return Container(
                [sys.executable, CONTAINER],
                log=self.log,
                env=self.environment(aws, ROOT, **more),
            )
        return self.cold_container(aws, self.zip, **more)

    def cold_container(self, aws: AwsEndpoint, zip_folder: Path, **more: str) -> Container:
        """Start a container with one of the zip's folders."""
        return Container(
            [sys.executable, "-S", "-P", CONTAINER],
            log=self.log,
            env=self.environment(aws, zip_folder, **more),
        )


class AwsEndpoint(LineProcess):
    """The process of benchmarks/aws_endpoint.py."""

    url = ""
    ca_pem = ""
    config: Path

    def describe(self, endpoint: str, ca_pem: str, instances: Mapping[str, str]) -> None:
        """Set the cluster's endpoint and CA, and the node of each instance."""
        draft = self.config.with_suffix(".new")
        cluster = {
            "name": CLUSTER,
            "endpoint": endpoint,
            "status": "ACTIVE",
            "certificateAuthority": {"data": base64.b64encode(ca_pem.encode()).decode()},
        }
        draft.write_text(json.dumps({"cluster": cluster, "instances": dict(instances)}))
        draft.replace(self.config)


class Container(LineProcess):
    """The process of benchmarks/container.py."""

    def notice(self, instance: str, age: float = 0.0) -> float:
        """Send a spot notice that is `age` seconds old. Returns the time by the monotonic clock."""
        given = datetime.now(UTC) - timedelta(seconds=age)
        event = spot_notice(instance, given.strftime("%Y-%m-%dT%H:%M:%SZ"))
        at = time.monotonic()
        self.send(event)
        return at

    def result(self) -> dict[str, Any]:
        """Return the result of the oldest notice. Raises BenchmarkError if the handler raised."""
        answer: dict[str, Any] = json.loads(self.read_line())
        if "error" in answer:
            raise BenchmarkError(f"The handler failed: {answer['error']} (log: {self._log})")
        return answer
