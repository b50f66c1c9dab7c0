"""Control steps per second of `pusht_env` and of the PyPI package `gym-pusht`, measured in turns.

Both are driven with state observations, through `gymnasium.make`, from the same seeds, towards the block, so
that they have the same contacts to solve. Every measurement is one process on one core, and counts its own CPU
time, resets included, so that a busy machine slows neither down. `gym-pusht` needs pymunk below 7 and gets a
virtual environment of its own, which is made once and then used again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path

GYM_PUSHT = "gym-pusht==0.1.6"


@dataclass(frozen=True)
class Simulator:
    """A registered PushT environment and the interpreter command that can import it."""

    distribution: str
    module: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Rate:
    """One measurement: control steps per second of CPU time, and the engine's version."""

    steps_per_second: float
    pymunk: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.benchmark.reports.simulator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rounds", type=_positive, default=7, help="measurements of each (default %(default)s)"
    )
    parser.add_argument(
        "--steps", type=_positive, default=5000, help="control steps per measurement (default %(default)s)"
    )
    parser.add_argument(
        "--venv",
        type=Path,
        default=Path("outputs/gym_pusht_venv"),
        help="virtual environment of gym-pusht, made when missing (default %(default)s)",
    )
    parser.add_argument(
        "--measure",
        metavar="MODULE",
        help="measure only the environment MODULE/PushT-v0, in this interpreter, and print JSON",
    )
    arguments = parser.parse_args(argv)

    if arguments.measure is not None:
        print(json.dumps(asdict(measure(arguments.measure, arguments.steps))))
        return 0
    try:
        ours = Simulator(
            "pusht_env", "pusht_env", (sys.executable, "-m", "training.benchmark.reports.simulator")
        )
        theirs_python = prepare_gym_pusht(arguments.venv)
        theirs = Simulator(GYM_PUSHT, "gym_pusht", (str(theirs_python), "-I", str(Path(__file__).resolve())))
        print(compare(ours, theirs, arguments.rounds, arguments.steps))
    except (OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def measure(module: str, steps: int) -> Rate:
    """Drive `<module>/PushT-v0` for a number of control steps, in this process."""
    # `gym-pusht`'s interpreter has these, and the comparing process needs neither.
    import gymnasium
    import numpy as np

    import_module(module)
    env = gymnasium.make(f"{module}/PushT-v0", obs_type="state", max_episode_steps=300)
    offsets = np.random.default_rng(0).normal(0.0, 60.0, (steps, 2))
    seed = 0
    observation, _ = env.reset(seed=seed)
    # The first step loads what is loaded lazily.
    env.step(observation[2:4])

    start = time.process_time()
    for offset in offsets:
        # Around the block, so that it is pushed about as often as in a demonstration.
        target = np.clip(observation[2:4] + offset, 0.0, 512.0)
        observation, _, terminated, truncated, _ = env.step(target)
        if terminated or truncated:
            seed += 1
            observation, _ = env.reset(seed=seed)
    return Rate(steps / (time.process_time() - start), metadata.version("pymunk"))


def prepare_gym_pusht(directory: Path) -> Path:
    """Make the virtual environment of `gym-pusht`, or find it complete.

    Returns:
        Its interpreter.

    Raises:
        RuntimeError: The environment could not be made or filled.
    """
    python = directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    # Written last, so that an interrupted installation is continued.
    installed = directory / "installed.txt"
    if not (installed.exists() and installed.read_text(encoding="utf-8") == GYM_PUSHT):
        print(f"installing {GYM_PUSHT} in {directory}", file=sys.stderr)
        _run([sys.executable, "-m", "venv", str(directory)], f"making {directory}")
        _run(
            [str(python), "-m", "pip", "install", "--quiet", GYM_PUSHT, "pymunk<7"], f"installing {GYM_PUSHT}"
        )
        installed.write_text(GYM_PUSHT, encoding="utf-8")
    return python


def compare(ours: Simulator, theirs: Simulator, rounds: int, steps: int) -> str:
    """Measure both in turns and describe the result as a Markdown table."""
    rates: dict[Simulator, list[Rate]] = {ours: [], theirs: []}
    for round_number in range(rounds):
        print(f"round {round_number + 1} of {rounds}", file=sys.stderr)
        for simulator in (ours, theirs) if round_number % 2 == 0 else (theirs, ours):
            command = [*simulator.command, "--measure", simulator.module, "--steps", str(steps)]
            # Libraries may greet before the result.
            result = _run(command, f"measuring {simulator.distribution}").splitlines()[-1]
            rates[simulator].append(Rate(**json.loads(result)))
    ratio = statistics.median(
        our.steps_per_second / their.steps_per_second
        for our, their in zip(rates[ours], rates[theirs], strict=True)
    )
    lines = [
        f"| simulator | pymunk | steps per CPU second, median of {rounds} | lowest | highest |",
        "|---|---|---:|---:|---:|",
    ]
    for simulator, measured in rates.items():
        values = [rate.steps_per_second for rate in measured]
        lines.append(
            f"| {simulator.distribution} | {measured[0].pymunk} | {statistics.median(values):.0f} "
            f"| {min(values):.0f} | {max(values):.0f} |"
        )
    lines += ["", f"{ours.distribution} / {theirs.distribution}: {ratio:.2f} (median of the rounds' ratios)"]
    return "\n".join(lines)


def _run(command: Sequence[str], purpose: str) -> str:
    """Run a command and return its standard output; its failure becomes one line that names the purpose."""
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    if completed.returncode != 0:
        reasons = completed.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"{purpose} failed with status {completed.returncode}: {reasons[-1]}")
    return completed.stdout


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
