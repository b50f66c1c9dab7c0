"""Commands that are run to their end, on the smallest of data, with one of their files damaged."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.fuzz.case import Family, Fault, Inject, Mishandled, Outcome
from tests.fuzz.families.checkpoints import tiny_policy
from tests.fuzz.families.command_options import check_refusal
from tests.fuzz.families.demonstrations import write_store
from tests.fuzz.safetensors_faults import inject_file_fault
from tests.fuzz.store_faults import inject_store_fault
from training.evaluation import evaluate
from training.pcm import build_trajectories, train_pcm
from training.policy import estimate_covariance, train_policy


@dataclass(frozen=True)
class Body:
    """A command to run.

    Attributes:
        main: its entry point.
        inputs: its keys that name files to read, each with the name of a file in the folder of all cases.
        output: its key that names what it writes.
        arguments: all others.
    """

    main: Callable[[list[str]], int]
    inputs: tuple[tuple[str, str], ...]
    output: str
    arguments: tuple[str, ...] = ()


TRAINING = (
    "training.steps=1",
    "training.batch_size=4",
    "training.log_every=1",
    "training.checkpoint_every=1",
    "training.validate_every=1",
)
BODIES = {
    "evaluate": Body(
        evaluate.main,
        (("checkpoint", "policy.safetensors"),),
        "output_dir",
        ("episodes=1", "max_steps=1", "recorded_episodes=0", "sampler.steps=1"),
    ),
    "estimate_covariance": Body(
        estimate_covariance.main,
        (("checkpoint", "policy.safetensors"), ("demonstrations", "demonstrations.zarr")),
        "output",
        ("observations=2", "samples=2", "steps=1"),
    ),
    "build_trajectories": Body(
        build_trajectories.main,
        (("checkpoint", "policy.safetensors"), ("demonstrations", "demonstrations.zarr")),
        "output",
        ("samples=4", "batch_size=2", "sampler.steps=4", "iterations=2", "held_out_episodes=1"),
    ),
    "train_pcm": Body(
        train_pcm.main,
        (("checkpoint", "policy.safetensors"), ("trajectories", "trajectories.zarr")),
        "output_dir",
        ("epochs=1", "rank=1", "base_iterations=0", "held_out_samples=2", "training.batch_size=2"),
    ),
    "train_policy": Body(
        train_policy.main,
        (("demonstrations", "demonstrations.zarr"),),
        "output_dir",
        (
            *(
                "policy.down_dims=[8,16]",
                "policy.step_embed_dim=8",
                "policy.n_groups=4",
                "rollout_episodes=0",
            ),
            *("held_out_episodes=1", *TRAINING),
        ),
    ),
}
OUTPUTS = (
    "new",
    "foreign folder",
    "file",
    "below a file",
    "full device",
    "long name",
    "link to nowhere",
    "empty",
)


def prepare(folder: Path) -> Inject:
    tiny_policy().save(folder / "policy.safetensors")
    write_store(folder / "demonstrations.zarr")
    good = BODIES["build_trajectories"]
    arguments = [f"{key}={folder / name}" for key, name in good.inputs]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = good.main([*arguments, f"output={folder / 'trajectories.zarr'}", *good.arguments])
    assert status == 0

    def inject(rng: np.random.Generator, case: Path) -> Fault:
        name = sorted(BODIES)[rng.integers(len(BODIES))]
        body = BODIES[name]
        files = {key: folder / file for key, file in body.inputs}
        output = case / "output"
        if rng.random() < 0.25:
            kind = str(rng.choice(OUTPUTS))
            output, culprit, text = _output(kind, output), output.name, f"{body.output} is {kind}"
        else:
            key, file = body.inputs[rng.integers(len(body.inputs))]
            files[key] = case / file
            fault = inject_file_fault if file.endswith("safetensors") else inject_store_fault
            said = fault(rng, folder / file, files[key])
            text, culprit = said if isinstance(said, str) else said[0], file
        arguments = [*(f"{key}={file}" for key, file in files.items()), f"{body.output}={output}"]
        return Fault(f"{name}, {text}", lambda: _run(body, [*arguments, *body.arguments], culprit))

    return inject


def _output(kind: str, path: Path) -> Path:
    """Where a command shall write; something is in its way."""
    if kind == "foreign folder":
        path.mkdir()
        (path / "thesis.txt").write_text("mine")
    elif kind == "file":
        path.write_text("mine")
    elif kind == "below a file":
        path.write_text("mine")
        return path / "below"
    elif kind == "full device":
        return Path("/proc/output")
    elif kind == "long name":
        return path.with_name("output" + "x" * 300)
    elif kind == "link to nowhere":
        path.symlink_to("nowhere/at/all")
    elif kind == "empty":
        path.mkdir()
    return path


def _run(body: Body, arguments: list[str], culprit: str) -> Outcome:
    heard = io.StringIO()
    with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
        status = body.main(arguments)
    if status == 0:
        return "accepted"
    said = heard.getvalue()
    check_refusal(status, said)
    if culprit not in said.splitlines()[-1]:
        raise Mishandled(f"the error does not name {culprit}: {said.splitlines()[-1]!r}")
    return "refused"


COMMAND_BODIES = Family("command_bodies", 0.02, prepare, most_seconds=20.0)
