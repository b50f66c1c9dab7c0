"""A chunk as a pure function of tensors, from the observations to the actions: one graph for engines and exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from policy.diffusion_policy import DiffusionPolicy
from policy.networks.unet import ConditionalUnet1D
from policy.runtime.binding import PreparedNetwork, bind_to_engine
from policy.runtime.engine import EngineError
from policy.runtime.torch_engines import eager
from policy.sampling.start import Draw

START_CHOICES = ("cold", "warm")
LARGEST_BATCH = 2**16


class ChunkFunction(nn.Module):
    """(observations, noise, …) → (chunk, actions, residual): `DiffusionPolicy.predict` without its checks.

    Normaliser, FiLM, all solver steps or iterations, and clamping are unrolled. Nothing is read back to the host, and
    no shape depends on data. FiLM's tables and merged networks are constants.

    Args:
        policy: policy with a sampler of fixed depth.
        start: ``cold``: from noise alone; ``warm``: from the previous chunk as well, which needs a sampler with a warm
            start.
        executed: for ``warm``, number of control steps from the previous chunk's observations to these; by default
            `action_steps`.

    Attributes:
        inputs: name of each input → its shape without the batch.
        outputs: names of the outputs.
        policy: policy whose answer this is.

    Raises:
        EngineError: for a sampler without a fixed depth, or a start that it does not have.
        ValueError: if the policy cannot be sampled that way.
    """

    def __init__(self, policy: DiffusionPolicy, *, start: str = "cold", executed: int | None = None) -> None:
        super().__init__()
        config, sampler = policy.config, policy.sampler
        executed = config.action_steps if executed is None else executed
        if not sampler.has_fixed_depth:
            limit = "tolerance" if sampler.stop.tolerance else "deadline_ms"
            raise EngineError(
                f"a graph needs a sampler of fixed depth, and sampler.stop.{limit}={getattr(sampler.stop, limit):g} "
                f"may stop at any; use sampler.stop.iterations with sampler.stop.{limit}=0"
            )
        if start not in START_CHOICES:
            raise EngineError(f"start must be one of {', '.join(START_CHOICES)}, got {start!r}")
        if start == "warm" and sampler.parallel.warm_start == "none":
            raise EngineError("start=warm needs sampler.parallel.warm_start=actions or actions_and_noise")
        if start == "warm" and not 1 <= executed < config.horizon:
            raise EngineError(f"executed must be in 1 … {config.horizon - 1}, got {executed}")
        self.executed = executed
        prepared: dict[ConditionalUnet1D, PreparedNetwork | None] = {}
        bind = bind_to_engine(eager, prepared, threads=1, horizon=config.horizon)
        self.policy = policy.with_sampler(sampler)
        self.bound = replace(policy, bind_network=bind).with_sampler(sampler)
        sequence = (config.horizon, config.action_dim)
        inputs: dict[str, tuple[int, ...]] = {
            "observations": (config.observation_steps, config.observation_dim),
            "noise": sequence,
        }
        if start == "warm":
            inputs |= {"previous_actions": sequence, "previous_noise": sequence}
        self.inputs: Mapping[str, tuple[int, ...]] = inputs
        self.outputs = ["chunk", "actions", "residual"]
        if start == "warm" and sampler.parallel.warm_start == "actions_and_noise":
            self.outputs.append("actions_noise")
        self._find_further_noise()
        self.networks = nn.ModuleList(prepared)  # so that an export knows their weights as weights

    @torch.no_grad()
    def _find_further_noise(self) -> None:
        """Run once: prepares all networks, and shows what further noise the sampler draws."""
        reference = self.policy.solver.a
        asked: list[tuple[int, ...]] = []

        def draw(shape: tuple[int, ...]) -> Tensor:
            asked.append(tuple(shape[1:]))
            return reference.new_zeros(shape)

        inputs = {name: reference.new_zeros(1, *shape) for name, shape in self.inputs.items()}
        self._predict(inputs, draw)
        for shape in asked:
            self.inputs = {**self.inputs, "further_noise": shape}
        assert len(asked) <= 1, asked

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, for tensors (B, …) in the order of `inputs`, on the policy's device and in its precision.

        Returns:
            The chunk (B, action_steps, A) and the actions (B, H, A) in the task's units; the residual (B,); with a warm
            start that keeps its noise, the noise (B, H, A) that the actions came from.
        """
        named = dict(zip(self.inputs, inputs, strict=True))
        return self._predict(named, lambda shape: named["further_noise"])

    def _predict(self, inputs: Mapping[str, Tensor], draw: Draw) -> tuple[Tensor, ...]:
        previous = None
        if "previous_actions" in inputs:
            previous = inputs["previous_actions"], inputs["previous_noise"]
        prediction = self.bound.predict_unchecked(
            inputs["observations"], inputs["noise"], draw=draw, previous=previous, executed=self.executed
        )
        named = {
            "chunk": prediction.chunk,
            "actions": prediction.actions,
            "residual": prediction.residual,
            "actions_noise": prediction.noise,
        }
        return tuple(named[name] for name in self.outputs)

    def example(self, batch_size: int) -> tuple[Tensor, ...]:
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
    dynamic = None
    if batch_size is None:
        dynamic = ([{0: Dim("batch", min=1, max=LARGEST_BATCH)}] * len(function.inputs),)
    return torch.export.export(
        function, function.example(batch_size or 2), dynamic_shapes=dynamic, strict=False
    )
