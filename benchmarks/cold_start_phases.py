"""Measure the phases of a cold start of the handler.

    python -S -P benchmarks/cold_start_phases.py INSTANCE      (as benchmarks/container.py)

Prints a JSON object: phase → seconds, in the order of a cold start. A module counts in the first
phase that imports it.
"""

import json
import sys
import time
from typing import Any


def main(instance: str) -> dict[str, float]:
    """Run each phase once. Returns seconds by phase."""
    times: dict[str, float] = {}
    last = time.perf_counter()

    def done(phase: str) -> None:
        nonlocal last
        now = time.perf_counter()
        times[phase] = now - last
        last = now

    import botocore.session  # noqa: F401, PLC0415 - the imports are what is measured

    done("SDK: import botocore, and urllib3 with it")
    import asyncio  # noqa: PLC0415
    import ssl  # noqa: PLC0415

    import httpcore2  # noqa: F401, PLC0415 - httpx2 imports it when it is first used
    import httpx2  # noqa: F401, PLC0415
    from anyio._backends import _asyncio  # noqa: F401, PLC0415 - the same

    done("import asyncio and httpx2, and anyio with it")
    import aws_lambda_powertools.metrics  # noqa: F401, PLC0415
    import msgspec  # noqa: F401, PLC0415

    done("import Powertools and msgspec")
    from lambdas.spot_handler import handler, instances  # noqa: PLC0415

    done("import the handler itself")
    dependencies = handler.dependencies()
    done("SDK: session and EC2 client, with our settings")
    instances.find(dependencies.ec2, instance)
    done("SDK: call EC2: CA bundle, TLS, request")
    found: Any = dependencies.clusters.get("benchmark", until=time.time() + 60)
    done("SDK: EKS client, and call EKS: CA bundle, TLS, request")
    cluster, token = found
    token.get()
    ssl.create_default_context(cadata=cluster.ca_pem)
    asyncio.new_event_loop().close()
    done("token, TLS context, event loop")
    return times


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
