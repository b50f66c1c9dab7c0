"""Files that arrive damaged or hostile: each is refused with its name, before memory is taken for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from policy import CheckpointError, DiffusionPolicy
from policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, tensors_sha256
from policy.pcm import PCM, load_pcm, save_pcm
from policy.policy_file import POLICY_FORMAT

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


@pytest.fixture
def checkpoint(policy: DiffusionPolicy, tmp_path: Path) -> Path:
    path = tmp_path / "policy.safetensors"
    policy.save(path)
    return path


def change(path: Path, header: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of a file, and its hash: whoever makes hostile files makes their hashes too."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    changed = json.loads(metadata["header"])
    header(changed)
    save_checkpoint(path, Checkpoint(load_file(path), changed), metadata["format"])


def test_every_flipped_bit_is_noticed(policy: DiffusionPolicy, checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(0)
    places = [*rng.integers(start, len(content), 60), *rng.integers(8, start, 60), start, len(content) - 1]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        checkpoint.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"policy\.safetensors"):
            DiffusionPolicy.load(checkpoint)


@pytest.mark.parametrize("key", [b'"tensors_sha256"', b'"header_sha256"'])
def test_a_damaged_name_of_a_hash_does_not_make_an_old_file(checkpoint: Path, key: bytes) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes().replace(key, b'"x' + key[2:]))
    with pytest.raises(CheckpointError, match=r"policy\.safetensors: damaged"):
        DiffusionPolicy.load(checkpoint)


def test_a_flipped_bit_in_a_pcm_is_noticed(
    policy: DiffusionPolicy, make_pcm: Callable[..., PCM], tmp_path: Path
) -> None:
    path = tmp_path / "pcm.safetensors"
    for weights in ("lora", "full"):
        save_pcm(path, make_pcm(policy, weights))
        content = bytearray(path.read_bytes())
        content[-40] ^= 1
        path.write_bytes(content)
        with pytest.raises(
            CheckpointError, match=r"pcm\.safetensors: damaged, .* another sha256 than was saved"
        ):
            load_pcm(path, policy.network)


def test_an_old_file_without_a_hash_loads_with_a_warning(policy: DiffusionPolicy, checkpoint: Path) -> None:
    with safe_open(checkpoint, "pt") as file:
        metadata = {name: file.metadata()[name] for name in ("format", "header")}
    save_file(load_file(checkpoint), checkpoint, metadata)
    with pytest.warns(UserWarning, match=r"policy\.safetensors: an old file without a hash"):
        loaded = DiffusionPolicy.load(checkpoint)
    assert tensors_sha256(loaded.network.state_dict()) == tensors_sha256(policy.network.state_dict())


@pytest.mark.parametrize(
    "name",
    [
        "pusht_mirror",
        "pusht_mirror_pcm",
        "pusht_mirror_pcm_lora",
        "pusht_small",
        "pusht_small_pcm_lora",
        "pusht_small_pcm_lora_t16",
    ],
)
def test_shipped_files_have_their_hash(name: str) -> None:
    path = CHECKPOINTS / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["tensors_sha256"] == tensors_sha256(load_file(path))
    load_checkpoint(path, metadata["format"])  # a warning would be an error


@pytest.mark.parametrize("dtype", [torch.int32, torch.float64, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_of_another_type_are_refused(
    policy: DiffusionPolicy, checkpoint: Path, dtype: torch.dtype
) -> None:
    with safe_open(checkpoint, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(checkpoint)
    tensors["head.1.bias"] = tensors["head.1.bias"].to(dtype)
    save_file(tensors, checkpoint, metadata)
    with pytest.raises(CheckpointError, match=r"policy\.safetensors: .*'head\.1\.bias' have .*, need "):
        DiffusionPolicy.load(checkpoint)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("horizon", 16.0, r"horizon must be a whole number, got 16\.0"),
        ("action_steps", 1.5, r"action_steps must be a whole number, got 1\.5"),
        ("n_groups", False, "n_groups must be a whole number, got False"),
        ("n_groups", 0, "n_groups must be at least 1, got 0"),
        ("kernel_size", "5", "kernel_size must be a whole number, got '5'"),
        ("down_dims", "88", "down_dims must be a list of whole numbers, got '88'"),
        ("down_dims", 8, "down_dims must be a list of whole numbers, got 8"),
        ("down_dims", [8, None], "down_dims must be a whole number, got None"),
        ("down_dims", [], "down_dims must have 1 … 8 levels, got 0"),
        ("horizon", -16, "horizon must be at least 1, got -16"),
    ],
)
def test_numbers_of_the_wrong_kind_are_named(checkpoint: Path, key: str, value: Any, message: str) -> None:
    change(checkpoint, lambda header: header["config"].update({key: value}))
    with pytest.raises(CheckpointError, match=rf"policy\.safetensors: bad header \({message}"):
        DiffusionPolicy.load(checkpoint)


@pytest.mark.parametrize(
    "header",
    [
        "[" * 100000,
        '{"config":' * 50000,
        "[]",
        "3",
        "null",
        '{"config": {"horizon": 1e999}}',
        "9" * 10000,
        "",
    ],
)
def test_a_header_that_is_no_object_is_refused(checkpoint: Path, header: str) -> None:
    save_file(load_file(checkpoint), checkpoint, {"format": POLICY_FORMAT, "header": header})
    with pytest.raises(CheckpointError, match=r"policy\.safetensors: (unreadable|bad) header"):
        DiffusionPolicy.load(checkpoint)


def test_a_huge_header_is_refused(checkpoint: Path) -> None:
    save_file(load_file(checkpoint), checkpoint, {"format": POLICY_FORMAT, "header": "[" + "0," * 3_000_000})
    with pytest.raises(CheckpointError, match=r"header of \d+ bytes, at most 4194304 are allowed"):
        DiffusionPolicy.load(checkpoint)


# What is loaded, the memory that it took in MB, and its seconds.
LOAD = """
import resource, sys, time
from policy import CheckpointError, DiffusionPolicy
from policy.pcm import load_pcm
policy = DiffusionPolicy.load(sys.argv[1])
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
for path in sys.argv[2:]:
    before, started = peak(), time.process_time()
    try:
        load_pcm(path, policy.network) if "pcm" in path else DiffusionPolicy.load(path)
        print("loaded", path)
    except CheckpointError as error:
        print(f"refused {peak() - before:.0f} {time.process_time() - started:.2f} {error}")
