"""FiLM without repetition: what depends on the timestep, and what on the observation, each computed once.

A block's scales and biases are W·Mish([e; c]) + b with e the encoded timestep and c the observation. Mish acts on each
number by itself, so they are (W_e·Mish(e) + b) + W_c·Mish(c) exactly: a table over the solver's timesteps that never
changes, and one product for each observation.
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
        timesteps: (T, F) what the timesteps contribute; F counts the scales and biases of all blocks.
        observation_weight: (C, F) by which the observation contributes.
        widths: numbers of each block, F in sum, in the order of `ConditionalUnet1D.blocks`.
    """

    timesteps: Tensor
    observation_weight: Tensor
    widths: tuple[int, ...]

    def __call__(self, condition: Tensor) -> Tensor:
        """(B, T, F) for observations (B, C)."""
        return self.timesteps + (F.mish(condition) @ self.observation_weight)[:, None]


@torch.no_grad()
def hoist_film(network: ConditionalUnet1D, timesteps: Tensor) -> HoistedFilm:
    """Prepare the FiLM of a network, with or without adapters, at timesteps (T,)."""
    encoded = network.timestep_encoder(timesteps)
    films = [block.film for block in network.blocks]
    cond_dim = network.cond_dim
    # Mish(0) = 0, so zeros in place of the observation leave it out.
    table = [film(F.pad(encoded, (0, cond_dim))) for film in films]
    weights = []
    for film in films:
        modulate = film[1]  # affine, so that unit vectors give its matrix
        zero = encoded.new_zeros(1, encoded.shape[1] + cond_dim)
        units = torch.eye(zero.shape[1], device=zero.device, dtype=zero.dtype)[encoded.shape[1] :]
        weights.append(modulate(units) - modulate(zero))
    widths = tuple(part.shape[1] for part in table)
    return HoistedFilm(torch.cat(table, 1), torch.cat(weights, 1), widths)
