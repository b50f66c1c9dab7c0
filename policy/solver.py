"""Solvers of the diffusion process, as data.

A linear solver turns a noise x₀ and the clipped data predictions x̂ of its T steps into states by a fixed affine map:

    x_t = a_t·x₀ + Σ_{i<t} C_{t,i}·x̂_i + Σ_{i<t} N_{t,i}·z_i

with C and N strictly lower triangular and z the noises of a stochastic solver. Sequential sampling is forward
substitution through this map; parallel samplers look for its fixed point.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Solver:
    """One affine map from noise and data predictions to states x₀ … x_T.

    Attributes:
        timesteps: (T,) training timestep at which the network sees state i, decreasing.
        alphas_cumprod: (T+1,) ᾱ of each state; the last is 1, a clean action sequence.
        a: (T+1,) weight of the initial noise x₀ in each state.
        C: (T+1, T) weights of the data predictions, strictly lower triangular.
        r, c: (T,) the same map as single steps, x_{i+1} = r_i·x_i + c_i·x̂_i (+ noise).
        N: (T+1, T) weights of the step noises, or None for a deterministic solver.
    """

    timesteps: Tensor
    alphas_cumprod: Tensor
    a: Tensor
    C: Tensor
    r: Tensor
    c: Tensor
    N: Tensor | None = None

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Solver:
        return Solver(
            self.timesteps.to(device),
            self.alphas_cumprod.to(device, dtype),
            self.a.to(device, dtype),
            self.C.to(device, dtype),
            self.r.to(device, dtype),
            self.c.to(device, dtype),
            None if self.N is None else self.N.to(device, dtype),
        )


def leading_timesteps(num_train_timesteps: int, steps: int) -> Tensor:
    """(T,) evenly spaced timesteps ending at 0, Diffusion Policy's spacing ("leading" in diffusers).

    Raises:
        ValueError: unless 1 ≤ steps ≤ num_train_timesteps.
    """
    if not 1 <= steps <= num_train_timesteps:
        raise ValueError(f"steps must be in 1 … {num_train_timesteps} (training timesteps), got {steps}")
    return torch.arange(steps - 1, -1, -1) * (num_train_timesteps // steps)


def ddim_solver(alphas_cumprod: Tensor, steps: int) -> Solver:
    """Deterministic DDIM (Song et al. 2021, eq. 12 with σ = 0): x_{i+1} = r_i·x_i + c_i·x̂_i.

    The noise is derived from the clipped data prediction (``use_clipped_model_output=True`` in diffusers), which
    makes the step an affine map.
    """
    timesteps = leading_timesteps(len(alphas_cumprod), steps)
    alpha, alpha_next = _state_alphas(alphas_cumprod, timesteps)
    r = ((1 - alpha_next) / (1 - alpha)).sqrt()
    c = alpha_next.sqrt() - r * alpha.sqrt()
    return _single_step_solver(timesteps, alpha, r, c)


def ddpm_solver(alphas_cumprod: Tensor, steps: int) -> Solver:
    """Ancestral DDPM sampling (Ho et al. 2020, eq. 6 and 7): x_{i+1} = r_i·x_i + c_i·x̂_i + s_i·z_i.

    The variance is the posterior's, β̃ ("fixed_small" in diffusers).
    """
    timesteps = leading_timesteps(len(alphas_cumprod), steps)
    alpha, alpha_next = _state_alphas(alphas_cumprod, timesteps)
    step_alpha = alpha / alpha_next
    r = step_alpha.sqrt() * (1 - alpha_next) / (1 - alpha)
    c = alpha_next.sqrt() * (1 - step_alpha) / (1 - alpha)
    s = ((1 - alpha_next) / (1 - alpha) * (1 - step_alpha)).sqrt()
    return _single_step_solver(timesteps, alpha, r, c, s)


def _state_alphas(alphas_cumprod: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """ᾱ before and after each step, both (T,) float64: small differences of them are divided by each other."""
    alpha = alphas_cumprod.double()[timesteps]
    return alpha, torch.cat((alpha[1:], alpha.new_ones(1)))


def _single_step_solver(
    timesteps: Tensor, alpha: Tensor, r: Tensor, c: Tensor, s: Tensor | None = None
) -> Solver:
    """Unroll x_{i+1} = r_i·x_i + c_i·x̂_i + s_i·z_i, all (T,), into one affine map of x₀, x̂ and z."""
    steps = len(timesteps)
    a = torch.cat((r.new_ones(1), torch.cumprod(r, dim=0)))
    # R_{t,i}: what is left at state t of something added at state i+1.
    R = r.new_zeros(steps + 1, steps)
    for i in range(steps):
        R[i + 1] = r[i] * R[i]
        R[i + 1, i] = 1
    alphas_cumprod = torch.cat((alpha, alpha.new_ones(1)))
    return Solver(timesteps, alphas_cumprod, a, R * c, r, c, None if s is None else R * s)
