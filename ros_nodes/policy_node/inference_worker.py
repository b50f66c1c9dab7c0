"""One thread that computes chunks, so that the node's callbacks stay quick."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policy import Prediction
from policy.exported import ExportedPolicy
from policy.runtime import Policy
from ros_nodes.policy_node.loading import LoadedPolicy, observed_range


@dataclass(frozen=True, kw_only=True)
class ChunkRequest:
    """What a chunk is computed from.

    Attributes:
        policy: policy that is ready, with its sampler.
        observations: (observation_steps, observation_dim), oldest first.
        generator: source of the noises.
        noises: its state before them.
        stamp_ns: time of the newest observation, in ns.
        started_ns: time of the request on the node's clock, in ns.
        arrived: arrival of the newest observation by `time.perf_counter`, in s.
        previous: the prediction before, for a warm start or a hand-over.
        executed: control periods from the previous prediction's observations to these.
        delay: points of the chunk that will be over when it arrives.
    """

    policy: Policy | ExportedPolicy
    observations: NDArray[np.float64]
    generator: torch.Generator
    noises: Tensor
    stamp_ns: int
    started_ns: int
    arrived: float
    previous: Prediction | None = None
    executed: int | None = None
    delay: int = 0


@dataclass(frozen=True)
class ComputedChunk:
    """A chunk, in its horizon, and its cost.

    Attributes:
        actions: (horizon, action_dim) the chunk and what is predicted before and after it, float64.
        seconds: inference time in s.
        prediction: the prediction that it is part of.
    """

    actions: NDArray[np.float64]
    seconds: float
    prediction: Prediction


def compute_chunk(request: ChunkRequest) -> ComputedChunk:
    """Ask the policy."""
    started = time.perf_counter()
    observations = torch.from_numpy(request.observations).float()[None]
    prediction = request.policy.predict(
        observations,
        generator=request.generator,
        previous=request.previous,
        executed=request.executed,
        delay=request.delay,
    )
    actions = prediction.actions[0].double().cpu().numpy()
    return ComputedChunk(actions, time.perf_counter() - started, prediction)


def warm_up(prepared: Policy | ExportedPolicy, policy: LoadedPolicy) -> float:
    """Inference time in s of the fastest of three chunks, since the first one of a process takes longer."""
    limits = observed_range(policy)
    middle = ((limits.minimum + limits.maximum) / 2).double().numpy()
    observations = np.repeat(middle[None], policy.config.observation_steps, axis=0)
    generator = torch.Generator().manual_seed(0)
    request = ChunkRequest(
        policy=prepared,
        observations=observations,
        generator=generator,
        noises=generator.get_state(),
        stamp_ns=0,
        started_ns=0,
        arrived=0.0,
    )
    return min(compute_chunk(request).seconds for _ in range(3))


def started_thread(name: str, threads: int) -> ThreadPoolExecutor:
    """A pool of one thread, in which PyTorch uses so many CPU threads; as many as in this one if 0.

    The number is fixed here, since a thread takes it over at its first computation, and a runtime lowers it for the
    whole process while it computes.
    """
    threads = threads or torch.get_num_threads()
    pool = ThreadPoolExecutor(1, name, torch.set_num_threads, (threads,))
    pool.submit(torch.get_num_threads).result()
    return pool


class InferenceWorker:
    """Computes one chunk at a time.

    Args:
        notify: called from the worker's thread when a chunk is ready to be taken.
        threads: CPU threads for policies without an engine; 0 for as many as PyTorch uses.
    """

    def __init__(self, notify: Callable[[], None], threads: int = 0) -> None:
        self._notify = notify
        self._pool = started_thread("inference", threads)
        self._request: ChunkRequest | None = None
        self._future: Future[ComputedChunk] | None = None

    @property
    def busy(self) -> bool:
        """From `submit` until its chunk is taken."""
        return self._future is not None

    def submit(self, request: ChunkRequest) -> None:
        """Start computing a chunk; the worker must not be busy."""
        assert not self.busy, "chunks must not queue up"
        self._request, self._future = request, self._pool.submit(compute_chunk, request)
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
