"""The one recurrence behind every parallel sampler, and the Jacobians to run it with.

With F_i one solver step and A_i something like its Jacobian, an iteration replaces the states x^k by

    x_{i+1}^{k+1} = F_i(x_i^k) + A_i·(x_i^{k+1} − x_i^k),   x_0 fixed

(Gonzalez et al. 2025, arXiv:2509.21716). Its fixed point is the sequential states whatever A is; A decides how soon
it is reached. In terms of the residuals g_i = F_i(x_i^k) − x_{i+1}^k and the corrections e_i = x_i^{k+1} − x_i^k
it is e_{i+1} = g_i + A_i·e_i, that is e = (I − M)⁻¹·g with A on the first subdiagonal of M.

F_i of a multistep solver also depends on the data predictions of earlier states. Then M has further subdiagonals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policy.solvers import Solver

JACOBIANS = ("jacobi", "drift", "semilinear", "preconditioned")


@dataclass(frozen=True)
class Recurrence:
    """L = (I − M)⁻¹, in a basis of the flattened action sequences in which every block of M is diagonal.

    Attributes:
        L: (T, T) if the blocks of M are multiples of the identity, else (D, T, T), lower triangular with diagonal 1.
        basis: (D, D) orthonormal matrix with a column for each of L's matrices; None with a (T, T) L.
    """

    L: Tensor
    basis: Tensor | None = None

    def corrections(self, residuals: Tensor, first: int) -> Tensor:
        """Corrections of the states first+1, first+2, … from the residuals of the steps first, first+1, …

        Args:
            residuals: (B, S, H, A).
            first: first of the S steps. The state that it starts from stays as it is.

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
    """Jacobian of the optimal denoiser of a Gaussian, S = √ᾱ·s / (ᾱ·s + 1 − ᾱ), along its principal axes.

    Args:
        alphas_cumprod: (T,) ᾱ.
        variances: (D, T) or (D, 1) variance s along each axis.

    Returns:
        (D, T).
    """
    return alphas_cumprod.sqrt() * variances / (alphas_cumprod * variances + 1 - alphas_cumprod)


def make_recurrence(
    jacobian: str, solver: Solver, covariance: Tensor | None = None, *, shares: Tensor | None = None
) -> Recurrence:
    """The recurrence with one of these Jacobians:

    - ``jacobi``: A_i = 0;
    - ``drift``: I, Picard iteration as in ParaDiGMS (Shih et al. 2023, eq. 4) and in the PCM paper (So et al. 2025,
      eq. 10);
    - ``semilinear``: r_i·I, the solver's linear part integrated exactly;
    - ``preconditioned``: r_i·I + W_{i,i}·S_i. S_i is the Jacobian of the optimal denoiser of a Gaussian with the given
      covariance. A multistep solver adds W_{i,j}·S_j of the earlier states j; for others it is 0.

    Args:
        jacobian: one of `JACOBIANS`.
        solver: T steps.
        covariance: (D, D) of the flattened action sequences given the observation, for ``preconditioned``.
        shares: (T,) share of the covariance to use in each state; by default all of it.

    Raises:
        ValueError: for an unknown Jacobian, or ``preconditioned`` without a covariance.
    """
    r, W = solver.r.double(), solver.W.double()
    basis = None
    if jacobian == "jacobi":
        # Row i: the step to state i+1. Column j: the share of state j's correction that it passes on.
        G = torch.zeros_like(W)
    elif jacobian == "drift":
        G = torch.ones_like(r).diag()
    elif jacobian == "semilinear":
        G = r.diag()
    elif jacobian == "preconditioned":
        if covariance is None:
            raise ValueError("the Jacobian 'preconditioned' needs the covariance of the policy's actions")
        variances, basis = torch.linalg.eigh(covariance.double())
        variances = variances.clamp(min=0)[:, None]
        if shares is not None:
            variances = variances * shares.to(variances)
        gain = gaussian_gain(solver.alphas_cumprod[:-1].double(), variances)  # (D, T)
        G = r.diag() + W * gain[:, None, :]
        basis = basis.to(solver.a)
    else:
        raise ValueError(f"unknown Jacobian {jacobian!r}, must be one of {', '.join(JACOBIANS)}")
    M = torch.nn.functional.pad(G[..., 1:], (0, 1))  # state 0 is never corrected: columns begin with state 1
    identity = torch.eye(solver.steps, dtype=M.dtype, device=M.device)
    L = torch.linalg.solve_triangular(identity - M, identity.expand_as(M), upper=False, unitriangular=True)
    return Recurrence(L.to(solver.a), basis)
