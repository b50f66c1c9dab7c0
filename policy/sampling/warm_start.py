"""Warm starts: the previous prediction as the start of the next one.

A warm start changes where the iteration begins. The fixed point stays the sequential answer to the same noise. Other
methods change the answer when they start warm, by denoising only part of the way: see `policy.sampling.partial`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from policy.sampling.recurrence import Recurrence, make_recurrence
from policy.solvers import Solver

WARM_STARTS = ("none", "actions", "actions_and_noise")

COVARIANCE_LEFT = 0.4
"""Share of the covariance that the first iteration with the Jacobian `preconditioned` uses in all states but the last.

The previous chunk explains the rest. The last state before the actions has so little noise that x̂ follows it almost
one to one, whatever the guess was, and uses all of the covariance. Later iterations have forgotten the guess and use
all of it everywhere.
"""

NOISE_LEFT = 0.15
"""Share of the effect that noise would have if the actions were Gaussian with the policy's covariance.

The covariance is an average that uncertain observations dominate. For most observations it is too large.
"""

DAMPING = 0.7  # factor on the last action's velocity, per step beyond the end


def continued_actions(actions: Tensor, executed: int) -> Tensor:
    """The rest of an action sequence after its first `executed` actions, continued with a fading velocity.

    Args:
        actions: (B, H, A), normalised.
        executed: number of actions that were executed since.

    Returns:
        (B, H, A), between −1 and 1.
    """
    velocity = actions[:, -1:] - actions[:, -2:-1]
    fading = DAMPING ** torch.arange(1, executed + 1, device=actions.device, dtype=actions.dtype)
    beyond = actions[:, -1:] + velocity * fading.cumsum(0)[:, None]
    return torch.cat((actions[:, executed:], beyond), 1).clamp(-1, 1)


def noise_effect(covariance: Tensor) -> Tensor:
    """Matrix (D, D) by which noise, flattened to (B, D), moves a guess of the actions.

    If the actions given the observation are N(μ, Σ), the probability-flow ODE takes noise ε to about μ + Σ^½·ε.

    Args:
        covariance: (D, D) Σ of the flattened action sequences.
    """
    variances, basis = torch.linalg.eigh(covariance.double())
    return (NOISE_LEFT * (basis * variances.clamp(min=0).sqrt()) @ basis.T).to(covariance)


def guessed_actions(
    actions: Tensor, actions_noise: Tensor, *, noise: Tensor, executed: int, effect: Tensor | None = None
) -> Tensor:
    """Guess of the actions that the noise leads to, from an earlier answer and its noise.

    The part of the answer that the observation explains moves on with time. The part that comes from the noise stays at
    its place in the horizon.

    Args:
        actions: (B, H, A) of the earlier answer, normalised.
        actions_noise: (B, H, A) that they came from.
        noise: (B, H, A) to begin with now.
        executed: number of actions that were executed since.
        effect: matrix of `noise_effect`; None: noise changes nothing.

    Returns:
        (B, H, A), between −1 and 1.
    """
    if effect is None:
        return continued_actions(actions, executed)
    before, now = ((each.flatten(1) @ effect).view_as(each) for each in (actions_noise, noise))
    return (continued_actions(actions - before, executed) + now).clamp(-1, 1)


def continued_noise(noise: Tensor, executed: int, fresh: Tensor) -> Tensor:
    """The noise (B, H, A) moved on with the actions. `fresh` (B, H, A) fills its end."""
    return torch.cat((noise[:, executed:], fresh[:, -executed:]), 1)


def first_recurrence(jacobian: str, solver: Solver, covariance: Tensor | None) -> Recurrence:
    """The recurrence of the first iteration after a warm start, which trusts the guess.

    Args:
        jacobian, solver, covariance: as of `make_recurrence`, for the later iterations.
    """
    return make_recurrence(jacobian, solver, covariance, shares=shares_left(solver.steps))


def shares_left(steps: int) -> Tensor:
    """Shares (T,) of the covariance that the guess leaves unexplained in each state."""
    shares = torch.full((steps,), COVARIANCE_LEFT, dtype=torch.float64)
    shares[-1] = 1
    return shares
