from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from small_recordings import ROBOT

from training.importing.import_demonstrations import ImportConfig, import_demonstrations
from training.importing.import_report import Imported


@pytest.fixture
def robot_file(tmp_path: Path) -> Path:
    file = tmp_path / "robot.yaml"
    file.write_text(ROBOT)
    return file


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., tuple[Imported, dict[str, np.ndarray]]]:
    """Imports a source into `out.zarr`, and returns what it found and the arrays of the store."""

    def run(source: Path, **options: Any) -> tuple[Imported, dict[str, np.ndarray]]:
        output = tmp_path / "out.zarr"
        found = import_demonstrations(
            ImportConfig(**{"output": str(output)} | {"source": str(source)} | options)
        )
        group: Any = zarr.open_group(str(output), mode="r")
        arrays = {f"data/{name}": array[:] for name, array in group["data"].arrays()}
        return found, {**arrays, "meta/episode_ends": group["meta/episode_ends"][:]}

    return run
