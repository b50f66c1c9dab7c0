"""DPM-Solver++(3M), a multistep solver (Lu et al. 2022, arXiv:2211.01095), truly of third order here."""

from __future__ import annotations

import torch
from torch import Tensor

from policy.solvers.ddim import ddim_step
from policy.solvers.solver import Solver, solver_of_steps
from policy.solvers.timesteps import Spacing, alphas_around_steps, log_snr_timesteps


def dpmpp_3m(
    alphas_cumprod: Tensor,
    steps: int,
    *,
    spacing: Spacing = log_snr_timesteps,
    second_derivative: float = 2.0,
) -> Solver:
    """Deterministic multistep solver: a step uses the three latest data predictions.

    Let h be the growth of the logarithmic signal-to-noise ratio λ in the step, D′ and D″ estimates of h·dx̂/dλ and of
    h²/2·d²x̂/dλ² by divided differences. The step is DDIM's with x̂_i, plus
    √ᾱ·((e^{−h} − 1)/h + 1)·D′ − √ᾱ·((e^{−h} − 1 + h)/h² − 1/2)·2·D″.
    The first two steps have fewer predictions. The last two use fewer, as in diffusers (``lower_order_final``).

    Args:
        alphas_cumprod: ᾱ of the training timesteps.
        steps: number of solver steps T.
        spacing: timesteps.
        second_derivative: weight of D″. The authors' code and diffusers have 1 in place of 2, which is half of the
            Taylor term and leaves an error of second order.
    """
    timesteps = spacing(alphas_cumprod, steps)
    alpha, alpha_next = alphas_around_steps(alphas_cumprod, timesteps)
    r, c = ddim_step(alpha, alpha_next)
    W = torch.diag(c)
    h = torch.special.logit(alpha).diff() / 2  # (T-1,), all but the last step's
    x_hat = torch.eye(steps, dtype=W.dtype)
    for i in range(1, steps - 1):
        slope = (x_hat[i] - x_hat[i - 1]) * h[i] / h[i - 1]
        if i == 1 or i == steps - 2:  # a step of second order
            W[i] += c[i] * slope / 2
            continue
        earlier = (x_hat[i - 1] - x_hat[i - 2]) * h[i] / h[i - 2]
        near, far = h[i - 1] / h[i], h[i - 2] / h[i]
        curvature = (slope - earlier) / (near + far)
        decay, signal = torch.expm1(-h[i]), alpha_next[i].sqrt()
        W[i] += signal * (decay / h[i] + 1) * (slope + near * curvature)
        W[i] -= signal * ((decay + h[i]) / h[i] ** 2 - 0.5) * second_derivative * curvature
    return solver_of_steps(timesteps, alpha, r=r, W=W)
