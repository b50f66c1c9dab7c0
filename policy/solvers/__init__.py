"""Solvers of the diffusion process, as data. A new one is a function that builds a `Solver`, listed in `SOLVERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

from policy.solvers.consistency import consistency
from policy.solvers.ddim import ddim
from policy.solvers.ddpm import ddpm
from policy.solvers.deis import deis
from policy.solvers.dpmpp_2m import dpmpp_2m
from policy.solvers.dpmpp_3m import dpmpp_3m
from policy.solvers.mip import mip
from policy.solvers.solver import Solver, solver_of_states, solver_of_steps
from policy.solvers.unipc import unipc

BuildSolver: TypeAlias = Callable[[Tensor, int], Solver]
"""(ᾱ of the training timesteps, steps T) → solver in float64. Raises ValueError unless 1 ≤ T ≤ training timesteps."""

SOLVERS: Mapping[str, BuildSolver] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_3m": dpmpp_3m,
    "deis": deis,
    "unipc": unipc,
}
"""Of networks that were trained to predict noise."""

OWN_SOLVERS: Mapping[str, BuildSolver] = {"mip": mip, "consistency": consistency}
"""Of networks that were trained for that solver alone; see `policy.objective`."""

__all__ = [
    "OWN_SOLVERS",
    "SOLVERS",
    "BuildSolver",
    "Solver",
    "consistency",
    "ddim",
    "ddpm",
    "deis",
    "dpmpp_2m",
    "dpmpp_3m",
    "mip",
    "solver_of_states",
    "solver_of_steps",
    "unipc",
]
