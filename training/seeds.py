"""Seeds for PyTorch's generators."""

from __future__ import annotations


def combine_seeds(seed: int, index: int) -> int:
    """Seed of the `index`-th stream of random numbers that belongs to `seed`.

    In 32 bits, since PyTorch's CPU generator ignores the rest; the multiplier (2³² over the golden ratio) keeps the
    indices of neighbouring seeds far apart.
    """
    return (seed * 0x9E3779B1 + index) % 2**32
