"""FiLM split in two: the timestep's part is a table, the condition's part is computed once for each chunk.

A block's scales and biases are W·Mish([e; c]) + b with the encoded timestep e and the condition c. Mish acts on each
number by itself, so they are exactly (W_e·Mish(e) + b) + W_c·Mish(c): a fixed table over the solver's timesteps, and
one product for each condition.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from policy.networks.unet import ConditionalUnet1D


@dataclass(frozen=True)
class HoistedFilm:
    """FiLM of all blocks of a network at the timesteps of a solver.

    Attributes:
        timesteps: (T, F) part of the timesteps. F is the number of scales and biases of all blocks.
        condition_weight: (C, F) weights of the condition's part.
        widths: number of scales and biases of each block, in the order of `ConditionalUnet1D.blocks`; their sum is F.
    """

    timesteps: Tensor
    condition_weight: Tensor
    widths: tuple[int, ...]

    def __call__(self, condition: Tensor) -> Tensor:
        """Scales and biases (B, T, F) for a condition (B, C)."""
        return self.timesteps + (F.mish(condition) @ self.condition_weight)[:, None]


@torch.no_grad()
def hoist_film(network: ConditionalUnet1D, timesteps: Tensor) -> HoistedFilm:
    """Prepare the FiLM of a network, with or without adapters, at timesteps (T,)."""
    encoded = network.timestep_encoder(timesteps)
    films = [block.film for block in network.blocks]
    cond_dim = network.cond_dim
    # Mish(0) = 0, so zeros in place of the condition leave it out.
    table = [film(F.pad(encoded, (0, cond_dim))) for film in films]
    weights = []
    for film in films:
        modulate = film[1]  # affine, so that unit vectors give its matrix
        zero = encoded.new_zeros(1, encoded.shape[1] + cond_dim)
        units = torch.eye(zero.shape[1], device=zero.device, dtype=zero.dtype)[encoded.shape[1] :]
        weights.append(modulate(units) - modulate(zero))
    widths = tuple(part.shape[1] for part in table)
    return HoistedFilm(torch.cat(table, 1), torch.cat(weights, 1), widths)
