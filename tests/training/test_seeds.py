from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from training.seeds import combine_seeds

SEEDS = st.integers(0, 1000)
INDICES = st.integers(0, 10**6)


@given(seed=SEEDS, other_seed=SEEDS, index=INDICES, other_index=INDICES)
def test_every_seed_and_index_has_a_stream_of_its_own(
    seed: int, other_seed: int, index: int, other_index: int
) -> None:
    def first_numbers(seed: int, index: int) -> list[float]:
        generator = torch.Generator().manual_seed(combine_seeds(seed, index))
        return torch.randn(4, generator=generator).tolist()

    same = first_numbers(seed, index) == first_numbers(other_seed, other_index)
    assert same == ((seed, index) == (other_seed, other_index))
