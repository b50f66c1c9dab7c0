"""DEIS (Zhang & Chen 2023, arXiv:2204.13902)."""

from __future__ import annotations

import torch
from torch import Tensor

from policy.solvers.solver import Solver, solver_of_states
from policy.solvers.timesteps import Spacing, alphas_around_steps, log_snr_timesteps

ORDER = 3


def deis(alphas_cumprod: Tensor, steps: int, *, spacing: Spacing = log_snr_timesteps) -> Solver:
    """Deterministic multistep solver: Adams–Bashforth of third order in log ρ, ρ = √((1−ᾱ)/ᾱ) ("logrho" in diffusers).

    With y = x/√ᾱ the ODE is dy/dρ = ε. A step integrates the polynomial in log ρ through the latest noise predictions
    ε_i = (x_i − √ᾱ_i·x̂_i)/√(1−ᾱ_i). The first two steps have fewer of them, and the last two use fewer.
    """
    timesteps = spacing(alphas_cumprod, steps)
    alpha, _ = alphas_around_steps(alphas_cumprod, timesteps)
    log_rho = -torch.special.logit(alpha) / 2
    noise, *x_hat = torch.eye(steps + 1, dtype=alpha.dtype)
    states = [noise]
    epsilon: list[Tensor] = []
    for i in range(steps - 1):
        epsilon.append((states[i] - alpha[i].sqrt() * x_hat[i]) / (1 - alpha[i]).sqrt())
        order = min(ORDER, i + 1, steps - i)
        weights = integration_weights(log_rho[i + 1 - order : i + 1].flip(0), log_rho[i + 1])
        slope = sum(weight * each for weight, each in zip(weights, reversed(epsilon), strict=False))
        states.append(alpha[i + 1].sqrt() * (states[i] / alpha[i].sqrt() + slope))
    # The last step ends at ρ = 0, where x is x̂.
    return solver_of_states(timesteps, alpha, [*states, x_hat[-1]])


def integration_weights(nodes: Tensor, end: Tensor) -> Tensor:
    """Weights w (n,) with ∫ p(log ρ) dρ = Σ w_j·p(u_j) from log ρ = u_0 to the end, for polynomials p of degree n − 1.

    Args:
        nodes: (n,) nodes u_j in log ρ.
        end: end of the step in log ρ.
    """
    u, last = nodes - nodes[0], end - nodes[0]
    powers = torch.arange(len(u))
    moments: list[Tensor] = []  # ∫ u^k e^u du from 0 to the end, by parts
    for k in powers:
        at_start = 1.0 if k == 0 else 0.0
        below = k * moments[-1] if moments else 0.0
        moments.append(last**k * last.exp() - at_start - below)
    return nodes[0].exp() * torch.linalg.solve(u[None] ** powers[:, None], torch.stack(moments))
