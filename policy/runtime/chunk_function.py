"""A chunk as a pure function of tensors, from the observations to the actions: one graph for engines and exports."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from policy.diffusion_policy import DiffusionPolicy
from policy.prediction import Prediction
from policy.runtime.binding import bind_to_engine
from policy.runtime.engine import EngineError, Evaluate, ModulatedUnet
from policy.sampling import SamplerConfig
from policy.sampling.start import Draw

if TYPE_CHECKING:
    from torch.export import ExportedProgram

START_CHOICES = ("cold", "warm")
LARGEST_BATCH = 2**16


class ChunkFunction(nn.Module):
    """(observations, noise, …) → (chunk, actions, residual): `DiffusionPolicy.predict` without its checks.

    Normaliser, FiLM, all solver steps or iterations, and clamping are unrolled. Nothing is read back to the host, and
    no shape depends on data. FiLM's tables and merged networks are constants.

    Args:
        policy: policy with a sampler of fixed depth.
        start: ``cold``: from noise alone; ``warm``: from the previous chunk as well, which needs a sampler with a warm
            start or a hand-over.
        executed: for ``warm``, number of control steps from the previous chunk's observations to these; by default
            `action_steps`.
        delay: for ``warm`` and a hand-over, see `DiffusionPolicy.predict`.
        network_dtype: precision of the networks; by default the policy's own. Everything else keeps the policy's.

    Attributes:
        policy: policy whose answer this is.
        inputs, outputs: name of each input and output → its shape without the batch.
        depth: number of sequential network evaluations.
        network_evaluations: number of all network evaluations of one sample.

    Raises:
        EngineError: for a sampler without a fixed depth, or a start that it does not have.
        ValueError: if the policy cannot be sampled that way.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        *,
        start: str = "cold",
        executed: int | None = None,
        delay: int = 0,
        network_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        config, sampler = policy.config, policy.resolved_sampler
        executed = config.action_steps if executed is None else executed
        _check_start(sampler, start)
        if start == "warm" and not 1 <= executed < config.horizon:
            raise EngineError(f"executed must be in 1 … {config.horizon - 1}, got {executed}")
        if delay < 0:
            raise EngineError(f"delay must not be negative, got {delay}")
        self.start, self.executed, self.delay = start, executed, delay
        self.policy = policy.with_sampler(sampler)
        self.networks = networks = nn.ModuleList()  # so that an export knows their weights as weights

        def make_engine(unet: ModulatedUnet, threads: int) -> Evaluate:
            evaluated = unet if network_dtype is None else copy.deepcopy(unet).to(network_dtype)
            networks.append(evaluated)
            if network_dtype is None:
                return evaluated
            return lambda sample, film: evaluated(sample.to(network_dtype), film.to(network_dtype)).to(sample)

        bind = bind_to_engine(make_engine, {}, threads=1, horizon=config.horizon)
        self.bound = replace(policy, bind_network=bind).with_sampler(sampler)
        sequence = (config.horizon, policy.task.action_dim)
        self.inputs: dict[str, tuple[int, ...]] = {
            "observations": (config.observation_steps, config.row_dim(policy.task)),
            "noise": sequence,
        }
        if start == "warm":
            self.inputs |= {"previous_actions": sequence, "previous_noise": sequence}
        prediction = self._run_once()
        self.depth, self.network_evaluations = prediction.depth, prediction.network_evaluations
        self.outputs: dict[str, tuple[int, ...]] = {
            "chunk": (config.action_steps, policy.task.action_dim),
            "actions": sequence,
            "residual": (),
        }
        if start == "warm" and sampler.keeps_noise:
            self.outputs["actions_noise"] = sequence
        if policy.pcm is not None and sampler.uses_pcm:
            self.networks.append(policy.pcm.network)  # evaluated as it is at weights that have no merged copy

    @torch.no_grad()
    def _run_once(self) -> Prediction:
        """Prepare all networks, and see what further noise the sampler draws."""
        reference = self.policy.solver.a

        def draw(shape: tuple[int, ...]) -> Tensor:
            assert "further_noise" not in self.inputs, "a sampler draws once at most"
            self.inputs["further_noise"] = tuple(shape[1:])
            return reference.new_zeros(shape)

        inputs = {name: reference.new_zeros(1, *shape) for name, shape in self.inputs.items()}
        return self._predict(inputs, draw)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, for tensors (B, …) in the order of `inputs`, on the policy's device and in its precision.

        Returns:
            The chunk (B, action_steps, A) and the actions (B, H, A) in the task's units; the residual (B,); with a
            sampler that keeps the previous noise, the noise (B, H, A) that the actions came from.
        """
        named = dict(zip(self.inputs, inputs, strict=True))
        prediction = self._predict(named, lambda shape: named["further_noise"])
        found = {
            "chunk": prediction.chunk,
            "actions": prediction.actions,
            "residual": prediction.residual,
            "actions_noise": prediction.noise,
        }
        return tuple(found[name] for name in self.outputs)

    def _predict(self, inputs: Mapping[str, Tensor], draw: Draw) -> Prediction:
        previous = None
        if self.start == "warm":
            previous = inputs["previous_actions"], inputs["previous_noise"]
        return self.bound.predict_unchecked(
            inputs["observations"],
            inputs["noise"],
            draw=draw,
            previous=previous,
            executed=self.executed,
            delay=self.delay,
        )

    def zeros(self, batch_size: int) -> tuple[Tensor, ...]:
        """Zeros in the shapes of the inputs."""
        reference = self.policy.solver.a
        return tuple(reference.new_zeros(batch_size, *shape) for shape in self.inputs.values())


@torch.no_grad()
def export_chunk_function(function: ChunkFunction, *, batch_size: int | None = None) -> ExportedProgram:
    """The function as a graph.

    Args:
        function: chunk function.
        batch_size: batch size B of every call; None for any.
    """
    from torch.export import Dim, export  # a second to import, which robots and trainers do not need

    dynamic = None
    if batch_size is None:
        dynamic = (({0: Dim("batch", min=1, max=LARGEST_BATCH)},) * len(function.inputs),)
    inputs = function.zeros(batch_size or 2)
    return export(function.eval(), inputs, dynamic_shapes=dynamic, strict=False)


def _check_start(sampler: SamplerConfig, start: str) -> None:
    for name in ("tolerance", "deadline_ms"):
        value = getattr(sampler.stop, name)
        if value > 0:
            raise EngineError(
                f"a graph needs a sampler of fixed depth, and sampler.stop.{name}={value:g} may end it at any; "
                "limit it by sampler.stop.iterations instead"
            )
    if start not in START_CHOICES:
        raise EngineError(f"start must be one of {', '.join(START_CHOICES)}, got {start!r}")
    if start == "warm" and sampler.needs_gradients:
        raise EngineError("a graph computes no gradients, which sampler.hand_over=guide needs after a chunk")
    if start == "warm" and not sampler.uses_previous:
        raise EngineError(
            "start=warm needs sampler.parallel.warm_start, sampler.partial.steps or sampler.hand_over"
        )
