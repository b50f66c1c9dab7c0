from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policy import Range


@given(seed=st.integers(0, 2**31), dim=st.integers(1, 20))
def test_unnormalize_inverts_normalize(seed: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.rand((50, dim), generator=generator, dtype=torch.float64) * 512
    limits = Range.of(samples)
    normalized = limits.normalize(samples)
    torch.testing.assert_close(normalized.amin(0), -torch.ones(dim, dtype=torch.float64))
    torch.testing.assert_close(normalized.amax(0), torch.ones(dim, dtype=torch.float64))
    torch.testing.assert_close(limits.unnormalize(normalized), samples)


def test_limits_that_cannot_be_scaled_are_refused() -> None:
    with pytest.raises(ValueError, match="dimension 1 does not vary"):
        Range(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="must be finite"):
        Range(torch.tensor([0.0]), torch.tensor([float("nan")]))
