"""One thread that computes chunks, so that the node's callbacks stay quick."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from policy import DiffusionPolicy, Prediction
from policy.runtime import ENGINES, Runtime

PLAIN = "plain"
"""Instead of an engine: the policy as it is, which prepares nothing."""

ENGINE_CHOICES = ("auto", *ENGINES, PLAIN)


@dataclass(frozen=True)
class ChunkRequest:
    """What a chunk is computed from.

    Attributes:
        policy: with its sampler.
        observations: (observation_steps, observation_dim), oldest first.
        generator: of the noises.
        stamp_ns: time of the newest observation, in ns.
        started_ns: when it was requested, on the node's clock, in ns.
        arrived: when the newest observation arrived, by `time.perf_counter`, in s.
        previous: the prediction before, for a warm start.
        executed: control periods from its observations to these.
    """

    policy: DiffusionPolicy
    observations: NDArray[np.float64]
    generator: torch.Generator
    stamp_ns: int
    started_ns: int
    arrived: float
    previous: Prediction | None = None
    executed: int | None = None


@dataclass(frozen=True)
class ComputedChunk:
    """A chunk and what it took.

    Attributes:
        chunk: (action_steps, action_dim), float64.
        seconds: of inference.
        preparation: seconds before that, which a policy that was not used before takes once.
        prediction: that it is from.
    """

    chunk: NDArray[np.float64]
    seconds: float
    preparation: float
    prediction: Prediction


class ChunkComputer:
    """Asks the policy, which an engine prepares whenever it is another one than before.

    Args:
        engine: of `policy.runtime.Runtime`, or `PLAIN`.
        threads: of the CPU, 0 for as many as PyTorch uses; `PLAIN` always uses those.
    """

    def __init__(self, engine: str, threads: int) -> None:
        self._engine = engine
        self._threads = threads or None
        self._policy: DiffusionPolicy | None = None
        self._prepared: DiffusionPolicy | Runtime | None = None

    def compute(self, request: ChunkRequest) -> ComputedChunk:
        began = time.perf_counter()
        prepared = self._prepare(request.policy)
        started = time.perf_counter()
        observations = torch.from_numpy(request.observations).float()[None]
        prediction = prepared.predict(
            observations, generator=request.generator, previous=request.previous, executed=request.executed
        )
        chunk = prediction.chunk[0].double().cpu().numpy()
        return ComputedChunk(chunk, time.perf_counter() - started, started - began, prediction)

    def _prepare(self, policy: DiffusionPolicy) -> DiffusionPolicy | Runtime:
        if self._prepared is None or policy is not self._policy:
            plain = self._engine == PLAIN
            self._prepared = policy if plain else Runtime(policy, 1, self._engine, self._threads)
            self._policy = policy
        return self._prepared


class InferenceWorker:
    """Computes one chunk at a time.

    Args:
        computer: of the chunks.
        notify: called from the worker's thread when a chunk is ready to be taken.
    """

    def __init__(self, computer: ChunkComputer, notify: Callable[[], None]) -> None:
        self._computer = computer
        self._notify = notify
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._request: ChunkRequest | None = None
        self._future: Future[ComputedChunk] | None = None

    @property
    def busy(self) -> bool:
        """From `submit` until its chunk is taken."""
        return self._future is not None

    def submit(self, request: ChunkRequest) -> None:
        """Start computing a chunk; the worker must not be busy."""
        assert not self.busy, "chunks must not queue up"
        self._request, self._future = request, self._pool.submit(self._computer.compute, request)
        self._future.add_done_callback(lambda _: self._notify())

    def take(self) -> tuple[ChunkRequest, ComputedChunk | Exception] | None:
        """The request and its chunk, or what computing it raised; None while there is nothing to take."""
        if self._request is None or self._future is None or not self._future.done():
            return None
        request, future = self._request, self._future
        self._request = self._future = None
        error = future.exception()
        if error is None:
            return request, future.result()
        if isinstance(error, Exception):
            return request, error
        raise error

    def close(self) -> None:
        """End the thread, after the chunk that it is computing."""
        self._pool.shutdown(cancel_futures=True)
