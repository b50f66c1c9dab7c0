"""Seeds for PyTorch's generators."""

from __future__ import annotations


def combine_seeds(seed: int, index: int) -> int:
    """Seed of stream `index` of the random numbers of `seed`.

    It has 32 bits, since PyTorch's CPU generator ignores the rest. The multiplier (2³² over the golden ratio) keeps the
    streams of neighbouring seeds far apart.
    """
    return (seed * 0x9E3779B1 + index) % 2**32
