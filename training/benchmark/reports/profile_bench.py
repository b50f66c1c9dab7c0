"""Calls of samplers through engines: their errors, and their times in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from policy import DiffusionPolicy, SamplerConfig
from policy.denoiser import BindNetwork, Denoise
from policy.networks.unet import ConditionalUnet1D
from policy.runtime import Policy, serve
from policy.solvers import Solver
from training.benchmark.candidates import Candidate
from training.benchmark.measurements import percentiles, prediction_before, time_in_turns
from training.benchmark.row_cache import Row

CALLS_IN_TURN = 5


@dataclass(frozen=True)
class Contestant:
    """A row: a sampler through an engine."""

    engine: str
    candidate: Candidate

    @property
    def identity(self) -> dict[str, Any]:
        return {"engine": self.engine, **self.candidate.identity}


class Bench:
    """Policies and runtimes, made when they are first needed, and what is measured of them."""

    def __init__(
        self,
        base: DiffusionPolicy,
        contestants: Sequence[Contestant],
        observations: Tensor,
        *,
        seed: int,
        threads: int,
    ) -> None:
        self.base = base
        self.contestants = contestants
        self.observations = observations
        self.seed = seed
        self.threads = threads
        self.server = cache(self._make_server)

    def _make_server(self, index: int) -> Policy:
        contestant = self.contestants[index]
        return serve(contestant.candidate.policy(self.base), engine=contestant.engine, threads=self.threads)

    def accuracy(self, index: int) -> Row:
        """Error against the plain sequential sampler of the same solver and T, and what goes through the network.

        A warm start continues an earlier chunk, which drawn observations do not have: it has no error here.
        """
        sampler = self.contestants[index].candidate.sampler
        policy, calls = recorded_calls(self.server(index))
        shape = (len(self.observations), self.base.config.horizon, self.base.task.action_dim)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(self.seed))
        before = prediction_before(self.server(index), self.observations)
        predictions = [
            policy.predict(
                observation[None],
                noise=one[None],
                generator=torch.Generator().manual_seed(self.seed + 1),
                previous=before,
            )
            for observation, one in zip(self.observations, noise, strict=True)
        ]
        per_chunk = len(calls) // len(predictions)
        row: Row = {
            "calls": [count for count, _ in calls[:per_chunk]],
            "network_evaluations": sum(p.network_evaluations for p in predictions) / len(predictions),
            "error_p95": None,
        }
        if before is None:
            sequential = SamplerConfig("sequential", sampler.solver, sampler.steps)
            exact = self.base.with_sampler(sequential).predict(self.observations, noise=noise).actions
            actions = torch.cat([prediction.actions for prediction in predictions])
            normalize = self.base.normalizer.action.normalize
            errors = (normalize(actions) - normalize(exact)).abs().amax((1, 2)).double().cpu()
            (row["error_p95"],) = percentiles(errors, 95)
        return row

    def turn(self, turn: int) -> Row:
        """Milliseconds of some calls of every contestant, one contestant after the other.

        Returns:
            `milliseconds` (contestants, calls), from the observation to the chunk on the CPU, and `network_share`, the
            part of one more call that goes by inside the network.
        """
        indices = range(len(self.contestants))
        servers = [partial(self.server, index) for index in indices]
        milliseconds = time_in_turns(servers, self.observations, turn=turn, calls=CALLS_IN_TURN)
        return {
            "milliseconds": milliseconds,
            "network_share": [self._network_share(index) for index in indices],
        }

    def _network_share(self, index: int) -> float:
        recorded, calls = recorded_calls(self.server(index))
        before = prediction_before(self.server(index), self.observations)
        generator = torch.Generator().manual_seed(0)
        for _ in range(2):  # the first call prepares what the server has prepared long ago
            calls.clear()
            started = time.perf_counter()
            recorded.predict(self.observations[:1], generator=generator, previous=before).chunk.cpu()
            taken = time.perf_counter() - started
        return sum(seconds for _, seconds in calls) / taken


def recorded_calls(server: Policy) -> tuple[DiffusionPolicy, list[tuple[int, float]]]:
    """The server's policy, and a list to which it adds samples and seconds of each of its network calls."""
    policy = server if isinstance(server, DiffusionPolicy) else server.policy
    calls: list[tuple[int, float]] = []
    return replace(policy, bind_network=_recording(policy.bind_network, calls)), calls


def _recording(bind: BindNetwork, calls: list[tuple[int, float]]) -> BindNetwork:
    def bind_recorded(network: ConditionalUnet1D, solver: Solver, condition: Tensor) -> Denoise:
        denoise = bind(network, solver, condition)

        def recorded(states: Tensor, steps: slice) -> Tensor:
            started = time.perf_counter()
            prediction = denoise(states, steps)
            if prediction.is_cuda:
                torch.cuda.synchronize(prediction.device)
            calls.append((states.shape[0] * states.shape[1], time.perf_counter() - started))
            return prediction

        return recorded

    return bind_recorded
