"""The one recurrence behind every parallel sampler, and the Jacobians that it can be run with.

With F_i one solver step and A_i something like its Jacobian, an iteration replaces the states x^k by

    x_{i+1}^{k+1} = F_i(x_i^k) + A_i·(x_i^{k+1} − x_i^k),   x_0 fixed

(Gonzalez et al. 2025, arXiv:2509.21716). Its fixed point is the sequential trajectory whatever A is; A decides how
soon it is reached. In terms of the residuals g_i = F_i(x_i^k) − x_{i+1}^k and the corrections e_i = x_i^{k+1} − x_i^k
it is e_{i+1} = g_i + A_i·e_i, that is e = L·g with L_{t,i} = Π_{i<j≤t} A_j.

A multistep solver's F_i looks at x_{i−1} too, by the data prediction there, so that a correction spreads over two
steps: e_{i+1} = g_i + A_i·e_i + B_i·e_{i−1}, and the rows of L are L_t = A_t·L_{t−1} + B_t·L_{t−2}, 1 on its diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policy.solvers.solver import Solver

FORMULATIONS = ("jacobi", "drift", "semilinear", "preconditioned")


@dataclass(frozen=True)
class Recurrence:
    """L, in a basis of the flattened action sequences in which every A_i is diagonal.

    Attributes:
        L: (T, T) if the A_i and B_i are multiples of the identity, else (D, T, T), lower triangular with diagonal 1.
        basis: (D, D) orthonormal, a column for each of L's matrices; None with a (T, T) L.
    """

    L: Tensor
    basis: Tensor | None = None

    def corrections(self, residuals: Tensor, first: int) -> Tensor:
        """Corrections of the states first+1, first+2, … from the residuals of the steps first, first+1, …

        Args:
            residuals: (B, S, H, A).
            first: the first of the S steps; the state that it starts from stays as it is.

        Returns:
            (B, S, H, A).
        """
        window = slice(first, first + residuals.shape[1])
        L = self.L[..., window, window]
        flat = residuals.flatten(2)  # (B, S, D)
        if self.basis is None:
            return (L @ flat).view_as(residuals)
        return torch.einsum("dts,bsd->btd", L, flat @ self.basis).matmul(self.basis.T).view_as(residuals)


def gaussian_gain(alphas_cumprod: Tensor, variances: Tensor) -> Tensor:
    """(D, T) Jacobian of the optimal denoiser of a Gaussian, S = √ᾱ·s / (ᾱ·s + 1 − ᾱ), along its principal axes.

    Args:
        alphas_cumprod: (T,) ᾱ.
        variances: (D,) variance s along each axis.
    """
    return alphas_cumprod.sqrt() * variances[:, None] / _state_variance(alphas_cumprod, variances)


def _state_variance(alphas_cumprod: Tensor, variances: Tensor) -> Tensor:
    return alphas_cumprod * variances[:, None] + 1 - alphas_cumprod


def make_recurrence(formulation: str, solver: Solver, covariance: Tensor | None = None) -> Recurrence:
    """The recurrence with one of these A_i:

    - ``jacobi``: 0;
    - ``drift``: I, Picard iteration as in ParaDiGMS (Shih et al. 2023, eq. 4) and in the PCM paper (So et al. 2025,
      eq. 10);
    - ``semilinear``: r_i·I, the solver's linear part integrated exactly;
    - ``preconditioned``: r_i·I + c_i·S_i, S_i the Jacobian of the optimal denoiser of a Gaussian with the given
      covariance. For a multistep solver B_i = b_i·S_{i−1}, while it is 0 in the others.

    Args:
        formulation: one of `FORMULATIONS`.
        solver: T steps.
        covariance: (D, D) of the flattened action sequences given the observation, for ``preconditioned``.

    Raises:
        ValueError: for an unknown formulation, or ``preconditioned`` without a covariance.
    """
    r, c = solver.r.double(), solver.c.double()
    basis = B = None
    if formulation == "jacobi":
        A = torch.zeros_like(r)
    elif formulation == "drift":
        A = torch.ones_like(r)
    elif formulation == "semilinear":
        A = r
    elif formulation == "preconditioned":
        if covariance is None:
            raise ValueError("formulation 'preconditioned' needs the covariance of the policy's actions")
        variances, basis = torch.linalg.eigh(covariance.double())
        gain = gaussian_gain(solver.alphas_cumprod[:-1].double(), variances.clamp(min=0))  # (D, T)
        A = r + c * gain
        if solver.b is not None:
            B = solver.b.double() * gain.roll(1, dims=1)  # b_0 = 0: nothing is before the first step
        basis = basis.to(solver.a)
    else:
        raise ValueError(f"unknown formulation {formulation!r}, must be one of {', '.join(FORMULATIONS)}")
    L = A.new_zeros(*A.shape, A.shape[-1])
    for t in range(solver.steps):
        L[..., t, :t] = A[..., t, None] * L[..., t - 1, :t]
        if B is not None and t > 1:
            L[..., t, :t] += B[..., t, None] * L[..., t - 2, :t]
        L[..., t, t] = 1
    return Recurrence(L.to(solver.a), basis)
