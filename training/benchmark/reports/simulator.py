"""Control steps per second of `pusht_env` and of the PyPI package `gym-pusht`, measured in turns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pandas import DataFrame

from training.benchmark.config import BenchmarkConfig
from training.benchmark.report import write_report
from training.benchmark.reports import simulator_rate
from training.benchmark.tables import markdown_table

GYM_PUSHT = "gym-pusht==0.1.6"
INTRODUCTION = (
    "Both are driven with state observations, through `gymnasium.make`, from the same seeds, towards the block, so "
    "that they have the same contacts to solve. Each measurement is one process on one core, and counts its own CPU "
    "time, resets included, so that a busy machine slows neither down. `gym-pusht` needs pymunk below 7, and has a "
    "virtual environment of its own. Steps: control steps per second of CPU time, the median of {rounds} measurements."
)


@dataclass(frozen=True)
class Simulator:
    """A registered PushT environment, and the command that measures it in an interpreter that can import it."""

    distribution: str
    module: str
    command: tuple[str, ...]


OURS = Simulator("pusht_env", "pusht_env", (sys.executable, "-m", simulator_rate.__name__))


def report(config: BenchmarkConfig) -> None:
    """Write the report `simulator`.

    Raises:
        OSError, RuntimeError: if `gym-pusht` cannot be installed, or a simulator cannot be measured.
    """
    options = config.simulator
    python = prepare_gym_pusht(Path(options.venv))
    file = simulator_rate.__file__
    theirs = Simulator(GYM_PUSHT, "gym_pusht", (str(python), "-I", str(Path(file).resolve())))
    rates = compare(OURS, theirs, rounds=options.rounds, steps=options.steps)
    write_report(
        config,
        rates,
        title="Control steps per second",
        introduction=INTRODUCTION.format(rounds=options.rounds),
        tables=format_rates(rates),
        libraries=("gymnasium", "numpy", "pymunk"),
    )


def prepare_gym_pusht(directory: Path) -> Path:
    """Make the virtual environment of `gym-pusht`, or find it complete.

    Returns:
        Its interpreter.

    Raises:
        RuntimeError: if the environment could not be made or filled.
    """
    python = directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    # Written last, so that an interrupted installation is continued.
    installed = directory / "installed.txt"
    if not (installed.exists() and installed.read_text(encoding="utf-8") == GYM_PUSHT):
        print(f"installing {GYM_PUSHT} in {directory}", file=sys.stderr)
        _run([sys.executable, "-m", "venv", str(directory)], f"making {directory}")
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        _run([*pip, GYM_PUSHT, "pymunk<7"], f"installing {GYM_PUSHT}")
        installed.write_text(GYM_PUSHT, encoding="utf-8")
    return python


def compare(ours: Simulator, theirs: Simulator, *, rounds: int, steps: int) -> DataFrame:
    """Measure both in turns.

    Returns:
        A row for each measurement: `simulator`, `round`, `steps_per_second`, `pymunk`.
    """
    rows = []
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for simulator in (ours, theirs) if number % 2 == 0 else (theirs, ours):
            command = [*simulator.command, simulator.module, str(steps)]
            # Libraries may greet before the result.
            rate = json.loads(_run(command, f"measuring {simulator.distribution}").splitlines()[-1])
            rows.append({"simulator": simulator.distribution, "round": number + 1, **rate})
    return DataFrame(rows)


def format_rates(rates: DataFrame) -> str:
    """A Markdown table of both simulators, and the ratio of the first to the second."""
    first, second = rates["simulator"].unique()
    rounds = rates.pivot(index="round", columns="simulator", values="steps_per_second")
    ratio = (rounds[first] / rounds[second]).median()
    shown = (
        rates.groupby(["simulator", "pymunk"], sort=False)["steps_per_second"]
        .agg(steps="median", lowest="min", highest="max")
        .reset_index()
    )
    formats = {"simulator": "", "pymunk": ""} | dict.fromkeys(("steps", "lowest", "highest"), ".0f")
    table = markdown_table(shown, {name: (name, form) for name, form in formats.items()}, text_columns=2)
    return f"{table}\n\n{first} / {second}: {ratio:.2f} (median of the rounds' ratios)"


def _run(command: Sequence[str], purpose: str) -> str:
    """Run a command and return its standard output; its failure becomes one line that names the purpose."""
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    if completed.returncode != 0:
        reasons = completed.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"{purpose} failed with status {completed.returncode}: {reasons[-1]}")
    return completed.stdout
