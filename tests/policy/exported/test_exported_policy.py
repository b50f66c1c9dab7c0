from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from policy import DiffusionPolicy, ParallelConfig, PicardConfig, SamplerConfig, StopConfig
from policy.exported import ExportError, open_exported, write_exported
from policy.exported.description import METADATA_KEY, describe, description_from_json
from policy.exported.graph_files import SUFFIXES, Graph, build_graph, describe_graph, save_graph
from policy.runtime import EngineError
from policy.runtime.chunk_function import ChunkFunction

WARM = SamplerConfig(
    "picard",
    "dpmpp_2m",
    2,
    stop=StopConfig(1),
    parallel=ParallelConfig(warm_start="actions_and_noise"),
    picard=PicardConfig("semilinear"),
)
PROVENANCE = {"checkpoint_sha256": "1f"}


@pytest.fixture(scope="module")
def least(untrained: DiffusionPolicy) -> DiffusionPolicy:
    """The least network: graphs of it take no time."""
    torch.manual_seed(0)
    config = replace(untrained.config, down_dims=(4,), step_embed_dim=4, n_groups=2)
    return replace(untrained, network=config.build_network(untrained.task).eval(), config=config)


def written(policy: DiffusionPolicy, format: str, path: Path, start: str) -> Path:
    if format == "onnx" and find_spec("onnxscript") is None:
        pytest.skip("format onnx needs the Python package onnxscript: pip install onnxscript")
    function = ChunkFunction(policy, start=start)
    graph = build_graph(function, format)
    describe_graph(graph, describe(function, precision="float32", provenance=PROVENANCE))
    with write_exported(path.with_suffix(SUFFIXES[format]), graph):
        pass
    return path.with_suffix(SUFFIXES[format])


