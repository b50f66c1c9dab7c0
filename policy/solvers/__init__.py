"""Solvers of the diffusion process, as data. A new one is a function that builds a `Solver`, listed in `SOLVERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

from policy.solvers.ddim import ddim
from policy.solvers.ddpm import ddpm
from policy.solvers.deis import deis
from policy.solvers.dpmpp_2m import dpmpp_2m
from policy.solvers.dpmpp_3m import dpmpp_3m
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

__all__ = [
    "SOLVERS",
    "BuildSolver",
    "Solver",
    "ddim",
    "ddpm",
    "deis",
    "dpmpp_2m",
    "dpmpp_3m",
    "solver_of_states",
    "solver_of_steps",
    "unipc",
]
