"""An exported policy with the interface of `DiffusionPolicy`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from policy.config import PolicyConfig
from policy.exported.description import Description
from policy.exported.graph_files import Run, open_graph
from policy.prediction import Generators, Prediction, check_tensor, draw_noise
from policy.sampling import SamplerConfig
from policy.task import Task


@dataclass(frozen=True)
class ExportedPolicy:
    """A file of `pcm-export`, for any batch size: the same arguments of `predict` give the policy's answer.

    Attributes:
        description: what the file says of itself.
        run: evaluation of its graph.
    """

    description: Description
    run: Run

    @property
    def config(self) -> PolicyConfig:
        return self.description.config

    @property
    def task(self) -> Task:
        return self.description.task

    @property
    def sampler(self) -> SamplerConfig:
        return self.description.sampler

    @property
    def resolved_sampler(self) -> SamplerConfig:
        """The sampler, in which nothing is left to choose."""
        return self.description.sampler

    @property
    def pcm_mismatch(self) -> str:
        """No warning: whoever exported it had it."""
        return ""

    @torch.no_grad()
    def predict(
        self,
        observations: Tensor,
        *,
        noise: Tensor | None = None,
        generator: Generators | None = None,
        previous: Prediction | None = None,
        executed: int | None = None,
        delay: int | None = None,
    ) -> Prediction:
        """See `DiffusionPolicy.predict`.

        Raises:
            ValueError: as there. For a file with ``start=warm`` also if there is no previous prediction, or for another
                `executed` or `delay` than it was exported for.
            RuntimeError: for a prediction that is not finite.
        """
        config, description = self.config, self.description
        check_tensor(observations, "observations", (config.observation_steps, config.row_dim(self.task)))
        batch = len(observations)
        reference = torch.zeros(())
        sequence = (batch, config.horizon, self.task.action_dim)
        noise = draw_noise(sequence, generator, reference) if noise is None else noise
        check_tensor(noise, "noise", sequence[1:])
        given = {"observations": observations, "noise": noise}
        if description.start == "warm":
            if previous is None:
                raise ValueError(
                    "this file has start=warm and needs a previous prediction; begin with one of start=cold"
                )
            for name, value in (("executed", executed), ("delay", delay)):
                if value not in (None, getattr(description, name)):
                    raise ValueError(f"{name} must be {getattr(description, name)}, as exported, got {value}")
            given |= {"previous_actions": previous.actions, "previous_noise": previous.noise}
        for tensor in description.inputs:
            if tensor.name == "further_noise":
                given["further_noise"] = draw_noise((batch, *tensor.shape), generator, reference)
            if len(given[tensor.name]) != batch:
                sizes = f"{len(given[tensor.name])}, observations have {batch}"
                raise ValueError(f"{tensor.name} has batch size {sizes}")
        arrays = {name: np.ascontiguousarray(value.float().cpu().numpy()) for name, value in given.items()}
        names = [tensor.name for tensor in description.outputs]
        found = dict(zip(names, map(torch.from_numpy, self.run(arrays)), strict=True))
        if not found["actions"].isfinite().all():
            raise RuntimeError("the prediction is not finite: the exported policy is unusable")
        return Prediction(
            chunk=found["chunk"],
            actions=found["actions"],
            depth=description.depth,
            network_evaluations=description.network_evaluations * batch,
            residual=found["residual"],
            noise=found.get("actions_noise", noise),
        )

    def predict_chunk(
        self,
        observations: Tensor,
        *,
        noise: Tensor | None = None,
        generator: Generators | None = None,
        previous: Prediction | None = None,
        executed: int | None = None,
        delay: int | None = None,
    ) -> Tensor:
        """See `DiffusionPolicy.predict_chunk`."""
        return self.predict(
            observations,
            noise=noise,
            generator=generator,
            previous=previous,
            executed=executed,
            delay=delay,
        ).chunk


def open_exported(
    path: str | Path,
    *,
    threads: int = 1,
    providers: tuple[str, ...] = (),
    batch_size: int | None = None,
    bfloat16: bool = False,
) -> ExportedPolicy:
    """Open a file of `pcm-export`.

    Args:
        path: ``.onnx`` or ``.xml``.
        threads: number of CPU threads.
        providers: ONNX Runtime's execution providers, in order; by default its CPU.
        batch_size: the only one that will be asked for, with which OpenVINO takes half the time; None for any.
        bfloat16: whether OpenVINO may compute in it, where the CPU can.

    Raises:
        ExportError, EngineError: see `open_graph`.
    """
    found = open_graph(path, threads=threads, providers=providers, batch_size=batch_size, bfloat16=bfloat16)
    return ExportedPolicy(*found)
