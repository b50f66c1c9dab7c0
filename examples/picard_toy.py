"""Picard iteration on two half-moons, whose exact denoiser is known: no network, no checkpoint.

python examples/picard_toy.py [picture.png]
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from policy.sampling import make_recurrence, picard_iterates, sample_sequential
from policy.solvers import SOLVERS
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod

T, SHOWN, VARIANCE = 25, [0, 1, 2, 3, 5, 7], 0.05**2
solver = SOLVERS["ddim"](squared_cosine_alphas_cumprod(100), T).to("cpu", torch.float32)

# A mixture of 64 narrow Gaussians along the two moons: "action sequences" (B, H, A) with H = 1, A = 2.
angle = torch.linspace(0, math.pi, 32)
moon = torch.stack((angle.cos() - 0.5, angle.sin() - 0.25), 1)
centres = 0.8 * torch.cat((moon, -moon))


def denoise(states: Tensor, steps: slice) -> Tensor:
    """The exact data prediction E[clean | state] of the mixture, for states (B, S, 1, 2) at S solver steps at once."""
    alpha = solver.alphas_cumprod[steps, None, None]
    variance = alpha * VARIANCE + 1 - alpha  # of a state around its centre
    away = states - alpha.sqrt() * centres  # (B, S, 64, 2)
    share = (-away.square().sum(-1, keepdim=True) / (2 * variance)).softmax(2)
    return (share * (centres + alpha.sqrt() * VARIANCE / variance * away)).sum(2, keepdim=True)


generator = torch.Generator().manual_seed(0)
noise = torch.randn((600, 1, 2), generator=generator)
guess = torch.cat((noise[:, None], torch.randn((600, T, 1, 2), generator=generator)), 1)  # the start "fresh"
answer = sample_sequential(denoise, solver, noise)[:, -1, 0]
first_moon = torch.cdist(answer, centres).argmin(1) < len(moon)

figure, axes = plt.subplots(2, len(SHOWN), figsize=(12, 3.9), sharex=True, sharey=True, layout="constrained")
for row, jacobian in zip(axes, ("drift", "preconditioned"), strict=True):
    recurrence = make_recurrence(jacobian, solver, torch.cov(centres.T))
    iterates = picard_iterates([denoise], solver, guess, recurrences=[recurrence])
    shown = [guess, *(iterate.states for iterate in iterates)]
    row[0].set_ylabel(jacobian)
    for axis, k in zip(row, SHOWN, strict=True):
        error = (shown[k][:, -1, 0] - answer).abs().amax(1).quantile(0.95)
        axis.set_title(f"k = {k}, error {error:.2g}", fontsize=10)
        axis.plot(*shown[k][:3, :, 0].permute(2, 1, 0), color="0.6", linewidth=0.8)
        axis.scatter(*shown[k][:, -1, 0].T, c=first_moon, s=3, cmap="coolwarm")
        axis.set(xlim=(-2, 2), ylim=(-1.7, 1.7), xticks=[], yticks=[], aspect="equal")

path = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/picard_toy.png")
path.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(path, dpi=100)
print(f"{T} sequential evaluations, or {len(SHOWN)} looks at Picard iteration: {path}")
