"""Newton's method: the recurrence with the true Jacobians of the solver's steps, a yardstick for cheaper ones."""

from __future__ import annotations

from torch import Tensor
from torch.func import jvp

from policy.denoiser import Denoise
from policy.solvers.solver import Solver


def sample_newton(
    denoise: Denoise, solver: Solver, states: Tensor, iterations: int, first: int = 0
) -> Tensor:
    """Iterate x_{i+1} ← F_i(x_i) + J_i·(change of x_i), J_i = ∂F_i/∂x (PCM, So et al. 2025, eq. S7).

    The Jacobians are never built, only multiplied with the change of the state before. So an iteration is sequential,
    with as many network evaluations as sequential sampling: it shows how few iterations are possible, not how little
    time.

    Args:
        denoise: the data prediction x̂, differentiable in forward mode.
        solver: T deterministic steps.
        states: (B, T+1, H, A) initial trajectory; changed in place.
        iterations: at most so many. Each makes one more state exact, which is then frozen.
        first: steps whose result in `states` is exact already.

    Returns:
        (B, T+1, H, A), `states`.

    Raises:
        ValueError: for a stochastic or a multistep solver.
    """
    if solver.N is not None:
        raise ValueError("Newton's method needs a deterministic solver")
    solver.require_single_steps("Newton's method needs the Jacobians of single steps")
    r, c = solver.r, solver.c
    for start in range(first, min(first + iterations, solver.steps)):
        change = states.new_zeros(states[:, :1].shape)
        for i in range(start, solver.steps):
            state, change_before = states[:, i : i + 1].clone(), change
            prediction, prediction_change = jvp(
                lambda x, i=i: denoise(x, slice(i, i + 1)), (state,), (change_before,)
            )[:2]
            stepped = r[i] * state + c[i] * prediction
            residual = stepped - states[:, i + 1 : i + 2]
            change = residual + r[i] * change_before + c[i] * prediction_change
            states[:, i : i + 1] += change_before
        states[:, -1:] += change
    return states