@pytest.fixture(scope="module", params=SUFFIXES)
def cold(request: Any, least: DiffusionPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DDPM, which draws noise in each step."""
    policy = least.with_sampler(SamplerConfig("sequential", "ddpm", 2))
    return written(policy, request.param, tmp_path_factory.mktemp("cold") / "policy", "cold")


def test_a_file_gives_the_policys_answer_for_any_batch(
    cold: Path, least: DiffusionPolicy, observations: Tensor
) -> None:
    exported = open_exported(cold)
    policy = least.with_sampler(SamplerConfig("sequential", "ddpm", 2))
    for batch in (observations, observations[:1]):
        expected, found = (
            server.predict(batch, generator=torch.Generator().manual_seed(7)) for server in (policy, exported)
        )
        for name in ("chunk", "actions", "residual", "noise"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-2, rtol=0)
        assert (found.depth, found.network_evaluations) == (expected.depth, expected.network_evaluations)
    chunk = exported.predict_chunk(observations, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(
        chunk,
        policy.predict_chunk(observations, generator=torch.Generator().manual_seed(7)),
        atol=1e-2,
        rtol=0,
    )


def test_a_file_says_what_it_is(cold: Path, least: DiffusionPolicy) -> None:
    exported = open_exported(cold)
    description = exported.description
    assert [(tensor.name, tensor.shape) for tensor in description.inputs] == [
        ("observations", (2, 20)),
        ("noise", (16, 2)),
        ("further_noise", (2, 16, 2)),
    ]
    assert description.inputs[0].units == ("px",) * 20
    assert description.outputs[0].numbers == least.task.action.names
    assert exported.task == least.task
    assert [tensor.name for tensor in description.outputs] == ["chunk", "actions", "residual"]
    assert description.provenance == PROVENANCE
    assert exported.sampler.solver == "ddpm"
    assert exported.config.down_dims == (4,)
    assert sorted(path.suffix for path in cold.parent.iterdir()) in ([".onnx"], [".bin", ".xml"])


def test_onnx_shows_units_and_a_free_batch(cold: Path) -> None:
    if cold.suffix != ".onnx":
        pytest.skip("of ONNX alone")
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    first = onnxruntime.InferenceSession(str(cold)).get_inputs()[0]
    assert (first.name, first.shape, first.type) == ("observations", ["batch", 2, 20], "tensor(float)")
    graph = onnx.load(cold).graph
    assert graph.input[0].doc_string.startswith("newest observations, oldest first: ")
    assert graph.output[0].doc_string.endswith(" [px]")


@pytest.mark.parametrize("format", SUFFIXES)
def test_a_warm_file_goes_on_from_the_chunk_before(
    least: DiffusionPolicy, observations: Tensor, format: str, tmp_path: Path
) -> None:
    policy = least.with_sampler(WARM)
    exported = open_exported(written(policy, format, tmp_path / "policy", "warm"))
    assert exported.sampler.uses_previous
    previous = policy.predict(observations, generator=torch.Generator().manual_seed(1))
    noise = torch.randn((3, 16, 2), generator=torch.Generator().manual_seed(2))
    expected, found = (
        server.predict(observations, noise=noise, previous=previous) for server in (policy, exported)
    )
    torch.testing.assert_close(found.actions, expected.actions, atol=1e-2, rtol=0)
    torch.testing.assert_close(found.noise, expected.noise, atol=0, rtol=0)
    with pytest.raises(ValueError, match="needs a previous prediction; begin with one of start=cold"):
        exported.predict(observations)
    with pytest.raises(ValueError, match="executed must be 8, as exported, got 4"):
        exported.predict(observations, previous=previous, executed=4)
    with pytest.raises(ValueError, match="previous_actions has batch size 3, observations have 1"):
        exported.predict(observations[:1], previous=previous)


def test_wrong_observations_are_refused(cold: Path, observations: Tensor) -> None:
    exported = open_exported(cold)
    with pytest.raises(ValueError, match=r"observations must have shape \(B, 2, 20\), got \(3, 2, 19\)"):
        exported.predict(observations[..., :19])
    with pytest.raises(ValueError, match=r"observations.*is nan, must be finite"):
        exported.predict(torch.full_like(observations, torch.nan))


def rewritten(cold: Path, path: Path, text: str | None) -> Path:
    """The file with another description."""
    path = path.with_suffix(cold.suffix)
    if cold.suffix == ".onnx":
        model = pytest.importorskip("onnx").load(cold)
        del model.metadata_props[:]
        if text is not None:
            model.metadata_props.add(key=METADATA_KEY, value=text)
        save_graph(Graph("onnx", model), path)
        return path
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(cold).clone()
    model.set_rt_info(text or "", [METADATA_KEY if text is not None else "other", "description"])
    if text is None:
        del model.rt_info[METADATA_KEY]
    save_graph(Graph("openvino", model), path)
    return path


def test_files_of_something_else_or_another_version_are_refused(cold: Path, tmp_path: Path) -> None:
    text = open_exported(cold).description.to_json()
    other = text.replace("exported_policy/2", "exported_policy/9")
    with pytest.raises(ExportError, match=r"exported_policy/9', need .*; export it again"):
        open_exported(rewritten(cold, tmp_path / "other", other))
    with pytest.raises(ExportError, match="no policy of pcm-export"):
        open_exported(rewritten(cold, tmp_path / "foreign", None))
    with pytest.raises(ExportError, match="no such file"):
        open_exported(tmp_path / "missing.onnx")
    (tmp_path / "policy.safetensors").write_bytes(b"")
    with pytest.raises(ExportError, match=r"must end with \.onnx or \.xml"):
        open_exported(tmp_path / "policy.safetensors")


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_truncated_file_is_refused(cold: Path, tmp_path: Path, size: int) -> None:
    damaged = tmp_path / cold.name
    damaged.write_bytes(cold.read_bytes()[:size])
    with pytest.raises(ExportError, match=f"{damaged}: (ONNX Runtime|OpenVINO) cannot open it"):
        open_exported(damaged)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config", {"horizon": 0}),
        ("sampler", 3),
        ("inputs", None),
        ("inputs", [{"name": "x"}]),
        ("observed_minimum", [1]),
        ("new", 1),
    ],
)
def test_a_damaged_description_is_named(cold: Path, key: str, value: Any) -> None:
    values = json.loads(open_exported(cold).description.to_json())
    with pytest.raises(ExportError, match=r"policy\.onnx: bad metadata"):
        description_from_json(json.dumps(values | {key: value}), "policy.onnx")


def test_what_cannot_be_written_is_refused(least: DiffusionPolicy, tmp_path: Path) -> None:
    function = ChunkFunction(least.with_sampler(SamplerConfig("sequential", "ddim", 1)))
    with pytest.raises(ExportError, match="format must be one of onnx, openvino, got 'tflite'"):
        build_graph(function, "tflite")
    with pytest.raises(ExportError, match="opset must be in 18 … 23, got 9"):
        build_graph(function, "onnx", opset=9)
    with (
        pytest.raises(ExportError, match=r"output of format=onnx must end with \.onnx"),
        write_exported(tmp_path / "policy.pb", Graph("onnx", None)),
    ):
        pass


def test_a_library_that_is_missing_is_named(
    least: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    function = ChunkFunction(least.with_sampler(SamplerConfig("sequential", "ddim", 1)))
    monkeypatch.setattr("policy.runtime.engine.find_spec", lambda _: None)
    for format in SUFFIXES:
        with pytest.raises(EngineError, match=f"'format={format}' needs the Python package"):
            build_graph(function, format)
        file = tmp_path / f"policy{SUFFIXES[format]}"
        file.write_bytes(b"")
        with pytest.raises(EngineError, match="needs the Python package"):
            open_exported(file)


def test_a_provider_that_is_missing_is_named(cold: Path) -> None:
    expected = (
        "no TensorrtExecutionProvider here" if cold.suffix == ".onnx" else "providers are ONNX Runtime's"
    )
    with pytest.raises(ExportError, match=expected):
        open_exported(cold, providers=("TensorrtExecutionProvider",))
