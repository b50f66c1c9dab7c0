"""What reports share: what they load, where they keep measured rows, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from pandas import DataFrame
from torch import Tensor

from policy import DiffusionPolicy, Task
from policy.atomic_write import atomic_write
from policy.checkpoint import file_sha256
from policy.runtime import PLAIN, best_engine
from training.benchmark.config import BenchmarkConfig
from training.benchmark.row_cache import Row, RowCache
from training.data.demonstrations import Demonstrations, load_demonstrations
from training.data.features import with_features
from training.data.windows import policy_windows, split_episodes
from training.distributed import choose_device
from training.provenance import code_version, command_line, machine

LIBRARIES = ("gymnasium", "numpy", "pymunk", "torch")


def load_policy(config: BenchmarkConfig) -> DiffusionPolicy:
    """The checkpoint's policy on the configured device.

    Raises:
        ValueError: if it has no covariance, which preconditioned Picard iteration needs.
    """
    policy = DiffusionPolicy.load(config.checkpoint, choose_device(config.device))
    if policy.covariance is None:
        raise ValueError(f"{config.checkpoint} has no covariance; add it with pcm-estimate-covariance")
    return policy


def read_demonstrations(config: BenchmarkConfig, task: Task) -> Demonstrations:
    """The configured demonstrations of a policy's task.

    Raises:
        ValueError: if there are none, or they do not fit the task.
    """
    if config.demonstrations is None:
        raise ValueError(f"demonstrations=… is required by report={config.report} (--help explains the keys)")
    return load_demonstrations(config.demonstrations, task=config.task, policy_task=task)


def held_out_observations(config: BenchmarkConfig, policy: DiffusionPolicy) -> Tensor:
    """(N, observation_steps, observation_dim) in the task's units, drawn from demonstrations that training held out."""
    demonstrations = read_demonstrations(config, policy.task)
    _, held_out = split_episodes(len(demonstrations.episode_ends), config.held_out_episodes, seed=0)
    observations = policy_windows(with_features(demonstrations, policy), held_out, policy.config).observations
    generator = torch.Generator().manual_seed(config.seed)
    return observations[torch.randperm(len(observations), generator=generator)[: config.observations]]


def open_cache(config: BenchmarkConfig, policy: DiffusionPolicy, **decisive: Any) -> RowCache:
    """The report's measured rows, all of which depend on the checkpoint, the device and what else is decisive."""
    device = machine(policy.solver.a.device)["device"]
    shared = {"checkpoint_sha256": file_sha256(config.checkpoint), "device": device, **decisive}
    return RowCache(Path(config.output_dir) / f"{config.report}_rows", shared)


def rollout_engine(config: BenchmarkConfig, policy: DiffusionPolicy) -> dict[str, str]:
    """What decides a rollout beside its sampler and seeds; nothing for plain PyTorch, as in older rows."""
    engine = best_engine(policy) if config.engine == "auto" else config.engine
    return {} if engine == PLAIN else {"engine": engine}


def write_report(
    config: BenchmarkConfig,
    rows: DataFrame,
    *,
    title: str,
    introduction: str,
    tables: str,
    figures: Mapping[str, Figure] | None = None,
    measured: Sequence[Row] = (),
    files: Mapping[str, Any] | None = None,
    libraries: Sequence[str] = LIBRARIES,
) -> None:
    """Write `<report>.md`, `.csv` and pictures into the output directory, all or nothing, and print the tables.

    Args:
        config: of this run.
        rows: of the CSV, unrounded.
        title, introduction, tables: of the Markdown page.
        figures: pictures by what follows the report's name in theirs, such as "" or "_heatmap".
        measured: rows of the cache, whose code versions the page names.
        files: hashes of files that the page names, beside the checkpoint and `pcm`.
        libraries: distributions whose versions the page names.
    """
    page = Path(config.output_dir) / f"{config.report}.md"
    pictures = {page.with_name(f"{page.stem}{name}.png"): figure for name, figure in (figures or {}).items()}
    provenance = _provenance(config, libraries)
    if measured:
        provenance["rows_measured_by_code"] = sorted({row["code"] for row in measured})
    if files:
        provenance["files_sha256"] = files
    shown = "".join(f"![{title}]({path.name})\n\n" for path in pictures)
    text = f"# {title}\n\n{introduction}\n\n{tables}\n\n{shown}```json\n{json.dumps(provenance, indent=2)}\n```\n"
    with ExitStack() as stack:
        # Renamed last, when what it shows is there.
        stack.enter_context(atomic_write(page)).write_text(text, encoding="utf-8")
        for path, figure in pictures.items():
            figure.savefig(stack.enter_context(atomic_write(path)), dpi=110)
        rows.to_csv(stack.enter_context(atomic_write(page.with_suffix(".csv"))), index=False)
    print(tables)
    print(f"report: {page}")


def _provenance(config: BenchmarkConfig, libraries: Sequence[str]) -> dict[str, Any]:
    # Of the report `simulator` alone, which has no policy, the checkpoint need not be there.
    checkpoint = Path(config.checkpoint)
    return {
        "command": command_line(),
        "checkpoint_sha256": file_sha256(checkpoint) if checkpoint.is_file() else None,
        "pcm_sha256": {Path(path).name: file_sha256(path) for path in config.pcm},
        "code": code_version(),
        "machine": machine(choose_device(config.device)),
        "libraries": {name: version(name) for name in libraries},
    }
