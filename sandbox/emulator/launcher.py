"""Start the AWS emulator for the sandbox: on loopback, with TLS, enforced IAM and our patches.

It runs in the emulator's own virtual environment, which cannot import this project: functions use
the same packages, and a dependency missing from a zip must fail.
The configuration is one JSON object on standard input. When the server listens, it prints one JSON
line with its endpoint. SIGTERM ends it and all function processes.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    config = json.load(sys.stdin)
    listener = socket.create_server(("127.0.0.1", config.get("port", 0)), backlog=256)
    port = listener.getsockname()[1]
    endpoint = f"https://localhost:{port}"
    _environment(config, port, endpoint)

    # After _environment: the emulator reads its settings at import.
    import guard  # noqa: PLC0415
    import patches  # noqa: PLC0415

    try:
        control_api, invocations = patches.install(config, endpoint)
        runtime = guard.module("ministack.core.lambda_runtime")
        guard.function(runtime, "reset")
    except guard.EmulatorChangedError as error:
        sys.exit(str(error))
    asyncio.run(_serve(control_api, config, listener, endpoint, lambda: _end(invocations, runtime)))


def _end(invocations: Any, runtime: Any) -> None:
    """End every function process, then this one at once: the emulator's threads delay an exit."""
    invocations.close()
    runtime.reset()
    logging.shutdown()
    os._exit(0)


def _environment(config: dict[str, str], port: int, endpoint: str) -> None:
    """Set the emulator's settings and the environment that functions inherit."""
    tmp = Path(config["tmp"])
    tmp.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        {
            "TMPDIR": str(tmp),
            "GATEWAY_PORT": str(port),
            "MINISTACK_ACCOUNT_ID": config["account"],
            "MINISTACK_REGION": config["region"],
            # The account's root user, which IAM does not limit.
            "AWS_ACCESS_KEY_ID": config["root_key"],
            "AWS_SECRET_ACCESS_KEY": config["root_secret"],
            "AUTH": "true",
            "USE_SSL": "1",
            "MINISTACK_SSL_CERT": config["certificate"],
            "MINISTACK_SSL_KEY": config["key"],
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            # Functions reach the emulator by the SDK's standard settings.
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_CA_BUNDLE": config["ca"],
            "NODE_EXTRA_CA_CERTS": config["ca"],
        }
    )


async def _serve(
    control_api: Any,
    config: dict[str, str],
    listener: socket.socket,
    endpoint: str,
    end: Callable[[], None],
) -> None:
    from hypercorn.asyncio import serve  # noqa: PLC0415
    from hypercorn.config import Config  # noqa: PLC0415

    settings = Config()
    settings.bind = [f"fd://{listener.fileno()}"]
    settings.certfile, settings.keyfile = config["certificate"], config["key"]
    settings.keep_alive_timeout = 75
    settings.loglevel = "WARNING"
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    print(json.dumps({"endpoint": endpoint}), flush=True)
    os.dup2(2, 1)  # the reader closes the pipe now: all further output goes to the log
    # This trigger never fires: it disables Hypercorn's signal handlers and slow shutdown.
    serving = asyncio.create_task(
        serve(control_api, settings, shutdown_trigger=asyncio.Event().wait)
    )
    await asyncio.wait(
        (serving, asyncio.create_task(stop.wait())), return_when=asyncio.FIRST_COMPLETED
    )
    if serving.done():
        serving.result()  # it could not serve: raise its error
    end()


if __name__ == "__main__":
    main()
