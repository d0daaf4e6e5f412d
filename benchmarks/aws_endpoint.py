"""The AWS that a drain asks, as a process of its own: DescribeInstances and DescribeCluster.

    python -m benchmarks.aws_endpoint CONFIG CERTIFICATE KEY

CONFIG is a JSON file: region, the cluster's name, endpoint and certificate authority, and the
private DNS name of each instance; it is read anew for each request. The first line on standard
output is the port. It also answers a request for a node, and says on standard output when that
arrived: a cold start ends there.

Far lighter than the emulator, so that it takes as little as possible of the measured process's
processor.
"""

from __future__ import annotations

import json
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from benchmarks.objects import node_object

_INSTANCES = """<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
<requestId>0</requestId><reservationSet><item><reservationId>r-0</reservationId><instancesSet><item>
<instanceId>{instance}</instanceId><instanceState><code>16</code><name>running</name>
</instanceState><privateDnsName>{name}</privateDnsName><tagSet><item>
<key>aws:eks:cluster-name</key><value>{cluster}</value></item></tagSet></item></instancesSet></item>
</reservationSet></DescribeInstancesResponse>"""


class Server(ThreadingHTTPServer):
    """Answers from the configuration file."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, config: Path, certificate: str, key: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self._file = config
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._file.read_text())
        return found

    def finish_request(
        self, request: socket | tuple[bytes, socket], client_address: object
    ) -> None:
        """TLS in the connection's own thread, not in the one that accepts."""
        if isinstance(request, tuple):
            raise TypeError("This is no datagram server")
        with self._tls.wrap_socket(request, server_side=True) as connection:
            super().finish_request(connection, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news; anything else shows in its own failure."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    # Nothing waits for an acknowledgement: that would be 40 ms that no real endpoint takes.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def do_POST(self) -> None:
        """EC2's query protocol: DescribeInstances."""
        body = self.rfile.read(int(self.headers["content-length"]))
        instance = parse_qs(body.decode())["InstanceId.1"][0]
        config = self.server.config
        name = config["instances"][instance]
        text = _INSTANCES.format(
            instance=instance, name=escape(name), cluster=escape(config["cluster"]["name"])
        )
        self._answer(text.encode(), "text/xml")

    def do_GET(self) -> None:
        """EKS's DescribeCluster, or the node by which a cold start ends."""
        arrived = time.monotonic()
        config = self.server.config
        if self.path.startswith("/api/v1/nodes/"):
            print(arrived, flush=True)
            name = self.path.rpartition("/")[2]
            instance = next(i for i, n in config["instances"].items() if n == name)
            self._answer(json.dumps(node_object(name, instance)).encode())
            return
        self._answer(json.dumps({"cluster": config["cluster"]}).encode())

    def _answer(self, body: bytes, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Silence: the measured processes share this terminal."""


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    print(server.server_port, flush=True)
    server.serve_forever()
