"""A policy server of the standard library alone, in tests a process of its own: python policy_server.py CHECKPOINT PORT

It evaluates the checkpoint's chunk function, which takes no time to prepare, and prints its port. Some paths in its
address make it misbehave.
"""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import torch

from policy import DiffusionPolicy, SamplerConfig
from policy.exported import ExportedPolicy
from policy.exported.description import describe
from policy.exported.graph_files import Arrays
from policy.exported.wire import TAG_HEADER, from_bytes, policy_tag, to_bytes
from policy.runtime.chunk_function import ChunkFunction

SAMPLER = SamplerConfig("sequential", "ddim", 4)


def served(checkpoint: str) -> ExportedPolicy:
    function = ChunkFunction(DiffusionPolicy.load(checkpoint, sampler=SAMPLER))
    description = describe(function, precision="float32", provenance={"checkpoint": checkpoint})

    @torch.no_grad()
    def run(inputs: Arrays) -> list[np.ndarray]:
        outputs = function(*(torch.from_numpy(array) for array in inputs.values()))
        return [output.numpy() for output in outputs]

    return ExportedPolicy(description, run)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, address: object) -> None:
        """Clients go away as the tests want them to."""

    def __init__(self, port: int, policy: ExportedPolicy) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.policy = policy
        self.text = policy.description.to_json()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.reply(self.server.text.encode())

    def do_POST(self) -> None:
        policy = self.server.policy
        inputs = from_bytes(self.rfile.read(int(self.headers["Content-Length"])), policy.description.inputs)
        names = [tensor.name for tensor in policy.description.outputs]
        answer = to_bytes(dict(zip(names, policy.run(inputs), strict=True)))
        if self.path == "/status":
            self.send_error(503, "the replica is\nbusy")
        elif self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            while True:  # until nobody listens
                self.wfile.write(b".")
                time.sleep(0.05)
        else:
            long, short = answer + bytes(10**6), answer[:-4]
            self.reply({"/long": long, "/short": short, "/garbage": b"hello"}.get(self.path, answer))

    def reply(self, content: bytes) -> None:
        self.send_response(200)
        tag = policy_tag(self.server.text)
        self.send_header(TAG_HEADER, "other" if self.path == "/tag" and self.command == "POST" else tag)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the server's log out of the tests' output."""


if __name__ == "__main__":
    server = Server(int(sys.argv[2]), served(sys.argv[1]))
    print(server.server_port, flush=True)
    server.serve_forever()
