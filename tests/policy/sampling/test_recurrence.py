from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from policy.sampling.recurrence import Recurrence, make_recurrence
from policy.solvers import Solver, ddim, dpmpp_2m
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100)


@pytest.mark.parametrize("build", [ddim, dpmpp_2m])
def test_a_share_of_the_covariance_is_that_of_its_state_alone(
    random_covariance: Callable[[int, int], Tensor], build: Callable[[Tensor, int], Solver]
) -> None:
    """Column i of M = I − L⁻¹ is what state i passes on: as if the covariance were its share of it everywhere."""
    solver = build(ALPHAS_CUMPROD, 5)
    covariance, shares = random_covariance(6, 0), torch.tensor([1.0, 0.5, 0.2, 0.4, 1.0], dtype=torch.float64)

    def passed_on(recurrence: Recurrence) -> Tensor:
        """(D, T, T) in the actions' own basis, where the order of the eigenvectors does not matter."""
        M = torch.eye(5, dtype=torch.float64) - torch.linalg.inv(recurrence.L.double())
        return torch.einsum("ad,dij,bd->abij", recurrence.basis, M, recurrence.basis)

    found = passed_on(make_recurrence("preconditioned", solver, covariance, shares=shares))
    for state in range(1, 5):  # column j of M is what the state j + 1 passes on
        alone = passed_on(make_recurrence("preconditioned", solver, shares[state] * covariance))
        torch.testing.assert_close(found[..., state - 1], alone[..., state - 1], atol=1e-8, rtol=0)
