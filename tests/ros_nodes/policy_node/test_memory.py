"""What the node's memory does while it runs on and on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from policy_peer import STEP, observation

SHIPPED = Path(__file__).resolve().parents[3] / "checkpoints"
MOST_GROWTH = 250e6
"""In bytes. Engines that stay make 1,300 MB of the changes below."""


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino, of which each engine is large")
def test_changes_of_the_sampler_leave_no_engines_behind(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(
        checkpoint=SHIPPED / "pusht_small.safetensors",
        pcm=SHIPPED / "pusht_small_pcm_lora.safetensors",
        engine="openvino",
        synchronous=True,
    ).activate()
    chunks = itertools.count()

    def most_memory(steps: tuple[int, ...]) -> int:
        """The largest memory after a change of the sampler and a chunk of each, for these solver steps."""
        memory = []
        for method, count in itertools.product(("picard", "pcm"), steps):
            assert not policy.set_together(sampler__method=method, sampler__steps=count)
            chunk = next(chunks)
            policy.observe((chunk + 1) * 10 * STEP, observation(0))
            policy.chunk(chunk)
            memory.append(policy.memory())
        return max(memory)

    # The largest engines first, as memory that was free before may be in use again.
    before = most_memory((10, 9))
    assert most_memory((4, 5, 6, 7, 8)) - before < MOST_GROWTH
