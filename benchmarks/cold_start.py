"""Process start → first request to the cluster, compared with one `boto3.client("ec2")`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.objects import instance_id, node_name
from benchmarks.rig import ROOT, AwsEndpoint, Rig

CLIENT = "import time, boto3; boto3.client('ec2'); print(time.monotonic())"
MODULES = 15  # shown
# What is imported before the first request; httpx2 imports the last two when it is first used.
IMPORTS = "import lambdas.spot_handler.handler, httpcore2, anyio._backends._asyncio"
_IMPORT_TIME = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)")

PHASES = ROOT / "benchmarks" / "cold_start_phases.py"


@dataclass(frozen=True)
class ColdStart:
    """Medians in seconds. Sizes in bytes, unpacked and compressed in the zip."""

    samples: int
    client: float
    handler: float
    sources: float
    """The handler from a zip without bytecode."""
    first_invocation: float
    modules: list[tuple[str, float, int]]
    """Top-level package, seconds of its own code, modules."""
    slowest: list[tuple[str, float]]
    sizes: dict[str, tuple[int, int]]
    phases: dict[str, float]

    @property
    def ratio(self) -> float:
        return self.handler / self.client


def measure(rig: Rig, aws: AwsEndpoint, *, samples: int) -> ColdStart:
    """Measure the peers in turns, so that other load on the machine affects them equally."""
    instance, name = instance_id(1), node_name(1)
    aws.describe(aws.url, aws.ca_pem, {instance: name})
    times: dict[str, list[float]] = {"client": [], "handler": [], "sources": []}
    for _ in range(samples):
        times["client"].append(_client(rig, aws))
        times["handler"].append(_first_request(rig, aws, rig.zip, instance))
        times["sources"].append(_first_request(rig, aws, rig.sources, instance))
    packages, slowest = _import_times(rig, aws)
    return ColdStart(
        samples=samples,
        client=median(times["client"]),
        handler=median(times["handler"]),
        sources=median(times["sources"]),
        first_invocation=median(_after_import(rig, aws, instance) for _ in range(samples)),
        modules=packages,
        slowest=slowest,
        sizes=sizes(rig),
        phases=_phases(rig, aws, instance, samples),
    )


def _client(rig: Rig, aws: AwsEndpoint) -> float:
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", CLIENT],
        check=True,
        capture_output=True,
        text=True,
        env=rig.environment(aws),
    )
    return float(done.stdout) - begun


def _first_request(rig: Rig, aws: AwsEndpoint, folder: Path, instance: str) -> float:
    with rig.cold_container(aws, folder) as container:
        container.notice(instance)
        arrived = float(aws.read_line())
        container.kill()  # what follows is measured elsewhere
        return arrived - container.started


def _after_import(rig: Rig, aws: AwsEndpoint, instance: str) -> float:
    """Measure the time after the import: Lambda's invocation without its initialisation."""
    with rig.cold_container(aws, rig.zip) as container:
        container.send(None)  # an unknown event: the answer follows the import
        container.read_line()
        begun = container.notice(instance)
        arrived = float(aws.read_line())
        container.kill()
        return arrived - begun


def _phases(rig: Rig, aws: AwsEndpoint, instance: str, samples: int) -> dict[str, float]:
    found: list[dict[str, float]] = []
    for _ in range(samples):
        done = subprocess.run(
            [
                sys.executable,
                "-S",
                "-P",
                PHASES,
                instance,
            ],
            check=True,
            capture_output=True,
            text=True,
            env=rig.environment(aws, rig.zip),
        )
        found.append(json.loads(done.stdout))
    return {phase: median(times[phase] for times in found) for phase in found[0]}


def _import_times(
    rig: Rig, aws: AwsEndpoint
) -> tuple[list[tuple[str, float, int]], list[tuple[str, float]]]:
    """Return import times without nested imports, by top-level package and by module."""
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-X", "importtime", "-c", IMPORTS],
        check=True,
        capture_output=True,
        text=True,
        env=rig.environment(aws, rig.zip),
    )
    packages: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for own, _, module in _IMPORT_TIME.findall(done.stderr):
        package = module.partition(".")[0]
        packages[package] += int(own)
        modules[module] += int(own)
        count[package] += 1
    return (
        [(name, own / 1e6, count[name]) for name, own in packages.most_common(MODULES)],
        [(name, own / 1e6) for name, own in modules.most_common(MODULES)],
    )


def sizes(rig: Rig) -> dict[str, tuple[int, int]]:
    """Return bytes by top-level name in the zip: unpacked, and compressed as in a zip."""
    import zlib  # noqa: PLC0415 - used only here

    found: dict[str, tuple[int, int]] = {}
    for path in sorted(rig.zip.rglob("*")):
        if path.is_file():
            name = path.relative_to(rig.zip).parts[0].partition("-")[0].removesuffix(".dist")
            content = path.read_bytes()
            plain, packed = found.get(name, (0, 0))
            found[name] = plain + len(content), packed + len(zlib.compress(content, 9))
    return dict(sorted(found.items(), key=lambda entry: -entry[1][1]))
