"""Anderson acceleration of Picard iteration, in its triangular variant."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from policy.sampling.picard import Accelerate

StatesAndCorrections: TypeAlias = tuple[Tensor, Tensor]
"""States x^k and their corrections Φ(x^k) − x^k, both (B, S, H, A), of one iteration."""

RIDGE = (
    1e-4  # relative to the changes' mean square; keeps the system solvable where changes are nearly parallel
)


def anderson(memory: int) -> Accelerate:
    """Acceleration of one inference's iterations by up to `memory` earlier ones."""
    iterations: deque[StatesAndCorrections] = deque(maxlen=memory + 1)

    def accelerate(states: Tensor, corrections: Tensor) -> Tensor:
        iterations.append((states, corrections))
        return accelerated_corrections(iterations)

    return accelerate


def accelerated_corrections(iterations: Sequence[StatesAndCorrections]) -> Tensor:
    """Corrections of the last iteration, combined with those before it (ParaTAA, Tang et al. 2024).

    With ΔX and ΔR the changes of states and corrections from iteration to iteration, the state t moves by

        R_t − Σ_j γ_{t,j}·(ΔX_{j,t} + ΔR_{j,t}),   γ_t = argmin_γ Σ_{i≤t} ‖R_i − Σ_j γ_j·ΔR_{j,i}‖²,

    which depends on no later state: the map from R to the movement is block triangular, as the iteration itself is. The
    first of the S states moves by its plain R, which makes it exact. So T iterations still give the sequential answer.

    Args:
        iterations: m + 1 iterations, the newest last. The states of a newer one are the last states of an older one.

    Returns:
        (B, S, H, A).
    """
    steps = iterations[-1][0].shape[1]
    states, corrections = (
        torch.stack([part[:, -steps:] for part in parts], 2).flatten(3)
        for parts in zip(*iterations, strict=True)
    )
    newest = corrections[:, :, -1]  # (B, S, D)
    state_changes, correction_changes = states.diff(dim=2), corrections.diff(dim=2)  # (B, S, m, D)
    gram = (correction_changes @ correction_changes.mT).cumsum(1)
    right = (correction_changes @ newest[..., None]).cumsum(1)
    scale = gram.diagonal(dim1=2, dim2=3).mean(2)[..., None, None]
    ridge = (RIDGE * scale).clamp(min=torch.finfo(gram.dtype).tiny) * torch.eye(gram.shape[-1]).to(gram)
    gamma = _solve_positive(gram + ridge, right)  # (B, S, m, 1)
    moved = newest - ((state_changes + correction_changes).mT @ gamma)[..., 0]
    return torch.cat((newest[:, :1], moved[:, 1:]), 1).view_as(iterations[-1][1])


def _solve_positive(matrix: Tensor, right: Tensor) -> Tensor:
    """Solution (…, m, 1) of a symmetric, positive definite system (…, m, m), (…, m, 1), by elimination.

    It needs no pivots, so that no value is read. `torch.linalg.solve` waits for the device to see whether it succeeded,
    and no exported graph knows it.
    """
    left, rows = torch.cat((matrix, right), -1), []
    for _ in range(matrix.shape[-1]):
        rows.append(left[..., :1, 1:] / left[..., :1, :1])
        left = left[..., 1:, 1:] - left[..., 1:, :1] * rows[-1]
    solution = right[..., :0, :]
    for row in reversed(rows):
        solution = torch.cat((row[..., -1:] - row[..., :-1] @ solution, solution), -2)
    return solution
