"""A server of one archive on 127.0.0.1, for the tests of the download; small demonstrations, and a policy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from policy import DiffusionPolicy
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod
from training.policy.noise_prediction import TrainingData, noise_prediction_loss


class ArchiveServer(ThreadingHTTPServer):
    """Offers one file, in a way that a test may change, and counts the requests for it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), ArchiveHandler)
        self.content = content
        self.drop_after: int | None = None  # bytes of the body after which the connection is closed
        self.status = 200
        self.headers: dict[str, str] | None = None  # instead of the body's length
        self.url = f"http://127.0.0.1:{self.server_port}/pusht.zip"
        self.requests = 0


class ArchiveHandler(BaseHTTPRequestHandler):
    server: ArchiveServer

    def do_GET(self) -> None:
        if self.path != "/pusht.zip":
            self.send_error(404)
            return
        self.server.requests += 1
        self.send_response(self.server.status)
        length = {"Content-Length": str(len(self.server.content))}
        for name, value in (length if self.server.headers is None else self.server.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.content[: self.server.drop_after])

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the server's log out of the tests' output."""


@pytest.fixture
def serve_archive() -> Iterator[Callable[[bytes], ArchiveServer]]:
    servers = []

    def start(content: bytes) -> ArchiveServer:
        server = ArchiveServer(content)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def small_demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 6 random episodes of 20 to 30 steps, enough for a short training."""
    path = tmp_path_factory.mktemp("demonstrations") / "small.zarr"
    rng = np.random.default_rng(0)
    ends = np.cumsum(rng.integers(20, 30, size=6))
    group: Any = zarr.open_group(str(path), mode="w")
    group["data/state"] = rng.uniform(50, 450, (ends[-1], 5)).astype(np.float32)
    group["data/action"] = rng.uniform(50, 450, (ends[-1], 2)).astype(np.float32)
    group["data/keypoint"] = rng.uniform(50, 450, (ends[-1], 9, 2)).astype(np.float32)
    group["meta/episode_ends"] = ends
    return path


@pytest.fixture(scope="module")
def trained(untrained: DiffusionPolicy) -> DiffusionPolicy:
    """Trained for a moment on noisy actions that follow from the observation: what it predicts is rarely clipped."""
    generator = torch.Generator().manual_seed(0)
    condition = torch.rand(256, 40, generator=generator) * 2 - 1
    actions = 0.5 * condition[:, None, :2] + 0.2 * torch.randn(256, 1, 2, generator=generator)
    data = TrainingData(condition, actions.expand(-1, 16, -1))
    network, alphas_cumprod = deepcopy(untrained.network), squared_cosine_alphas_cumprod(100).float()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        rows = torch.randint(256, (64,), generator=generator)
        noise_prediction_loss(
            network, data, rows, alphas_cumprod=alphas_cumprod, generator=generator, share=slice(None)
        ).backward()
        optimizer.step()
    return replace(untrained, network=network, covariance=0.02 * torch.eye(32))
