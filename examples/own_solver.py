"""A solver of one's own: a function that returns a `Solver`. Every method can use it, here sequential and Picard.

Adams–Bashforth of second order in σ = √((1−ᾱ)/ᾱ), as `sample_lms` of k-diffusion with order 2. Its usual loop runs on
rows of weights instead of numbers: row 0 stands for the noise, row i + 1 for the data prediction x̂_i.

python examples/own_solver.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from policy import DiffusionPolicy
from policy.denoiser import make_denoise
from policy.sampling import make_recurrence, picard_iterates, sample_sequential
from policy.solvers import Solver
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod
from policy.solvers.timesteps import leading_timesteps


def lms2(alphas_cumprod: Tensor, steps: int) -> Solver:
    timesteps = leading_timesteps(alphas_cumprod, steps)
    alpha = torch.cat((alphas_cumprod.double()[timesteps], torch.ones(1)))  # (T+1,) of each state
    sigma = ((1 - alpha) / alpha).sqrt()
    h = sigma.diff()
    noise, *predictions = torch.eye(steps + 1).double()
    y = [noise / alpha[0].sqrt()]  # y = x / √ᾱ: dy/dσ = (y − x̂) / σ
    slopes = []
    for i in range(steps):
        slopes.append((y[i] - predictions[i]) / sigma[i])
        back = h[i] / (2 * h[i - 1]) if 0 < i < steps - 1 else 0.0  # first and last step: Euler's
        y.append(y[i] + h[i] * ((1 + back) * slopes[i] - back * slopes[i - 1]))
    states = alpha.sqrt()[:, None] * torch.stack(y)
    return Solver(timesteps=timesteps, alphas_cumprod=alpha, a=states[:, 0], C=states[:, 1:])


if __name__ == "__main__":
    torch.manual_seed(0)
    policy = DiffusionPolicy.load("checkpoints/pusht_mirror.safetensors")
    solver = lms2(squared_cosine_alphas_cumprod(100), 10).to("cpu", torch.float32)
    condition = torch.zeros(1, 40)  # an observation in the middle of its range
    denoise = make_denoise(policy.network, solver, condition)
    recurrence = make_recurrence("preconditioned", solver, policy.covariance)
    states = torch.randn(1, solver.steps + 1, 16, 2)  # the noise, and fresh noise as a start
    with torch.no_grad():
        answer = sample_sequential(denoise, solver, states[:, 0])[:, -1]
        for k, iterate in enumerate(picard_iterates([denoise], solver, states, recurrences=[recurrence]), 1):
            print(f"iteration {k:2}: error {(iterate.states[:, -1] - answer).abs().max():.1e}")
