"""A process that imports and calls the handler as a Lambda container does.

    python -S -P benchmarks/container.py      (PYTHONPATH: the zip's folder, the runtime's packages)

Each line is a JSON object: events on standard input, results on standard output. The handler's own
output (its log, its metrics) goes to standard error. BENCHMARK_KUBECONFIG is the kubeconfig of a
cluster to use instead of the one that EKS describes.

It imports as little as possible before the handler, because that time counts as cold start.
"""

import json
import os
import sys
import time
from typing import Any

TIMEOUT = 150.0  # s, the function's timeout


class Context:
    """The part of Lambda's context object that the handler uses."""

    def __init__(self) -> None:
        self._end = time.monotonic() + TIMEOUT

    def get_remaining_time_in_millis(self) -> int:
        return int((self._end - time.monotonic()) * 1000)


def peak_mb() -> float:
    """Return the peak of this process's resident memory.

    On Linux, getrusage would include the memory of the process that started this one.
    """
    if sys.platform != "linux":
        import resource  # noqa: PLC0415 - see above

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with open("/proc/self/status") as lines:  # noqa: PTH123 - pathlib would be one more import
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Handle events until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from lambdas.spot_handler import handler  # noqa: PLC0415 - after the change of standard output

    tools, counted = None, None
    if kubeconfig := os.environ.get("BENCHMARK_KUBECONFIG"):
        import asyncio  # noqa: PLC0415 - see above
        from pathlib import Path  # noqa: PLC0415 - see above

        from benchmarks.kubeconfig import CountingTransport, dependencies  # noqa: PLC0415

        tools, counted = dependencies(Path(kubeconfig)), CountingTransport

    for line in sys.stdin:
        begun, processor = time.monotonic(), time.process_time()
        event, context = json.loads(line), Context()
        earlier = counted.conflicts if counted else 0
        answer: dict[str, Any]
        try:
            answer = {
                "result": asyncio.run(handler.respond(event, tools, remaining=TIMEOUT))
                if tools
                else handler.lambda_handler(event, context)  # type: ignore[arg-type]
            }
        except Exception as error:  # noqa: BLE001 - what Lambda counts as a failed invocation
            answer = {"error": f"{type(error).__name__}: {error}"}
        answer |= {
            "begun": begun,
            "seconds": time.monotonic() - begun,
            "processor_seconds": time.process_time() - processor,
            "peak_mb": peak_mb(),
            "conflicts": counted.conflicts - earlier if counted else None,
        }
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
