"""Every example runs as its first lines say, from the root of the checkout."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from policy import DiffusionPolicy, SamplerConfig
from policy.exported import write_exported
from policy.exported.description import describe
from policy.exported.graph_files import build_graph, describe_graph
from policy.runtime.chunk_function import ChunkFunction

ROOT = Path(__file__).resolve().parents[2]


def run_example(name: str, *arguments: str) -> str:
    completed = subprocess.run(
        [sys.executable, f"examples/{name}", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def test_the_toy_draws_its_iterates(tmp_path: Path) -> None:
    picture = tmp_path / "pictures" / "toy.png"

    assert str(picture) in run_example("picard_toy.py", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_own_solver_has_one_answer_by_both_methods() -> None:
    errors = [float(error) for error in re.findall(r"error (\S+)", run_example("own_solver.py"))]

    assert len(errors) == 10
    assert errors[0] > 0.1
    assert errors[-1] < 1e-5


def test_the_policy_in_a_loop_pushes_the_block_onto_its_goal() -> None:
    reward = re.search(r"largest reward (\S+)", run_example("policy_loop.py"))

    assert reward is not None
    assert float(reward[1]) > 0.5


def test_keypoints_of_gym_pusht_are_on_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gym_pusht", reason="needs gym-pusht 0.1.8, which needs pymunk < 7")
    monkeypatch.syspath_prepend(ROOT / "examples")
    env = gymnasium.make("gym_pusht_keypoints:GymPushTKeypoints-v0")
    state = [100.0, 200.0, 300.0, 250.0, 1.0]  # pusher x, y, block x, y, angle

    observation, info = env.reset(options={"reset_to_state": state})

    shapes = env.unwrapped._block_shapes  # type: ignore[attr-defined]
    points = observation[:18].reshape(9, 2).tolist()
    distances = [min(shape.point_query(point).distance for shape in shapes) for point in points]
    assert max(distances) < 4  # px: the published keypoints are up to 3 px outside
    np.testing.assert_array_equal(observation[18:], info["pos_agent"])


def test_an_exported_policy_runs_with_onnxruntime_alone(untrained: DiffusionPolicy, tmp_path: Path) -> None:
    for library in ("onnxruntime", "onnxscript"):
        pytest.importorskip(library)
    config = replace(
        untrained.config, down_dims=(4,), step_embed_dim=4, n_groups=2
    )  # its graph takes no time
    network = config.build_network(untrained.task).eval()
    sampler = SamplerConfig("sequential", "ddpm", 1)
    function = ChunkFunction(replace(untrained, network=network, config=config, sampler=sampler))
    graph = build_graph(function, "onnx")
    describe_graph(graph, describe(function, precision="float32", provenance={}))
    with write_exported(tmp_path / "policy.onnx", graph):
        pass

    said = run_example("export/run_onnxruntime.py", str(tmp_path / "policy.onnx"))

    assert "pusht at 10 Hz, 1 network evaluations in sequence" in said
    assert "further_noise ['batch', 1, 16, 2]" in said
    assert re.search(r"chunk \(1, 8, 2\), first command .* \['px', 'px'\]", said)


def test_the_example_with_onnxruntime_imports_nothing_of_this_package() -> None:
    tree = ast.parse((ROOT / "examples" / "export" / "run_onnxruntime.py").read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}

    assert imported == {"json", "numpy", "onnxruntime", "sys", "time"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
