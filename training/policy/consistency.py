"""Consistency distillation of a diffusion policy (Song et al. 2023, arXiv:2303.01469, algorithm 2).

Consistency Policy (arXiv:2405.07503) distils robot policies so. This is its plain form: one teacher's step between
neighbouring timesteps, no jumps to timesteps in between, and no further loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policy.solvers import ddim
from policy.solvers.consistency import DISTILLED_STEPS
from training.policy.noise_prediction import TrainingData


def consistency_loss(
    network: nn.Module,
    data: TrainingData,
    rows: Tensor,
    *,
    alphas_cumprod: Tensor,
    generator: torch.Generator,
    share: slice,
    teacher: nn.Module,
    target: nn.Module,
) -> Tensor:
    """Mean of ‖x̂_θ(x_i) − x̂_target(x_{i+1})‖² over this worker's share of the rows (B,).

    x_i is an action sequence with noise, i one of the 10 steps of DDIM, and x_{i+1} the teacher's step from it. After
    the last step the target is the teacher's data prediction.

    Args:
        network: the student, which predicts noise as its teacher does, and begins with its weights.
        teacher: network of the diffusion policy.
        target: network with the student's averaged weights.
    """
    solver = ddim(alphas_cumprod.double(), DISTILLED_STEPS).to(alphas_cumprod.device, torch.float32)
    steps = torch.randint(solver.steps, rows.shape, generator=generator, device=generator.device)
    noise = torch.randn((len(rows), *data.actions.shape[1:]), generator=generator, device=generator.device)
    rows, steps, noise = rows[share], steps[share], noise[share]

    def predicted(model: nn.Module, states: Tensor, steps: Tensor) -> Tensor:
        alpha = solver.alphas_cumprod[steps, None, None]
        epsilon = model(states, solver.timesteps[steps], data.condition[rows]).float()
        return (states - (1 - alpha).sqrt() * epsilon) / alpha.sqrt()

    alpha = solver.alphas_cumprod[steps, None, None]
    states = alpha.sqrt() * data.actions[rows] + (1 - alpha).sqrt() * noise
    with torch.no_grad():
        taught = predicted(teacher, states, steps).clamp(-1, 1)
        stepped = solver.r[steps, None, None] * states + solver.W.diagonal()[steps, None, None] * taught
        goal = predicted(target, stepped, (steps + 1).clamp(max=solver.steps - 1)).clamp(-1, 1)
        goal = torch.where((steps == solver.steps - 1)[:, None, None], taught, goal)
    # Not clipped: a prediction that is clipped has no gradient.
    return nn.functional.mse_loss(predicted(network, states, steps), goal)
