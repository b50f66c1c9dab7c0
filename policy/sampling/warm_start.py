"""Warm starts: the previous chunk's solution as the initial trajectory of the next one.

Only where the iteration begins differs from a cold start. Its fixed point is the sequential answer to the same noise.
Others change the answer when they start warm, by denoising only part of the way (RTI for diffusion policy,
arXiv:2508.05396; STEP, arXiv:2602.08245). A PCM is left out, since it is trained from cold starts.
"""

from __future__ import annotations

import torch
from torch import Tensor

WARM_STARTS = ("none", "actions", "actions_and_noise")

COVARIANCE_LEFT = 0.2
"""Of the actions given the observation, if the previous chunk is known too: the share with which the `preconditioned`
formulation makes its first iteration. Afterwards the guess has been forgotten, and the whole covariance is better."""

NOISE_LEFT = 0.15
"""Of the effect that noise would have on the actions, were they Gaussian with that covariance. It is an average over
observations that the uncertain ones dominate: for most of them it says too much."""

DAMPING = 0.7  # of the last action's velocity, per step beyond the end


def continued_actions(actions: Tensor, executed: int) -> Tensor:
    """What is left of an action sequence after its first `executed` actions, continued with a fading velocity.

    Args:
        actions: (B, H, A), normalised.
        executed: actions by which time has moved on.

    Returns:
        (B, H, A), between −1 and 1.
    """
    velocity = actions[:, -1:] - actions[:, -2:-1]
    fading = DAMPING ** torch.arange(1, executed + 1, device=actions.device, dtype=actions.dtype)
    beyond = actions[:, -1:] + velocity * fading.cumsum(0)[:, None]
    return torch.cat((actions[:, executed:], beyond), 1).clamp(-1, 1)


def noise_effect(covariance: Tensor) -> Tensor:
    """(D, D) by which noise, flattened to (B, D), moves a guess of the actions.

    The probability-flow ODE takes noise ε to nearly μ + Σ^½·ε if the actions are N(μ, Σ) given the observation.

    Args:
        covariance: (D, D) Σ of the flattened action sequences.
    """
    variances, basis = torch.linalg.eigh(covariance.double())
    return (NOISE_LEFT * (basis * variances.clamp(min=0).sqrt()) @ basis.T).to(covariance)


def guessed_actions(
    actions: Tensor, actions_noise: Tensor, *, noise: Tensor, executed: int, effect: Tensor | None = None
) -> Tensor:
    """What the noise will become, judged by an earlier answer and the noise that it came from.

    Time moves what an observation says on, but not what noise adds to it: that belongs to its place in the horizon.

    Args:
        actions: (B, H, A), normalised.
        actions_noise: (B, H, A) that they came from.
        noise: (B, H, A) to begin with now.
        executed: actions by which time has moved on.
        effect: as of `noise_effect`; without one noise is taken to change nothing.

    Returns:
        (B, H, A), between −1 and 1.
    """
    if effect is None:
        return continued_actions(actions, executed)
    before, now = ((each.flatten(1) @ effect).view_as(each) for each in (actions_noise, noise))
    return (continued_actions(actions - before, executed) + now).clamp(-1, 1)


def continued_noise(noise: Tensor, executed: int, fresh: Tensor) -> Tensor:
    """The noise (B, H, A) moved along with the actions; `fresh` (B, H, A) fills what that leaves empty."""
    return torch.cat((noise[:, executed:], fresh[:, -executed:]), 1)


def warm_guess(
    actions: Tensor,
    actions_noise: Tensor,
    *,
    noise: Tensor,
    executed: int,
    keeps_noise: bool,
    effect: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The noise to begin with, and the actions that it will become, by those of the previous chunk.

    Args:
        actions: (B, H, A) of the previous chunk, normalised.
        actions_noise: (B, H, A) that they came from.
        noise: (B, H, A) drawn anew.
        executed: actions by which time has moved on.
        keeps_noise: whether the previous noise moves along with time, and the new one only fills its end.
        effect: as of `noise_effect`.

    Returns:
        Noise and guess, (B, H, A) each.
    """
    if keeps_noise:
        noise = continued_noise(actions_noise, executed, noise)
    guess = guessed_actions(actions, actions_noise, noise=noise, executed=executed, effect=effect)
    return noise, guess
