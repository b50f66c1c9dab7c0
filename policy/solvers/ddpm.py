"""DDPM (Ho et al. 2020, arXiv:2006.11239)."""

from __future__ import annotations

from torch import Tensor

from policy.solvers.solver import Solver, solver_of_steps
from policy.solvers.timesteps import Spacing, alphas_around_steps, leading_timesteps


def ddpm(alphas_cumprod: Tensor, steps: int, *, spacing: Spacing = leading_timesteps) -> Solver:
    """Ancestral sampling (eq. 6 and 7), stochastic: x_{i+1} = r_i·x_i + c_i·x̂_i + s_i·z_i.

    The variance is the posterior's, β̃ ("fixed_small" in diffusers).
    """
    timesteps = spacing(alphas_cumprod, steps)
    alpha, alpha_next = alphas_around_steps(alphas_cumprod, timesteps)
    step_alpha = alpha / alpha_next
    r = step_alpha.sqrt() * (1 - alpha_next) / (1 - alpha)
    c = alpha_next.sqrt() * (1 - step_alpha) / (1 - alpha)
    s = ((1 - alpha_next) / (1 - alpha) * (1 - step_alpha)).sqrt()
    return solver_of_steps(timesteps, alpha, r=r, W=c, s=s)
