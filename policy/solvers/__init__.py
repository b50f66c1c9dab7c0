"""Solvers of the diffusion process, as data. A new one is a function that builds a `Solver`, listed in `SOLVERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from torch import Tensor

from policy.solvers.consistency import consistency
from policy.solvers.ddim import ddim
from policy.solvers.ddpm import ddpm
from policy.solvers.deis import deis
from policy.solvers.dpmpp_2m import dpmpp_2m
from policy.solvers.dpmpp_3m import dpmpp_3m
from policy.solvers.mip import mip
from policy.solvers.solver import Solver, solver_of_states, solver_of_steps
from policy.solvers.timesteps import SPACINGS, Spacing
from policy.solvers.unipc import unipc


class BuildSolver(Protocol):
    """(ᾱ of the training timesteps, steps T, their spacing) → solver in float64; by default with a spacing of its own.

    Raises ValueError unless 1 ≤ T ≤ training timesteps.
    """

    def __call__(self, alphas_cumprod: Tensor, steps: int, *, spacing: Spacing = ...) -> Solver: ...


SOLVERS: Mapping[str, BuildSolver] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_3m": dpmpp_3m,
    "deis": deis,
    "unipc": unipc,
}
"""Of networks that were trained to predict noise."""

BuildOwnSolver: TypeAlias = Callable[[Tensor, int], Solver]

OWN_SOLVERS: Mapping[str, BuildOwnSolver] = {"mip": mip, "consistency": consistency}
"""Of networks that were trained for that solver alone; see `policy.objective`."""


def build_solver(
    name: str, alphas_cumprod: Tensor, steps: int, *, spacing: Spacing | None = None, last: int = 0
) -> Solver:
    """The solver of a name.

    Args:
        name: one of `SOLVERS` or `OWN_SOLVERS`.
        alphas_cumprod: ᾱ of the training timesteps.
        steps: number of solver steps T.
        spacing: timesteps, in place of the solver's own.
        last: number of the last timesteps that it has, from a state in between to the end; 0: all. A multistep solver
            begins there as it does at the noise, with lower order.

    Raises:
        ValueError: for numbers of steps that there are not, or other timesteps for a solver that has only its own.
    """
    if name in OWN_SOLVERS:
        if spacing is not None or last:
            raise ValueError(f"the solver {name} has timesteps of its own")
        return OWN_SOLVERS[name](alphas_cumprod, steps)
    build = SOLVERS[name]
    whole = build(alphas_cumprod, steps) if spacing is None else build(alphas_cumprod, steps, spacing=spacing)
    if not last:
        return whole
    if last > steps:
        raise ValueError(f"there are {steps} steps, got the last {last}")
    kept = whole.timesteps[-last:]
    return build(alphas_cumprod, last, spacing=lambda alphas_cumprod, steps: kept)


__all__ = [
    "OWN_SOLVERS",
    "SOLVERS",
    "SPACINGS",
    "BuildSolver",
    "Solver",
    "Spacing",
    "build_solver",
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
