"""ROS tests use the real thing: processes that talk over DDS, each test in a domain of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from policy import DiffusionPolicy, Normalizer, PolicyConfig, Range
from training.data.task_file import load_task

try:
    import rclpy  # noqa: F401
except ImportError as error:
    MISSING = f"needs ROS 2, sourced and for this Python, see docs/ros.md ({error})"
else:
    MISSING = ""

SHAPES = {"tiny": (8, 16), "medium": (64, 128, 256)}


class RosModule(pytest.Module):
    """A test module that is skipped where ROS is not there and it imports it, or has tests with processes."""

    def collect(self) -> list[Any]:
        try:
            items = list(super().collect())
        except self.CollectError as error:
            if not MISSING or not isinstance(error.__cause__, ImportError):
                raise
            items = []
        if MISSING and (not items or any("ros" in getattr(item, "fixturenames", ()) for item in items)):
            # Skipped in this one place, all modules make one line in pytest's report.
            pytest.skip(MISSING, allow_module_level=True)
        return items


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    return RosModule.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def ros() -> None:
    """What the modules are known by whose tests need ROS."""


@pytest.fixture
def graph(ros: None, tmp_path: Path) -> Iterator[Any]:
    from ros_processes import ProcessGraph

    graph = ProcessGraph(tmp_path)
    yield graph
    graph.close()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with untrained policies of PushT's shapes and px ranges: tiny.safetensors, medium.safetensors."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for size, down_dims in SHAPES.items():
        torch.manual_seed(0)
        config = PolicyConfig(down_dims=down_dims, step_embed_dim=8, n_groups=4)
        normalizer = Normalizer(
            Range(torch.full((20,), 10.0), torch.full((20,), 500.0)),
            Range(torch.tensor([12.0, 25.0]), torch.tensor([511.0, 505.0])),
        )
        task = load_task("pusht").task
        policy = DiffusionPolicy(
            config.build_network(task).eval(), task, config, normalizer, provenance={"seed": 0}
        )
        policy.save(folder / f"{size}.safetensors")
    return folder


@pytest.fixture
def checkpoint(checkpoints: Path) -> Path:
    """A small untrained policy, quick even in many samples; its actions go all over the workspace."""
    return checkpoints / "tiny.safetensors"
