"""Partial denoising: the previous chunk's actions with noise of a state in between, and only the steps after it.

This is the plain form of three methods, which changes the answer: RTI for diffusion policy (Duan et al. 2025,
arXiv:2508.05396), Falcon (Chen et al. 2025, arXiv:2503.00339) and STEP (Li et al. 2026, arXiv:2602.08245). Left out are
RTI's scaling of discrete actions, Falcon's choice of the state by a threshold, and STEP's perturbation and its trained
prediction of the next actions: here they are the previous ones, moved on.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from policy.denoiser import Denoise
from policy.sampling.options import choice, number
from policy.solvers import Solver

PARTIAL_NOISES = ("fresh", "carried", "none")


@dataclass(frozen=True)
class PartialConfig:
    """Options of partial denoising."""

    steps: int = number(
        0,
        (0, 1000),
        "number of last solver steps that begin with the previous chunk's actions, where there is one; 0: all steps "
        "begin with noise",
    )
    noise: str = choice(
        "fresh",
        PARTIAL_NOISES,
        "noise on top of these actions: fresh, carried along from the previous chunk, or none",
    )


def partial_state(solver: Solver, actions: Tensor, noise: Tensor | None) -> Tensor:
    """The state (B, H, A) that a solver of the last steps begins with: √ᾱ·actions + √(1−ᾱ)·noise.

    Args:
        solver: of the last steps.
        actions: (B, H, A) a guess of the actions, normalised.
        noise: (B, H, A), or None for none.
    """
    alpha = solver.alphas_cumprod[0]
    state = alpha.sqrt() * actions
    return state if noise is None else state + (1 - alpha).sqrt() * noise


def last_steps(denoise: Denoise, left_out: int) -> Denoise:
    """The data prediction of a solver of the last steps, from that of all of them."""
    return lambda states, steps: denoise(states, slice(steps.start + left_out, steps.stop + left_out))
