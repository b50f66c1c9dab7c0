"""Sequential sampling: as many network evaluations in sequence as steps."""

from __future__ import annotations

import torch
from torch import Tensor

from policy.denoiser import Denoise
from policy.solvers import Solver


def sample_sequential(
    denoise: Denoise, solver: Solver, noise: Tensor, *, step_noise: Tensor | None = None
) -> Tensor:
    """Forward substitution through x_t = a_t·noise + Σ_{i<t} C_{t,i}·x̂_i(x_i) + Σ_{i<t} N_{t,i}·z_i.

    Args:
        denoise: the data prediction x̂.
        solver: T steps.
        noise: (B, H, A).
        step_noise: (B, T, H, A) noises z of a stochastic solver.

    Returns:
        All states (B, T+1, H, A), the noise first, the action sequence last.

    Raises:
        ValueError: if a stochastic solver gets no noises, or a deterministic one gets some.
    """
    if (solver.N is None) != (step_noise is None):
        raise ValueError("step_noise must be given to a stochastic solver, and only to one")
    later = solver.a[:, None, None] * noise[:, None]  # (B, T+1, H, A)
    if step_noise is not None:
        later = later + torch.einsum("ti,biha->btha", solver.N, step_noise)
    states = []
    for i in range(solver.steps):
        state, later = later[:, :1], later[:, 1:]
        states.append(state)
        later = later + solver.C[i + 1 :, i, None, None] * denoise(state, slice(i, i + 1))
    return torch.cat((*states, later), 1)
