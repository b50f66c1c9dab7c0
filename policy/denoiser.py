"""`denoise` from a network and a condition: all that a sampler knows of a policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from policy.networks.unet import ConditionalUnet1D
from policy.solvers import Solver

Denoise: TypeAlias = Callable[[Tensor, slice], Tensor]
"""(states (B, S, H, A), slice of S solver steps) → clipped data predictions x̂ (B, S, H, A), in one evaluation."""

BindNetwork: TypeAlias = Callable[[ConditionalUnet1D, Solver, Tensor], Denoise]
"""(network, solver, condition (B, C)) → the network's data prediction for it, see `make_denoise`."""


def make_denoise(network: ConditionalUnet1D, solver: Solver, condition: Tensor) -> Denoise:
    """`denoise` of a network for one condition (B, C)."""
    predict_data = data_prediction(solver)

    def denoise(states: Tensor, steps: slice) -> Tensor:
        timesteps = solver.timesteps[steps]
        batch, parallel = states.shape[:2]
        output = network(
            states.flatten(0, 1),
            timesteps.repeat(batch),
            condition.repeat_interleave(parallel, dim=0),
        ).view_as(states)
        return predict_data(states, output, steps)

    return denoise


def data_prediction(solver: Solver) -> Callable[[Tensor, Tensor, slice], Tensor]:
    """x̂ = clip((x − √(1−ᾱ)·ε) / √ᾱ, −1, 1) of states x and noises ε, both (B, S, H, A), at a slice of solver steps.

    For a solver that says so, the network's output in place of ε is x̂ already, and only clipped.
    """
    if solver.predicts_data:
        return lambda states, output, steps: output.clamp(-1, 1)
    alpha = solver.alphas_cumprod[:-1, None, None]  # (T, 1, 1)
    signal, noise = alpha.sqrt(), (1 - alpha).sqrt()

    def predict_data(states: Tensor, epsilon: Tensor, steps: slice) -> Tensor:
        return torch.clamp((states - noise[steps] * epsilon) / signal[steps], -1, 1)

    return predict_data


@dataclass
class EvaluationCount:
    """Number of network evaluations: samples × timesteps."""

    evaluations: int = 0

    def counting(self, denoise: Denoise) -> Denoise:
        """Wrap a data prediction so that its evaluations are counted."""

        def counted(states: Tensor, steps: slice) -> Tensor:
            self.evaluations += states.shape[0] * states.shape[1]
            return denoise(states, steps)

        return counted
