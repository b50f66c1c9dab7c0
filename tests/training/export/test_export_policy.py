from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from policy import DiffusionPolicy
from policy.checkpoint import file_sha256
from policy.exported import open_exported
from policy.exported.graph_files import Graph
from policy.runtime.chunk_function import ChunkFunction
from training.export import export_policy
from training.export.export_policy import main

SAMPLER = ["sampler.solver=ddim", "sampler.steps=1"]


@pytest.fixture(scope="module")
def checkpoint(untrained: DiffusionPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The least network: graphs of it take no time."""
    torch.manual_seed(0)
    config = replace(untrained.config, down_dims=(4,), step_embed_dim=4, n_groups=2)
    path = tmp_path_factory.mktemp("checkpoint") / "policy.safetensors"
    replace(untrained, network=config.build_network(untrained.task).eval(), config=config).save(path)
    return path


def test_a_file_is_checked_and_tells_its_origin(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "policy.xml"
    arguments = [f"checkpoint={checkpoint}", f"output={output}", "format=openvino", "observations=4"]
    assert main([*SAMPLER, *arguments, "episodes=1", "max_steps=2"]) == 0
    assert "largest difference from the policy" in capsys.readouterr().out
    description = open_exported(output).description
    assert description.provenance["checkpoint_sha256"] == file_sha256(checkpoint)
    assert description.provenance["policy"] == {"seed": 0}
    assert description.checked["observations"] == 4
    assert description.checked["largest_difference"] < 1e-4
    assert description.checked["reward"] == pytest.approx(description.checked["policy_reward"], abs=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.bin", "policy.xml"]


def test_a_file_that_differs_is_not_left(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = export_policy.build_graph

    def of_another(function: ChunkFunction, *arguments: Any, **options: Any) -> Graph:
        network = deepcopy(function.policy.network)
        with torch.no_grad():
            network.head[1].bias.add_(0.1)
        return original(ChunkFunction(replace(function.policy, network=network)), *arguments, **options)

    monkeypatch.setattr(export_policy, "build_graph", of_another)
    output = tmp_path / "policy.xml"
    assert main([*SAMPLER, f"checkpoint={checkpoint}", f"output={output}", "format=openvino"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {output}: differs from the policy by ")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_lower_precisions_come_near_and_say_how_near(
    checkpoint: Path, tmp_path: Path, precision: str, small_demonstrations: Path
) -> None:
    if precision == "int8":
        pytest.importorskip("nncf")
    output = tmp_path / "policy.xml"
    arguments = [f"checkpoint={checkpoint}", f"output={output}", "format=openvino", f"precision={precision}"]
    demonstrations = [
        f"demonstrations={small_demonstrations}",
        "task=pusht",
        "calibration=4",
        "observations=4",
    ]
    assert main([*SAMPLER, *arguments, *demonstrations]) == 0
    exported = open_exported(output)
    assert exported.description.precision == precision
    assert 0 < exported.description.checked["largest_difference"] < 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["sampler.method=picard", "sampler.stop.tolerance=0.5"],
            "fixed depth, and sampler.stop.tolerance=0.5",
        ),
        (["format=tensorrt"], "format must be one of onnx, openvino, got 'tensorrt'"),
        (["precision=int4"], "precision must be one of float32, float16, int8, got 'int4'"),
        (["precision=int8"], "precision=int8 needs demonstrations=… to be calibrated on"),
        (
            ["start=warm"],
            "start=warm needs sampler.parallel.warm_start, sampler.partial.steps or sampler.hand_over",
        ),
        (["start=warm", "episodes=1"], "episodes=… needs start=cold"),
        (["opset=9"], "opset must be in 18 … 23, got 9"),
        (["observations=0"], "observations must be in 1 … 10000, got 0"),
        (["sampler.method=pcm"], "sampler.method=pcm needs pcm=….safetensors"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    output = tmp_path / "policy.onnx"
    assert main([f"checkpoint={checkpoint}", f"output={output}", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_without_nncf_int8_says_so(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    small_demonstrations: Path,
) -> None:
    monkeypatch.setattr("policy.runtime.engine.find_spec", lambda name: None if name == "nncf" else object())
    arguments = [f"checkpoint={checkpoint}", f"output={tmp_path / 'policy.xml'}", "format=openvino"]
    int8 = ["precision=int8", f"demonstrations={small_demonstrations}", "task=pusht", "calibration=4"]
    assert main([*SAMPLER, *arguments, *int8]) == 1
    assert "precision=int8' needs the Python package nncf: pip install nncf" in capsys.readouterr().err
    assert not list(tmp_path.glob("policy.*"))
