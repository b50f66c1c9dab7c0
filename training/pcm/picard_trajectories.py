"""A batch of samples: what is drawn for them, and the Picard trajectories from there (So et al. 2025, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from policy import DiffusionPolicy
from policy.denoiser import make_denoise
from policy.sampling import sample_sequential
from policy.sampling.picard import picard_step
from policy.sampling.recurrence import make_recurrence
from policy.sampling.start import exact_states, make_start, states_of_guess
from policy.sampling.warm_start import first_recurrence
from training.pcm.chunk_before import ChunkBefore, warm_guesses
from training.pcm.trajectories import Trajectories
from training.seeds import combine_seeds


@torch.no_grad()
def picard_trajectories(
    policy: DiffusionPolicy,
    condition: Tensor,
    noise: Tensor,
    *,
    iterations: int,
    guess: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Picard trajectories, and the sequential states from the same noise (algorithm 1).

    Args:
        policy: policy with a parallel sampler.
        condition: (B, C) normalised observations.
        noise: (B, T+1, H, A): the noise, then the further noises of the start ``fresh``.
        iterations: number K of iterations.
        guess: (B, H, A) normalised actions that a warm start begins with, in place of the start.

    Returns:
        X⁰ … X^K (B, K+1, T+1, H, A) and X* (B, T+1, H, A).
    """
    solver, covariance = policy.solver, policy.covariance
    picard = policy.resolved_sampler.picard
    recurrences = [make_recurrence(picard.jacobian, solver, covariance)]
    denoise = make_denoise(policy.network, solver, condition)
    if guess is None:
        start = make_start(picard.start, solver, covariance=covariance)
        states, first = start(denoise, noise[:, 0], lambda shape: noise[:, 1:]), exact_states(picard.start)
    else:
        states, first = states_of_guess(solver, noise[:, 0], guess), 0
        recurrences.insert(0, first_recurrence(picard.jacobian, solver, covariance))
    trajectories = [states]
    for k in range(iterations):  # each makes one more state exact
        recurrence = recurrences[min(k, len(recurrences) - 1)]
        changed = picard_step(denoise, solver, states, recurrence=recurrence, first=first + k)
        states = torch.cat((states[:, : first + k + 1], changed), 1)
        trajectories.append(states)
    return torch.stack(trajectories, 1), sample_sequential(denoise, solver, noise[:, 0])


def trajectories_after(
    policy: DiffusionPolicy, condition: Tensor, noise: Tensor, *, before: ChunkBefore, iterations: int
) -> Trajectories:
    """Picard trajectories from warm starts where there was a chunk before, and from cold ones elsewhere.

    Args:
        before: the chunk before each sample's.
        policy, condition, noise, iterations: as of `picard_trajectories`.
    """
    is_warm = before.executed > 0
    steps = noise.shape[1] - 1
    states = noise.new_empty(len(noise), iterations + 1, *noise.shape[1:])
    solution = noise.new_empty(len(noise), steps + 1, *noise.shape[2:])
    for rows in (~is_warm, is_warm):
        if not rows.any():
            continue
        drawn, guess = noise[rows], None
        if rows is is_warm:
            actions, actions_noise = (each[rows].to(noise) for each in (before.actions, before.noise))
            chosen = ChunkBefore(before.executed[rows], actions, actions_noise)
            carried, guess = warm_guesses(policy, chosen, drawn[:, 0])
            drawn = torch.cat((carried[:, None], drawn[:, 1:]), 1)
        found = picard_trajectories(policy, condition[rows], drawn, iterations=iterations, guess=guess)
        states[rows], solution[rows] = found
    tensors = (condition, states, solution, before.executed)
    return Trajectories(*(tensor.float().cpu().numpy() for tensor in tensors))


def draw_samples(
    policy: DiffusionPolicy, conditions: int, samples: Sequence[int], *, seed: int
) -> tuple[Tensor, Tensor]:
    """Rows (B,) of that many conditions, and noises (B, T+1, H, A), of some samples.

    Each sample has its own generator, so any worker and any batch draw the same.
    """
    rows, noises = [], []
    shape = (policy.resolved_sampler.steps + 1, policy.config.horizon, policy.task.action_dim)
    for sample in samples:
        generator = torch.Generator().manual_seed(combine_seeds(seed, sample))
        rows.append(int(torch.randint(conditions, (), generator=generator)))
        noises.append(torch.randn(shape, generator=generator))
    return torch.tensor(rows), torch.stack(noises).to(policy.solver.a)
