from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from policy import CheckpointError, DiffusionPolicy
from policy.policy_file import POLICY_FORMAT
from policy.task import task_values


@pytest.fixture
def checkpoint(policy: DiffusionPolicy, tmp_path: Path) -> Path:
    path = tmp_path / "policy.safetensors"
    policy.save(path)
    return path


def rewrite(
    path: Path, policy: DiffusionPolicy, header: dict | None = None, **tensors: torch.Tensor | None
) -> None:
    """Write the policy's checkpoint again with another header or other tensors (None removes one)."""
    state = {name: tensor.clone() for name, tensor in policy.network.state_dict().items()} | tensors
    if header is None:
        policy.save(path)
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            metadata = file.metadata()
    else:
        metadata = {"format": POLICY_FORMAT, "header": json.dumps(header)}
    save_file({name: t for name, t in state.items() if t is not None}, path, metadata)


def test_a_message_that_quotes_a_file_is_one_short_line() -> None:
    message = str(CheckpointError("file.safetensors: holds " + "x\n" * 5000))
    assert message.startswith("file.safetensors: holds x x")
    assert len(message) == 1001
    assert "\n" not in message


def test_loaded_policy_equals_the_saved_one(
    policy: DiffusionPolicy, checkpoint: Path, observations: torch.Tensor
) -> None:
    loaded = DiffusionPolicy.load(checkpoint)
    assert loaded.task == policy.task
    assert loaded.config == policy.config
    assert loaded.provenance == policy.provenance
    noise = torch.randn((3, 16, 2), generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        loaded.predict_chunk(observations, noise=noise), policy.predict_chunk(observations, noise=noise)
    )
    assert not loaded.network.training


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors: no such checkpoint file"):
        DiffusionPolicy.load(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_is_refused_without_running_it(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "pickle.safetensors"
    torch.save({"weights": torch.zeros(3)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"pickle\.safetensors: a pickled file, refused"):
        DiffusionPolicy.load(path)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_truncated_file_is_refused(checkpoint: Path, kept: float) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(kept if kept >= 1 or kept == 0 else kept * len(content))])
    with pytest.raises(CheckpointError, match=r"policy\.safetensors: truncated or not a safetensors file"):
        DiffusionPolicy.load(checkpoint)


def test_another_format_is_refused(checkpoint: Path) -> None:
    save_file({"weight": torch.zeros(3)}, checkpoint, {"format": "something/1"})
    with pytest.raises(
        CheckpointError, match=r"holds format 'something/1', need 'pcm_policy\.diffusion_policy/2'"
    ):
        DiffusionPolicy.load(checkpoint)


def test_a_checkpoint_without_a_task_is_refused_with_what_to_do(checkpoint: Path) -> None:
    save_file({"weight": torch.zeros(3)}, checkpoint, {"format": "pcm_policy.diffusion_policy/1"})
    with pytest.raises(
        CheckpointError, match="does not say what it observes and commands: train the policy again"
    ) as refused:
        DiffusionPolicy.load(checkpoint)
    assert "\n" not in str(refused.value)


def test_weights_of_another_architecture_are_named(policy: DiffusionPolicy, checkpoint: Path) -> None:
    name = "head.1.bias"
    rewrite(checkpoint, policy, **{name: None})
    with pytest.raises(CheckpointError, match=r"wrong architecture, weights 'head\.1\.bias' are missing"):
        DiffusionPolicy.load(checkpoint)
    rewrite(checkpoint, policy, **{name: torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"'head\.1\.bias' have shape \(3,\), need \(2,\)"):
        DiffusionPolicy.load(checkpoint)
    rewrite(checkpoint, policy, extra=torch.zeros(3))
    with pytest.raises(CheckpointError, match=r"weights 'extra' are unexpected"):
        DiffusionPolicy.load(checkpoint)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(
    policy: DiffusionPolicy, checkpoint: Path, value: float
) -> None:
    rewrite(checkpoint, policy, **{"head.1.bias": torch.tensor([0.0, value])})
    with pytest.raises(CheckpointError, match=r"policy\.safetensors: weights 'head\.1\.bias' are not finite"):
        DiffusionPolicy.load(checkpoint)


@pytest.mark.parametrize(
    "header",
    [{}, {"config": {"horizon": 16}}, {"config": {"no_such_key": 1}}, {"config": 3}, {"task": 3}],
)
def test_bad_header_is_refused(policy: DiffusionPolicy, checkpoint: Path, header: dict) -> None:
    rewrite(checkpoint, policy, {"task": task_values(policy.task), "normalizer": {}, **header})
    with pytest.raises(CheckpointError, match=r"policy\.safetensors: bad header"):
        DiffusionPolicy.load(checkpoint)


RANGE = {"scaling": "limits", "minimum": [0.0, 0.0], "maximum": [1.0, 1.0]}
KEYPOINTS = {"scaling": "limits", "minimum": [0.0] * 18, "maximum": [1.0] * 18}


@pytest.mark.parametrize(
    ("normalizer", "message"),
    [
        ([], "list indices must be integers"),
        ({"observation": 3, "action": RANGE}, "not iterable"),
        (
            {"observation": {"keypoints": RANGE, "pusher": RANGE}},
            r"the minimum of keypoints has shape \(2,\)",
        ),
        ({"observation": {"keypoints": KEYPOINTS}, "action": RANGE}, "has the parts keypoints, the task has"),
        ({"observation": {"keypoints": KEYPOINTS, "pusher": RANGE}}, "'action' is missing"),
        ({"observation": {"keypoints": KEYPOINTS, "pusher": {}}}, "'scaling' is missing"),
        (
            {"observation": {"keypoints": KEYPOINTS, "pusher": {**RANGE, "maximum": [-1.0, 1.0]}}},
            "pusher: limits of a range must not decrease, dimension 0 does",
        ),
    ],
)
def test_ranges_that_do_not_fit_the_policy_are_refused(
    policy: DiffusionPolicy, checkpoint: Path, normalizer: Any, message: str
) -> None:
    described = {"task": task_values(policy.task), "config": asdict(policy.config)}
    rewrite(checkpoint, policy, {**described, "normalizer": normalizer})
    with pytest.raises(CheckpointError, match=rf"policy\.safetensors: bad header \(.*{message}"):
        DiffusionPolicy.load(checkpoint)


def test_failed_save_keeps_the_old_file(
    policy: DiffusionPolicy, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = checkpoint.read_bytes()

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("policy.checkpoint.os.fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        policy.save(checkpoint)
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ["policy.safetensors"]
