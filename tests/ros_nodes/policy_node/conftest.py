from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policy import DiffusionPolicy, SamplerConfig

FAULTY_POLICY_NODE = Path(__file__).resolve().parents[1] / "faulty_policy_node.py"


@pytest.fixture
def start_policy(graph: Any, checkpoints: Path) -> Iterator[Callable[..., Any]]:
    """Start a policy node; keywords as for `PolicyProcess`, and `size` of the policy."""
    from policy_process import PolicyProcess

    def start(size: str = "tiny", **options: Any) -> PolicyProcess:
        checkpoint = options.pop("checkpoint", checkpoints / f"{size}.safetensors")
        return PolicyProcess(graph, checkpoint, **options)

    yield start
    # Killed ones would keep this process's writers waiting for what they never acknowledge.
    for process in graph.processes:
        if process.poll() is None:
            graph.stop(process, signal.SIGTERM)


@pytest.fixture
def start_faulty_policy(start_policy: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Start a policy node with the faults that are files in `tmp_path`."""
    return partial(start_policy, program=(str(FAULTY_POLICY_NODE), str(tmp_path)))


@pytest.fixture
def expected_chunk(checkpoints: Path) -> Callable[..., np.ndarray]:
    """The chunks (8, 2) that the tiny policy computes without ROS."""
    from policy_peer import observation

    def chunk(*histories: tuple[float, float], seed: int = 0, steps: int = 4) -> np.ndarray:
        """The last chunk of a sequence of observation pairs."""
        policy = DiffusionPolicy.load(checkpoints / "tiny.safetensors", sampler=SamplerConfig(steps=steps))
        generator = torch.Generator().manual_seed(seed)
        for pair in histories:
            observations = torch.from_numpy(np.stack([observation(number) for number in pair])).float()
            result = policy.predict_chunk(observations[None], generator=generator)[0]
        return result.double().numpy()

    return chunk
