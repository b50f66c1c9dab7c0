"""DDIM (Song et al. 2021, arXiv:2010.02502)."""

from __future__ import annotations

from torch import Tensor

from policy.solvers.solver import Solver, solver_of_steps
from policy.solvers.timesteps import Spacing, alphas_around_steps, leading_timesteps


def ddim(alphas_cumprod: Tensor, steps: int, *, spacing: Spacing = leading_timesteps) -> Solver:
    """Deterministic DDIM (eq. 12 with σ = 0): x_{i+1} = r_i·x_i + c_i·x̂_i.

    The noise is derived from the clipped data prediction (``use_clipped_model_output=True`` in diffusers), which
    makes the step an affine map.
    """
    timesteps = spacing(alphas_cumprod, steps)
    alpha, alpha_next = alphas_around_steps(alphas_cumprod, timesteps)
    r, c = ddim_step(alpha, alpha_next)
    return solver_of_steps(timesteps, alpha, r=r, W=c)


def ddim_step(alpha: Tensor, alpha_next: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (r, c) of a DDIM step, both (T,)."""
    r = ((1 - alpha_next) / (1 - alpha)).sqrt()
    return r, alpha_next.sqrt() - r * alpha.sqrt()
