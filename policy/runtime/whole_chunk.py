"""Engines that evaluate a whole chunk as one graph, in place of one network evaluation after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

from policy.diffusion_policy import DiffusionPolicy
from policy.prediction import Prediction
from policy.runtime.chunk_function import ChunkFunction
from policy.sampling.start import Draw

EvaluateChunk: TypeAlias = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""A chunk function's inputs by name → its outputs by name."""

MakeChunkEngine: TypeAlias = Callable[[ChunkFunction, int, int], EvaluateChunk]
"""(chunk function, batch size, CPU threads) → its evaluation. Raises `EngineError` if the engine cannot evaluate it."""


class WholeChunk:
    """`DiffusionPolicy.predict_unchecked` through such an engine.

    Graphs are made when they are first needed: one for cold starts, and one for each number of executed steps and each
    delay after a previous chunk.

    Args:
        policy: policy with a sampler of fixed depth.
        make_engine: engine.
        batch_size: batch size B of every call.
        threads: number of CPU threads.

    Raises:
        EngineError: for another sampler, or if the engine cannot serve the policy.
    """

    def __init__(
        self, policy: DiffusionPolicy, make_engine: MakeChunkEngine, *, batch_size: int, threads: int
    ) -> None:
        self.policy = policy
        self.make_engine = make_engine
        self.batch_size = batch_size
        self.threads = threads
        self.prepared: dict[tuple[int, int] | None, tuple[ChunkFunction, EvaluateChunk]] = {}
        self._prepare(None)
        if policy.resolved_sampler.uses_previous:
            self._prepare((policy.config.action_steps, 0))

    def _prepare(self, age: tuple[int, int] | None) -> tuple[ChunkFunction, EvaluateChunk]:
        if age not in self.prepared:
            function = ChunkFunction(self.policy)
            if age is not None:
                function = ChunkFunction(self.policy, start="warm", executed=age[0], delay=age[1])
            self.prepared[age] = function, self.make_engine(function, self.batch_size, self.threads)
        return self.prepared[age]

    def __call__(
        self,
        observations: Tensor,
        noise: Tensor,
        *,
        draw: Draw,
        previous: tuple[Tensor, Tensor] | None = None,
        executed: int,
        delay: int = 0,
        called: float | None = None,
    ) -> Prediction:
        """See `DiffusionPolicy.predict_unchecked`."""
        function, evaluate = self._prepare(None if previous is None else (executed, delay))
        values = {"observations": observations, "noise": noise}
        if previous is not None:
            values |= {"previous_actions": previous[0], "previous_noise": previous[1]}
        for name in function.inputs.keys() - values.keys():
            values[name] = draw((len(noise), *function.inputs[name]))
        found = evaluate({name: values[name] for name in function.inputs})
        return Prediction(
            chunk=found["chunk"],
            actions=found["actions"],
            depth=function.depth,
            network_evaluations=function.network_evaluations * len(noise),
            residual=found["residual"],
            noise=found.get("actions_noise", noise),
        )