"""


def test_absurd_sizes_are_refused_before_memory_is_taken(
    policy: DiffusionPolicy, make_pcm: Callable[..., PCM], checkpoint: Path, tmp_path: Path
) -> None:
    absurd: list[tuple[str, Any]] = [
        ("step_embed_dim", 16384),
        ("step_embed_dim", 8192),
        ("down_dims", [8192, 8192]),
        ("down_dims", [8] * 1_000_000),
        ("kernel_size", 100001),
        ("kernel_size", 255),
        ("observation_steps", 1_000_000),
        ("num_train_timesteps", 10**9),
        ("horizon", 2**40),
    ]
    paths = []
    for index, (key, value) in enumerate(absurd):
        paths.append(tmp_path / f"{index}.safetensors")
        changed = {**asdict(policy.config), key: value}
        save_checkpoint(paths[-1], _with_config(checkpoint, changed), POLICY_FORMAT)
    for rank in (8192, 1_000_000, 10**30):
        paths.append(tmp_path / f"pcm{rank}.safetensors")
        save_pcm(paths[-1], make_pcm(policy, "lora"))
        change(paths[-1], lambda header, rank=rank: header.update(rank=rank))  # type: ignore[misc]
    result = subprocess.run(
        [sys.executable, "-c", LOAD, str(checkpoint), *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = result.stdout.splitlines()
    assert len(lines) == len(paths)
    for path, line in zip(paths, lines, strict=True):
        refused, memory, seconds, message = line.split(" ", 3)
        assert refused == "refused", line
        assert float(memory) < 200, line
        assert float(seconds) < 1, line
        assert message.startswith(f"{path}: "), line
        assert len(message) < 400 + len(str(path))


def _with_config(checkpoint: Path, config: dict[str, Any]) -> Checkpoint:
    with safe_open(checkpoint, "pt") as file:
        header = json.loads(file.metadata()["header"])
    return Checkpoint(load_file(checkpoint), {**header, "config": config})


def test_a_prediction_that_is_not_finite_is_an_error(
    policy: DiffusionPolicy, observations: torch.Tensor
) -> None:
    """Weights that are finite, and so large that what they compute is not."""
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.mul_(1e30)
    with pytest.raises(RuntimeError, match="the prediction is not finite"):
        policy.predict(observations)
