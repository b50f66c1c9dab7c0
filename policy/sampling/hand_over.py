"""Hand-over: what a chunk does about the chunk before it, which the robot still executes when it arrives.

`replace` does nothing: each chunk is the policy's answer to its own observations and fresh noise. The others carry the
noise along with time, so that what it decided stays decided. That is all of `carry`. `blend` also averages the actions
with the previous ones where they overlap. `inpaint` averages the data prediction x̂ instead, in every step, so that the
rest of the horizon follows. `guide` draws x̂ there by the network's gradient. All are the same for every solver and
method, and Picard iteration still ends at the sequential answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from policy.denoiser import Denoise
from policy.solvers import Solver

HAND_OVERS = ("replace", "carry", "blend", "inpaint", "guide")
OVERLAPPING = ("blend", "inpaint", "guide")
GUIDANCE_LIMIT = 5.0
"""β of Real-Time Chunking: with few steps, more makes the guidance diverge."""


@dataclass(frozen=True)
class Overlap:
    """What the previous prediction says of this horizon.

    Attributes:
        actions: (B, H, A) the previous actions for the same control steps, normalised; beyond their end, anything.
        weights: (H, 1) how much they count: 1 where they will have been executed, 0 beyond their end.
    """

    actions: Tensor
    weights: Tensor

    def pull(self, actions: Tensor) -> Tensor:
        """weights · previous + (1 − weights) · actions, for actions (…, H, A) of B samples in the first dimension."""
        known = self.actions[(slice(None), *[None] * (actions.ndim - 3))]
        return actions + self.weights * (known - actions)

    def inpaint(self, denoise: Denoise) -> Denoise:
        """A data prediction that keeps to the previous actions: x̂ ← weights · known + (1 − weights) · x̂."""
        return lambda states, steps: self.pull(denoise(states, steps))

    def guide(self, denoise: Denoise, solver: Solver) -> Denoise:
        """A data prediction that is drawn to the previous actions by the gradient of what it says of them.

        x̂ ← clip(x̂ + min(β·√(1−ᾱ), 1/√ᾱ) · (∂x̂/∂x)ᵀ · weights · (known − x̂), −1, 1), which is Real-Time Chunking's
        guidance (arXiv:2506.07339, eq. 2 to 4) with its flow's states scaled to those of diffusion. It takes a backward
        pass through the network for each evaluation.
        """
        alpha = solver.alphas_cumprod[:-1, None, None]  # (T, 1, 1)
        strength = torch.minimum(GUIDANCE_LIMIT * (1 - alpha).sqrt(), alpha.rsqrt())

        def guided(states: Tensor, steps: slice) -> Tensor:
            with torch.enable_grad():
                states = states.detach().requires_grad_()
                clean = denoise(states, steps)
                error = self.pull(clean.detach()) - clean.detach()
                (gradient,) = torch.autograd.grad(clean, states, error)
            return (clean.detach() + strength[steps] * gradient).clamp(-1, 1)

        return guided


def make_overlap(actions: Tensor, *, executed: int, first: int, delay: int) -> Overlap:
    """The overlap with a previous prediction.

    Args:
        actions: (B, H, A) the previous actions, normalised.
        executed: number of control steps since their observations, below H.
        first: index in the horizon of the newest observation's action.
        delay: number of actions from there on that will have been executed when the chunk arrives.
    """
    horizon = actions.shape[1]
    moved = torch.cat((actions[:, executed:], actions[:, -1:].expand(-1, executed, -1)), 1)
    weights = overlap_weights(horizon, executed=executed, held=first + delay)
    return Overlap(moved, torch.tensor(weights, dtype=actions.dtype, device=actions.device)[:, None])


def overlap_weights(horizon: int, *, executed: int, held: int) -> list[float]:
    """Weights of the previous actions, by index in the horizon (Real-Time Chunking, arXiv:2506.07339, eq. 5).

    Args:
        horizon: number H of actions.
        executed: number of control steps since the previous observations. The previous actions end at H − executed.
        held: number of actions that count fully.
    """
    end = horizon - executed

    def weight(index: int) -> float:
        if index >= end:
            return 0.0
        if index < held:
            return 1.0
        share = (end - index) / (end - held + 1)
        return share * math.expm1(share) / math.expm1(1)

    return [weight(index) for index in range(horizon)]
