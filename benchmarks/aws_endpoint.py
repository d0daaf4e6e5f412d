"""AWS for a drain, as a separate process: DescribeInstances and DescribeCluster.

    python -m benchmarks.aws_endpoint CONFIG CERTIFICATE KEY

CONFIG is a JSON file: region, the cluster's name, endpoint and certificate authority, and the
private DNS name of each instance. It is read at each request. The first line on standard output is
the port. The server also answers a GET of a node and prints the time at which that arrived: the end
of a cold start.

It needs far less processor time than the emulator, which the measured process then has.
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

from benchmarks.objects import node_object
from simulation.drain import ec2_answer


class Server(ThreadingHTTPServer):
    """A server whose answers come from the configuration file."""

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
        """Start TLS in the connection's thread, not in the thread that accepts."""
        if isinstance(request, tuple):
            raise TypeError("This is not a datagram server")
        with self._tls.wrap_socket(request, server_side=True) as connection:
            super().finish_request(connection, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients may disconnect, and other errors fail the benchmark."""


class Handler(BaseHTTPRequestHandler):
    """The handler of one connection."""

    protocol_version = "HTTP/1.1"
    # With Nagle's algorithm an answer waits up to 40 ms for an acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def do_POST(self) -> None:
        """Answer DescribeInstances in EC2's query protocol."""
        body = self.rfile.read(int(self.headers["content-length"]))
        instance = parse_qs(body.decode())["InstanceId.1"][0]
        config = self.server.config
        name = config["instances"][instance]
        tags = {"aws:eks:cluster-name": config["cluster"]["name"]}
        self._answer(ec2_answer.one_instance(instance, name, tags), "text/xml")

    def do_GET(self) -> None:
        """Answer DescribeCluster of EKS, or the GET of a node that ends a cold start."""
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
        """Print nothing: the measured processes use the same terminal."""


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    print(server.server_port, flush=True)
    server.serve_forever()
