from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policy import DiffusionPolicy, Normalizer, PolicyConfig, Range
from training.data.task_file import load_task

DEMONSTRATIONS = Path(__file__).resolve().parents[2] / "shared" / "data" / "pusht_cchi_v7_replay.zarr"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One of pytest-xdist's workers runs all tests of a file, which share fixtures.

    Tests with processes on ROS are many, long and alone, so that any worker runs the next one.
    """
    for item in items:
        is_alone = "ros" in getattr(item, "fixturenames", ())
        if not is_alone and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.location[0]))


@pytest.fixture(scope="session")
def demonstrations_path() -> Path:
    if not DEMONSTRATIONS.exists():
        pytest.skip(f"needs the PushT demonstrations at {DEMONSTRATIONS} (see README)")
    return DEMONSTRATIONS


PUSHT = load_task("pusht").task
TINY = PolicyConfig(down_dims=(8, 16), step_embed_dim=8, n_groups=4)


@pytest.fixture(scope="session")
def untrained() -> DiffusionPolicy:
    """A small untrained policy with PushT's shapes and px ranges, not to be changed."""
    torch.manual_seed(0)
    normalizer = Normalizer(
        Range(torch.full((20,), 10.0), torch.full((20,), 500.0)),
        Range(torch.tensor([12.0, 25.0]), torch.tensor([511.0, 505.0])),
    )
    return DiffusionPolicy(TINY.build_network(PUSHT).eval(), PUSHT, TINY, normalizer, provenance={"seed": 0})


@pytest.fixture
def policy(untrained: DiffusionPolicy) -> DiffusionPolicy:
    """One that a test may change."""
    return replace(untrained, network=deepcopy(untrained.network))


@pytest.fixture
def observations() -> torch.Tensor:
    return torch.rand((3, 2, 20), generator=torch.Generator().manual_seed(1)) * 490 + 10
