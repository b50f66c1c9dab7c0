"""What the reports share: what they load, and how they are written."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from policy import DiffusionPolicy
from policy.atomic_write import atomic_write
from policy.checkpoint import file_sha256
from training.benchmark.config import BenchmarkConfig
from training.data.demonstrations import load_demonstrations
from training.data.windows import policy_windows, split_episodes
from training.distributed import choose_device
from training.provenance import code_version, command_line, machine

LIBRARIES = ("gymnasium", "numpy", "pymunk", "torch")


def load_policy(config: BenchmarkConfig) -> DiffusionPolicy:
    """The checkpoint's policy on the configured device."""
    return DiffusionPolicy.load(config.checkpoint, choose_device(config.device))


def held_out_observations(config: BenchmarkConfig, policy: DiffusionPolicy) -> Tensor:
    """(conditions, observation_steps, observation_dim) in px, drawn from demonstrations that training held out."""
    demonstrations = load_demonstrations(config.demonstrations)
    _, held_out = split_episodes(len(demonstrations.episode_ends), config.held_out_episodes, seed=0)
    observations = policy_windows(demonstrations, held_out, policy.config).observations
    generator = torch.Generator().manual_seed(config.seed)
    return observations[torch.randperm(len(observations), generator=generator)[: config.conditions]]


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A Markdown table of cells, of which the first columns hold text, and the others numbers."""
    alignment = "|" + "---|" * text_columns + "---:|" * (len(columns) - text_columns)
    lines = ["| " + " | ".join(cells) + " |" for cells in (columns, *rows)]
    return "\n".join([lines[0], alignment, *lines[1:]])


def write_report(
    config: BenchmarkConfig,
    title: str,
    introduction: str,
    table: str,
    rows: Sequence[Mapping[str, Any]],
    figure: Figure,
    more_provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write `<report>.md`, `.csv` and `.png` into the output directory, each whole or not at all, and print the table.

    Args:
        config: of this run.
        title, introduction, table: of the Markdown page.
        rows: of the CSV, all with the same columns, which are unrounded; None is an empty cell.
        figure: the picture.
        more_provenance: what else a reader has to know to repeat the report (JSON values).
    """
    output_dir = Path(config.output_dir)
    page, cells, picture = (output_dir / f"{config.report}.{ending}" for ending in ("md", "csv", "png"))
    provenance = {**_provenance(config), **(more_provenance or {})}
    text = (
        f"# {title}\n\n{introduction}\n\n{table}\n\n![{title}]({picture.name})\n\n"
        f"```json\n{json.dumps(provenance, indent=2)}\n```\n"
    )
    # The page is renamed last, when what it shows is there.
    with (
        atomic_write(page) as new_page,
        atomic_write(picture) as new_picture,
        atomic_write(cells) as new_cells,
    ):
        with open(new_cells, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        figure.savefig(new_picture, dpi=110)
        new_page.write_text(text, encoding="utf-8")
    print(table)
    print(f"report: {page}")


def _provenance(config: BenchmarkConfig) -> dict[str, Any]:
    return {
        "command": command_line(),
        "checkpoint_sha256": file_sha256(config.checkpoint),
        "pcm_sha256": {Path(path).name: file_sha256(path) for path in config.pcm},
        "code": code_version(),
        "machine": machine(choose_device(config.device)),
        "libraries": {name: version(name) for name in LIBRARIES},
    }
