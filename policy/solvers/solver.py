"""A solver: one affine map from the noise and the data predictions to the states.

A linear solver turns the noise and the clipped data predictions x̂ of its T steps into states x_0 … x_T, the noise first
and the action sequence last, by

    x_t = a_t·noise + Σ_{i<t} C_{t,i}·x̂_i + Σ_{i<t} N_{t,i}·z_i

with strictly lower triangular C and N and the step noises z of a stochastic solver. Sequential sampling is forward
substitution through this map. Parallel samplers look for its fixed point, with the same map written as steps

    x_{i+1} = r_i·x_i + Σ_{j≤i} W_{i,j}·x̂_j (+ noise),   r_i = a_{i+1} / a_i,   W_i = C_{i+1} − r_i·C_i
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

NEGLIGIBLE = 1e-12  # relative to the largest weight: rounding left over from a difference that should be 0


@dataclass(frozen=True)
class Solver:
    """A solver of T steps. The functions in `SOLVERS` build it in float64.

    Attributes:
        timesteps: (T,) training timestep of each state that the network sees, decreasing.
        alphas_cumprod: (T+1,) ᾱ of each state; 1 in the last, a clean action sequence.
        a: (T+1,) weight of the noise in each state; only the last may be 0.
        C: (T+1, T) weights of the data predictions, strictly lower triangular.
        N: (T+1, T) weights of the step noises, or None for a deterministic solver.
        predicts_data: whether the network was trained to predict x̂ itself, and not the noise.
    """

    timesteps: Tensor
    alphas_cumprod: Tensor
    a: Tensor
    C: Tensor
    N: Tensor | None = None
    predicts_data: bool = False

    @property
    def steps(self) -> int:
        """Number of solver steps T."""
        return len(self.timesteps)

    @cached_property
    def r(self) -> Tensor:
        """(T,) weight of the state in each step."""
        return self.a[1:] / self.a[:-1]

    @cached_property
    def W(self) -> Tensor:
        """(T, T) weights of the data predictions in each step, lower triangular; diagonal for a single-step solver."""
        W = self.C[1:] - self.r[:, None] * self.C[:-1]
        return W.where(W.abs() > NEGLIGIBLE * W.abs().max(), 0)

    @cached_property
    def W_inverse(self) -> Tensor:
        """(T, T) inverse of W: its leading block of any size gives the data predictions behind as many steps."""
        return torch.linalg.solve_triangular(self.W, torch.eye(self.steps).to(self.W), upper=False)

    def require_deterministic(self, method: str) -> None:
        """Raise if the solver is stochastic, naming the method that cannot use it.

        Raises:
            ValueError: if the solver adds noise in its steps.
        """
        if self.N is not None:
            raise ValueError(f"{method} needs a deterministic solver, and this one adds noise in each step")

    def require_single_steps(self, reason: str) -> None:
        """Raise if this is a multistep solver, giving the reason.

        Raises:
            ValueError: if a step uses more than the state before it and the data prediction there.
        """
        if self.W.tril(-1).any():
            raise ValueError(f"{reason}: a multistep solver is no map from state to state")

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Solver:
        """The solver on a device and in a precision."""
        moved = Solver(
            timesteps=self.timesteps.to(device),
            alphas_cumprod=self.alphas_cumprod.to(device, dtype),
            a=self.a.to(device, dtype),
            C=self.C.to(device, dtype),
            N=None if self.N is None else self.N.to(device, dtype),
            predicts_data=self.predicts_data,
        )
        # Differences of rounded weights would be less precise than rounded differences.
        vars(moved).update(
            r=self.r.to(device, dtype),
            W=self.W.to(device, dtype),
            W_inverse=self.W_inverse.to(device, dtype),
        )
        return moved


def solver_of_steps(
    timesteps: Tensor, alphas_cumprod: Tensor, *, r: Tensor, W: Tensor, s: Tensor | None = None
) -> Solver:
    """Unroll x_{i+1} = r_i·x_i + Σ_{j≤i} W_{i,j}·x̂_j + s_i·z_i into one affine map of noise, x̂ and z.

    Args:
        timesteps: (T,) training timesteps.
        alphas_cumprod: (T,) ᾱ at these timesteps, in float64.
        r: (T,) weights of the states.
        W: (T, T) lower triangular weights of the data predictions, or their diagonal (T,) for a single-step solver.
        s: (T,) weights of the step noises of a stochastic solver.
    """
    T = len(timesteps)
    W = torch.diag(W) if W.ndim == 1 else W
    step_noise = None if s is None else torch.diag(s)
    a, C = [r.new_ones(())], [r.new_zeros(T)]
    N = [r.new_zeros(T)]
    for i in range(T):
        a.append(r[i] * a[-1])
        C.append(r[i] * C[-1] + W[i])
        if step_noise is not None:
            N.append(r[i] * N[-1] + step_noise[i])
    solver = Solver(
        timesteps,
        alphas_cumprod=torch.cat((alphas_cumprod, alphas_cumprod.new_ones(1))),
        a=torch.stack(a),
        C=torch.stack(C),
        N=None if s is None else torch.stack(N),
    )
    vars(solver).update(r=r, W=W)  # more precise than from a and C
    return solver


def solver_of_states(timesteps: Tensor, alphas_cumprod: Tensor, states: Sequence[Tensor]) -> Solver:
    """The solver whose states are given by their weights.

    Args:
        timesteps: (T,).
        alphas_cumprod: (T,) ᾱ at them, in float64.
        states: T+1 of (T+1,), the weight of the noise first, then those of x̂_0 … x̂_{T−1}.
    """
    weights = torch.stack(list(states))
    alphas_cumprod = torch.cat((alphas_cumprod, alphas_cumprod.new_ones(1)))
    return Solver(timesteps, alphas_cumprod, a=weights[:, 0], C=weights[:, 1:])
