"""Where a cold start's time goes: the handler's own path, stopped at each stage.

    python -S -P benchmarks/cold_start_phases.py INSTANCE      (as benchmarks/container.py)

Prints a JSON object: stage → seconds. Its order is that of a cold start; what a stage imports, a
later one has for nothing.
"""

import json
import sys
import time
from typing import Any


def main(instance: str) -> dict[str, float]:
    """Each stage once."""
    times: dict[str, float] = {}
    last = time.perf_counter()

    def done(stage: str) -> None:
        nonlocal last
        now = time.perf_counter()
        times[stage] = now - last
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
    done("SDK: ask EC2: authorities, TLS, request")
    found: Any = dependencies.clusters.get("benchmark", until=time.time() + 60)
    done("SDK: EKS client, and ask EKS: authorities, TLS, request")
    cluster, token = found
    token.get()
    ssl.create_default_context(cadata=cluster.ca_pem)
    asyncio.new_event_loop().close()
    done("token, TLS context, event loop")
    return times


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
