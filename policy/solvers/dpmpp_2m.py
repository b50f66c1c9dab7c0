"""DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095)."""

from __future__ import annotations

import torch
from torch import Tensor

from policy.solvers.ddim import ddim_step
from policy.solvers.solver import Solver, solver_of_steps
from policy.solvers.timesteps import Spacing, alphas_around_steps, log_snr_timesteps


def dpmpp_2m(alphas_cumprod: Tensor, steps: int, *, spacing: Spacing = log_snr_timesteps) -> Solver:
    """Deterministic, a multistep solver of second order (algorithm 2).

    A step is DDIM's with x̂_i extrapolated from the two latest data predictions,
    D_i = x̂_i + (h_i / 2h_{i-1})·(x̂_i − x̂_{i-1}). Here h_i is the growth of the logarithmic signal-to-noise ratio
    λ = log(√ᾱ / √(1−ᾱ)) in step i. The first step has only one prediction. The last step ends at λ = ∞, where it
    returns x̂ (``final_sigmas_type="zero"`` in diffusers). These two steps are of first order.

    The timesteps are `log_snr_timesteps`. With them, few steps come nearer to the answer of many steps than with
    DDIM's timesteps.
    """
    timesteps = spacing(alphas_cumprod, steps)
    alpha, alpha_next = alphas_around_steps(alphas_cumprod, timesteps)
    r, c = ddim_step(alpha, alpha_next)
    h = torch.special.logit(alpha).diff() / 2  # (T-1,), all but the last step's
    extrapolation = torch.zeros_like(c)
    extrapolation[1:-1] = h[1:] / (2 * h[:-1])
    W = torch.diag(c * (1 + extrapolation)) - torch.diag((c * extrapolation)[1:], -1)
    return solver_of_steps(timesteps, alpha, r=r, W=W)
