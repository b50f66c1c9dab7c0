"""Solvers of the diffusion process, as data.

A linear solver turns a noise x₀ and the clipped data predictions x̂ of its T steps into states by a fixed affine map:

    x_t = a_t·x₀ + Σ_{i<t} C_{t,i}·x̂_i + Σ_{i<t} N_{t,i}·z_i

with C and N strictly lower triangular and z the noises of a stochastic solver. Sequential sampling is forward
substitution through this map; parallel samplers look for its fixed point, by the same map as steps

    x_{i+1} = r_i·x_i + c_i·x̂_i + b_i·x̂_{i−1} (+ noise)
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
        r: (T,) weight of the state in each step.
        c: (T,) weight of its data prediction in each step.
        b: (T,) weight of the data prediction before in each step, of which the first is 0; None for a solver of
            single steps.
        N: (T+1, T) weights of the step noises, or None for a deterministic solver.
    """

    timesteps: Tensor
    alphas_cumprod: Tensor
    a: Tensor
    C: Tensor
    r: Tensor
    c: Tensor
    b: Tensor | None = None
    N: Tensor | None = None

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    def require_single_steps(self, reason: str) -> None:
        """Refuse a multistep solver, for that reason.

        Raises:
            ValueError: if a step takes more than the state before.
        """
        if self.b is not None:
            raise ValueError(f"{reason}: a multistep solver is no map from state to state")

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Solver:
        return Solver(
            self.timesteps.to(device),
            self.alphas_cumprod.to(device, dtype),
            self.a.to(device, dtype),
            self.C.to(device, dtype),
            self.r.to(device, dtype),
            self.c.to(device, dtype),
            None if self.b is None else self.b.to(device, dtype),
            None if self.N is None else self.N.to(device, dtype),
        )


def leading_timesteps(num_train_timesteps: int, steps: int) -> Tensor:
    """(T,) evenly spaced timesteps ending at 0, Diffusion Policy's spacing ("leading" in diffusers).

    Raises:
        ValueError: unless 1 ≤ steps ≤ num_train_timesteps.
    """
    _check_steps(steps, num_train_timesteps)
    return torch.arange(steps - 1, -1, -1) * (num_train_timesteps // steps)


def log_snr_timesteps(alphas_cumprod: Tensor, steps: int) -> Tensor:
    """(T,) timesteps that cut the logarithmic signal-to-noise ratio λ = log(√ᾱ / √(1−ᾱ)) into equal parts.

    DPM-Solver's own spacing (Lu et al. 2022, arXiv:2206.00927, section 3.4). λ → −∞ at the noise, so that it must be
    cut off: the first timestep is the middle of the first of T equal parts of the training timesteps. The last is 0.

    Raises:
        ValueError: unless 1 ≤ steps ≤ training timesteps.
    """
    total = len(alphas_cumprod)
    _check_steps(steps, total)
    log_snr = torch.special.logit(alphas_cumprod.double())  # 2λ
    first = (2 * steps - 1) * total // (2 * steps)
    wanted = log_snr[first] + torch.linspace(0, 1, steps).double() * (log_snr[0] - log_snr[first])
    nearest = (log_snr - wanted[:, None]).abs().argmin(1)
    # Where λ changes fast from one timestep to the next, neighbours make room for each other.
    order = torch.arange(steps)
    distinct = (nearest + order).flip(0).cummax(0).values.flip(0) - order
    return torch.minimum(distinct, total - 1 - order)


def _check_steps(steps: int, num_train_timesteps: int) -> None:
    if not 1 <= steps <= num_train_timesteps:
        raise ValueError(f"steps must be in 1 … {num_train_timesteps} (training timesteps), got {steps}")


def ddim_solver(alphas_cumprod: Tensor, steps: int) -> Solver:
    """Deterministic DDIM (Song et al. 2021, eq. 12 with σ = 0): x_{i+1} = r_i·x_i + c_i·x̂_i.

    The noise is derived from the clipped data prediction (``use_clipped_model_output=True`` in diffusers), which
    makes the step an affine map.
    """
    timesteps = leading_timesteps(len(alphas_cumprod), steps)
    alpha, alpha_next = _state_alphas(alphas_cumprod, timesteps)
    r, c = _ddim_step(alpha, alpha_next)
    return _unrolled_solver(timesteps, alpha, r, c)


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
    return _unrolled_solver(timesteps, alpha, r, c, s=s)


def dpm_solver(alphas_cumprod: Tensor, steps: int) -> Solver:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2): deterministic, of second order.

    A step is DDIM's with x̂_i extrapolated from the two latest data predictions,
    D_i = x̂_i + (h_i / 2h_{i-1})·(x̂_i − x̂_{i-1}), h_i the growth of the logarithmic signal-to-noise ratio
    λ = log(√ᾱ / √(1−ᾱ)) in step i. The first step has one prediction only, and the last one ends at λ = ∞, where it
    returns x̂ (``final_sigmas_type="zero"`` in diffusers); these are of first order.

    Its timesteps are `log_snr_timesteps`: with few steps they come nearer to the answer of many steps than DDIM's.
    """
    timesteps = log_snr_timesteps(alphas_cumprod, steps)
    alpha, alpha_next = _state_alphas(alphas_cumprod, timesteps)
    r, c = _ddim_step(alpha, alpha_next)
    h = torch.special.logit(alpha).diff() / 2  # (T-1,), all but the last step's
    extrapolation = torch.zeros_like(c)
    extrapolation[1:-1] = h[1:] / (2 * h[:-1])
    return _unrolled_solver(timesteps, alpha, r, c * (1 + extrapolation), -c * extrapolation)


def _ddim_step(alpha: Tensor, alpha_next: Tensor) -> tuple[Tensor, Tensor]:
    """(r, c), both (T,)."""
    r = ((1 - alpha_next) / (1 - alpha)).sqrt()
    return r, alpha_next.sqrt() - r * alpha.sqrt()


def _state_alphas(alphas_cumprod: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """ᾱ before and after each step, both (T,) float64: small differences of them are divided by each other."""
    alpha = alphas_cumprod.double()[timesteps]
    return alpha, torch.cat((alpha[1:], alpha.new_ones(1)))


def _unrolled_solver(
    timesteps: Tensor, alpha: Tensor, r: Tensor, c: Tensor, b: Tensor | None = None, s: Tensor | None = None
) -> Solver:
    """Unroll x_{i+1} = r_i·x_i + c_i·x̂_i + b_i·x̂_{i−1} + s_i·z_i, all (T,), into one affine map of x₀, x̂ and z."""
    steps = len(timesteps)
    a = torch.cat((r.new_ones(1), torch.cumprod(r, dim=0)))
    # R_{t,i}: what is left at state t of something added at state i+1.
    R = r.new_zeros(steps + 1, steps)
    for i in range(steps):
        R[i + 1] = r[i] * R[i]
        R[i + 1, i] = 1
    C = R * c
    if b is not None:
        C[:, :-1] += (R * b)[:, 1:]
    alphas_cumprod = torch.cat((alpha, alpha.new_ones(1)))
    return Solver(timesteps, alphas_cumprod, a, C, r, c, b, None if s is None else R * s)
