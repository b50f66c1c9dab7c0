"""UniPC (Zhao et al. 2023, arXiv:2302.04867)."""

from __future__ import annotations

import torch
from torch import Tensor

from policy.solvers.solver import Solver, solver_of_states
from policy.solvers.timesteps import Spacing, alphas_around_steps, log_snr_timesteps

ORDER = 2


def unipc(alphas_cumprod: Tensor, steps: int, *, spacing: Spacing = log_snr_timesteps) -> Solver:
    """Deterministic predictor and corrector of second order in data predictions, B(h) = e^{−h} − 1 ("bh2").

    The network is evaluated at the predicted states alone, once a step. With its data prediction the corrector then
    mends the state that the next prediction starts from. So the predicted states are affine in the noise and the
    earlier x̂, and UniPC is a solver like the others.
    """
    timesteps = spacing(alphas_cumprod, steps)
    alpha, _ = alphas_around_steps(alphas_cumprod, timesteps)
    log_snr = torch.special.logit(alpha) / 2
    signal, noise_level = alpha.sqrt(), (1 - alpha).sqrt()
    noise, *x_hat = torch.eye(steps + 1, dtype=alpha.dtype)

    def step(state: Tensor, i: int, *, order: int, corrects: bool) -> Tensor:
        """State i+1 from the corrected state i."""
        h = log_snr[i + 1] - log_snr[i]
        ratios = [(log_snr[i - k] - log_snr[i]) / h for k in range(1, order)]
        differences = [(x_hat[i - k] - x_hat[i]) / ratio for k, ratio in enumerate(ratios, 1)]
        if corrects:
            ratios, differences = [*ratios, torch.ones_like(h)], [*differences, x_hat[i + 1] - x_hat[i]]
        shares = combination(h, torch.stack(ratios)) if ratios else h.new_zeros(0)
        mended = sum((share * each for share, each in zip(shares, differences, strict=True)), x_hat[i])
        return noise_level[i + 1] / noise_level[i] * state - signal[i + 1] * torch.expm1(-h) * mended

    states, corrected, order = [noise], noise, 0
    for i in range(steps - 1):
        if i > 0:
            corrected = step(corrected, i - 1, order=order, corrects=True)
        order = min(ORDER, i + 1, steps - i)
        states.append(step(corrected, i, order=order, corrects=False))
    # The last step ends at λ = ∞, where x is x̂.
    return solver_of_states(timesteps, alpha, [*states, x_hat[-1]])


def combination(h: Tensor, ratios: Tensor) -> Tensor:
    """Shares (n,) of the differences (eq. 5 to 7): R·share = b, and 1/2 for a single difference, as published.

    Args:
        h: growth of λ in the step.
        ratios: (n,) places of the differences, in units of h.
    """
    if len(ratios) == 1:
        return torch.full_like(ratios, 0.5)
    powers = torch.arange(len(ratios))
    b, phi, factorial = [], torch.expm1(-h) / -h - 1, 1.0
    for k in range(1, len(ratios) + 1):
        b.append(phi * factorial / torch.expm1(-h))
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    return torch.linalg.solve(ratios[None] ** powers[:, None], torch.stack(b))
