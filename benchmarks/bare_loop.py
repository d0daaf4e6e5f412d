"""A minimal drain: list the pods of a node and evict them, 50 at a time.

    python -m benchmarks.bare_loop ACCESS NODE

ACCESS: a JSON file with server, ca_pem, token, certificate, key. It has no cordon, no retry, no
order and no watch. The difference to the handler is what these cost.
"""

import asyncio
import json
import ssl
import sys
from pathlib import Path

import httpx2

PARALLEL = 50
NAMESPACE = "castai-benchmark"  # not imported, to keep the start short


async def main(access: dict[str, str], node: str) -> None:
    """Evict all pods of the node."""
    context = ssl.create_default_context(cadata=access["ca_pem"])
    if access["certificate"]:
        context.load_cert_chain(access["certificate"])
    slots = asyncio.Semaphore(PARALLEL)
    async with httpx2.AsyncClient(
        base_url=access["server"],
        verify=context,
        headers={"authorization": f"Bearer {access['token']}"} if access["token"] else {},
        timeout=30,
        trust_env=False,
    ) as http:

        async def evict(name: str) -> None:
            metadata = {"name": name, "namespace": NAMESPACE}
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
            path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
            async with slots:
                (await http.post(path, json=body)).raise_for_status()

        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        listed = await http.get(path, params={"fieldSelector": f"spec.nodeName={node}"})
        await asyncio.gather(*(evict(pod["metadata"]["name"]) for pod in listed.json()["items"]))


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]))
