"""Where the error is, state by state and iteration by iteration: a heat map, and a summary grasped at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter
from pandas import concat

from policy import PicardConfig, SamplerConfig
from training.benchmark.candidates import Candidate, PCMFile
from training.benchmark.config import BenchmarkConfig
from training.benchmark.reports.convergence_curves import Setting, state_errors
from training.benchmark.row_cache import Row, Task
from training.benchmark.tables import read_rewards

SHOWN_PICARD = {
    "plain Picard": PicardConfig("drift", "fresh"),
    "preconditioned Picard": PicardConfig("preconditioned", "gaussian"),
}
SOLVER_NAMES = {"ddim": "DDIM", "dpmpp_2m": "DPM-Solver++"}
HEATMAP_ERRORS = (1e-6, 1.0)
SUMMARY_ERRORS = (1e-3, 1.5)
ACTION_RANGE = 2.0  # normalised actions are in −1 … 1
SUMMARY_DEPTHS = (1, 2, 3, 4, 5, 8, 10, 16, 25, 50)
SUMMARY_COLORS = ("tab:orange", "tab:green", "tab:blue", "tab:purple")


@dataclass(frozen=True)
class Mapped:
    """A sampler whose errors are shown state by state."""

    name: str
    sampler: SamplerConfig
    file: PCMFile | None = None

    @property
    def problem(self) -> str:
        return f"{SOLVER_NAMES.get(self.sampler.solver, self.sampler.solver)}, T = {self.sampler.steps}"


def mapped_samplers(config: BenchmarkConfig, pcms: Sequence[PCMFile]) -> list[Mapped]:
    """Plain and preconditioned Picard iteration at the largest T and wherever a PCM was trained, and the PCMs there."""
    problems = [("ddim", max(config.steps))] if config.steps else []
    problems += [(file.pcm.solver, file.pcm.steps) for file in pcms]
    found = []
    for solver, steps in dict.fromkeys(problems):
        for name, picard in SHOWN_PICARD.items():
            found.append(Mapped(name, SamplerConfig("picard", solver, steps, picard=picard)))
        for file in pcms:
            if (file.pcm.solver, file.pcm.steps) == (solver, steps):
                sampler = replace(file.pcm.picard, method="pcm").resolved(file.pcm.defaults)
                alone = sum((other.pcm.solver, other.pcm.steps) == (solver, steps) for other in pcms) == 1
                name = "PCM" if alone else f"PCM {file.path.stem}"
                found.append(Mapped(name, sampler, file))
    return found


def map_task(mapped: Mapped, setting: Setting) -> Task:
    """A row with the `depths` of the iterates, and the `errors` of their states: (iterations + 1, T + 1)."""
    candidate = Candidate(mapped.sampler, 0, mapped.file)

    def measure() -> Row:
        followed = list(state_errors(mapped.sampler, setting, file=mapped.file))
        errors = [np.percentile(errors, 95, axis=0).tolist() for _, errors in followed]
        return {"depths": [depth for depth, _ in followed], "errors": errors}

    return Task(
        label=f"errors of states, {mapped.name}, {mapped.problem}",
        cost=mapped.sampler.steps * min(setting.iterations, mapped.sampler.steps) * len(setting.observations),
        identity={"measured": "states", **candidate.identity},
        measure=measure,
    )


def equal_rewards(path: str | None) -> list[tuple[str, int]]:
    """Sequential samplers of equal reward, by what they are called: their depths.

    They are DDIM with the most steps, and of each solver the fewest steps whose mean reward lies in its interval or
    above, in a table of the report `rewards`.

    Raises:
        ValueError: for a file that is no such table.
    """
    if path is None:
        return []
    rows = read_rewards(path, "method", "solver", "steps", "reward_200", "reward_200_low")
    rows = rows[(rows["method"] == "sequential") & rows["reward_200"].notna()]
    reference = rows[rows["solver"] == "ddim"].nlargest(1, "steps")
    if reference.empty:
        raise ValueError(f"{path}: DDIM has no reward")
    equal = rows[rows["reward_200"] >= reference["reward_200_low"].item()]
    shown = concat([reference, equal.loc[equal.groupby("solver")["steps"].idxmin()]]).drop_duplicates()
    return [(SOLVER_NAMES.get(row.solver, row.solver), row.steps) for row in shown.itertuples()]


def plot_heatmap(maps: Sequence[tuple[Mapped, Row]]) -> Figure:
    """Error by state and iteration: a line of panels for each solver and T, a panel for each sampler."""
    problems = list(dict.fromkeys(mapped.problem for mapped, _ in maps))
    lines = [[(mapped, row) for mapped, row in maps if mapped.problem == problem] for problem in problems]
    columns = max(len(line) for line in lines)
    figure = Figure(figsize=(1.5 + 3.8 * columns, 0.8 + 3.2 * len(lines)), layout="constrained")
    panels = figure.subplots(len(lines), columns, squeeze=False)
    low, high = HEATMAP_ERRORS
    image = None
    for axes_line, line in zip(panels, lines, strict=True):
        iterations = max(len(row["errors"]) for _, row in line)
        for axes, (mapped, row) in zip(axes_line, line, strict=False):
            errors = np.maximum(row["errors"], low)
            image = axes.imshow(errors, norm=LogNorm(low, high), cmap="magma", aspect="auto")
            axes.set_title(f"{mapped.name}\n{mapped.problem}", fontsize=10)
            axes.set(xlabel="state (0: noise, T: actions)", ylabel="iteration", facecolor="black")
            axes.set_ylim(iterations - 0.5, -0.5)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        for axes in axes_line[len(line) :]:
            axes.remove()
    if image is not None:
        figure.colorbar(image, ax=figure.axes, label="error (95th percentile)", extend="both")
    return figure


def plot_summary(maps: Sequence[tuple[Mapped, Row]], marks: Sequence[tuple[str, int]]) -> Figure:
    """Error of the actions over depth, a thick line for each sampler; sequential samplers are vertical lines.

    Args:
        maps: of which those with the last PCM, or else with the largest T, are shown.
        marks: names and depths of sequential samplers.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    problem = maps[-1][0].problem
    shown = [(mapped, row) for mapped, row in maps if mapped.problem == problem]
    for color, (mapped, row) in zip(SUMMARY_COLORS, shown, strict=False):
        errors = [states[-1] / ACTION_RANGE for states in row["errors"]]
        points = [point for point in zip(row["depths"], errors, strict=True) if point[0] > 0]
        axes.plot(*zip(*points, strict=True), "o-", color=color, linewidth=3, markersize=8, label=mapped.name)
    axes.set(xscale="log", yscale="log", ylim=SUMMARY_ERRORS)
    axes.xaxis.set_major_locator(FixedLocator(SUMMARY_DEPTHS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.tick_params(labelsize=12)
    axes.set_xlabel("depth: network evaluations one after the other", fontsize=13)
    axes.set_ylabel("error, of the range of the actions", fontsize=13)
    if marks:
        for _, depth in marks:
            axes.axvline(depth, color="0.5", linestyle="--", linewidth=2)
        top = axes.secondary_xaxis("top")
        top.set_xticks([depth for _, depth in marks], [f"{name}\n{depth} steps" for name, depth in marks])
        top.xaxis.set_minor_locator(NullLocator())
        top.tick_params(labelsize=10)
        top.set_xlabel("sequential samplers of equal reward", fontsize=13)
    figure.suptitle(f"Parallel sampling with {problem}", fontsize=14)
    axes.legend(fontsize=13, framealpha=1, loc="center right")
    axes.grid(alpha=0.3)
    return figure
