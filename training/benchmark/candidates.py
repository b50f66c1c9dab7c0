"""The samplers that reports compare: those of `rewards`, and those with a PCM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from policy import DiffusionPolicy, ParallelConfig, PcmConfig, PicardConfig, SamplerConfig
from policy.checkpoint import file_sha256
from policy.pcm import PCM, load_pcm
from policy.sampling.start import exact_states
from policy.sampling.switching import switching_schedule
from training.benchmark.config import BenchmarkConfig

PICARD = (
    ("jacobi", "fresh", 0),
    ("drift", "fresh", 0),
    ("semilinear", "fresh", 0),
    ("preconditioned", "fresh", 0),
    ("preconditioned", "gaussian", 0),
    ("drift", "fresh", 3),
    ("preconditioned", "gaussian", 3),
)
"""Jacobian, start and memory: those as published, and ours, of which none is always the best."""


@dataclass(frozen=True)
class PCMFile:
    """A PCM and the file that it was read from."""

    path: Path
    sha256: str
    pcm: PCM


@dataclass(frozen=True)
class Candidate:
    """A sampler to be measured.

    Attributes:
        sampler: its configuration, in which nothing is left to choose.
        depth: network evaluations that it makes, one after the other.
        pcm: the PCM that it uses, if any.
    """

    sampler: SamplerConfig
    depth: int
    pcm: PCMFile | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its answers, besides the checkpoint."""
        return {"sampler": asdict(self.sampler), "pcm": None if self.pcm is None else self.pcm.sha256}

    @property
    def name(self) -> str:
        """Method × solver and the options that tell it from others, whatever its steps and depth."""
        sampler = self.sampler
        words = [sampler.method, sampler.solver]
        if self.pcm is not None:
            words += [self.pcm.path.stem, f"{sampler.pcm.space} space", f"s = {sampler.pcm.stiffness:g}"]
            if sampler.starts_warm:
                words.append(f"warm start by {sampler.parallel.warm_start}")
        elif sampler.method == "picard":
            words.append(sampler.picard.jacobian)
            warm = f"warm start by {sampler.parallel.warm_start}"
            words.append(warm if sampler.starts_warm else sampler.picard.start)
        if sampler.parallel.memory:
            words.append(f"memory {sampler.parallel.memory}")
        return ", ".join(words)

    @property
    def label(self) -> str:
        return label(self.name, self.sampler.steps, self.depth)

    @property
    def columns(self) -> dict[str, Any]:
        """What a CSV says of it; None for what belongs to other methods."""
        sampler = self.sampler
        picard = sampler.method in ("picard", "pcm")
        return {
            "sampler": self.name,
            "method": sampler.method,
            "solver": sampler.solver,
            "jacobian": sampler.picard.jacobian if picard else None,
            "start": sampler.picard.start if picard else None,
            "memory": sampler.parallel.memory if sampler.is_parallel else None,
            "space": sampler.pcm.space if sampler.uses_pcm else None,
            "stiffness": sampler.pcm.stiffness if sampler.uses_pcm else None,
            "steps": sampler.steps,
            "iterations": sampler.stop.iterations if sampler.is_parallel else None,
            "depth": self.depth,
        }

    @property
    def evaluations(self) -> int:
        """Network evaluations for one chunk, or somewhat more: frozen states are counted."""
        return self.sampler.steps * (self.depth if self.sampler.is_parallel else 1)

    def policy(self, base: DiffusionPolicy) -> DiffusionPolicy:
        return (base if self.pcm is None else base.with_pcm(self.pcm.pcm)).with_sampler(self.sampler)


def label(name: str, steps: int, depth: int) -> str:
    """A sampler with its steps, and its depth where that is another number."""
    return f"{name}, T = {steps}" + ("" if depth == steps else f", depth {depth}")


def load_pcm_files(paths: Sequence[str], base: DiffusionPolicy) -> list[PCMFile]:
    """The files' PCMs, which are called by their files' names.

    Raises:
        CheckpointError: for a file that is none of a PCM of this policy.
        ValueError: if two files have the same name.
    """
    names = [Path(path).stem for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"pcm: two files are called {name}; a report tells them apart by their names")
    return [PCMFile(Path(path), file_sha256(path), load_pcm(path, base.network)) for path in paths]


def candidates(config: BenchmarkConfig, pcms: Sequence[PCMFile]) -> list[Candidate]:
    """All rows of `rewards`: sequential samplers, then the parallel ones by T, method and depth."""
    options = config.rewards
    rows = sequential_candidates(ddim=options.ddim_steps, dpmpp_2m=options.dpmpp_2m_steps)
    for steps in config.steps:
        for sampler in _training_free(steps):
            rows += at_depths(sampler, options.depths)
    for file in pcms:
        rows += pcm_candidates(file, options.depths, options.stiffness)
    return rows


def sequential_candidates(**all_steps: Sequence[int]) -> list[Candidate]:
    """Sequential samplers, by solver and T."""
    return [
        Candidate(SamplerConfig("sequential", solver, steps), steps)
        for solver, numbers in all_steps.items()
        for steps in numbers
    ]


def _training_free(steps: int) -> Iterator[SamplerConfig]:
    """The parallel samplers that need no PCM."""
    for jacobian, start, memory in PICARD:
        yield SamplerConfig(
            "picard",
            "ddim",
            steps,
            parallel=ParallelConfig(memory=memory),
            picard=PicardConfig(jacobian, start),
        )
    yield SamplerConfig("picard", "dpmpp_2m", steps, picard=PicardConfig("preconditioned", "gaussian"))
    # With as many sub-intervals as steps: Picard iteration with drift from the start held.
    yield SamplerConfig("parasolver", "ddim", steps)


def pcm_candidates(file: PCMFile, depths: Sequence[int], stiffness: Sequence[float]) -> list[Candidate]:
    """A PCM as it was trained from cold starts, at each stiffness.

    Adapters are sampled in parameter space and, where that differs, in feature space.
    """
    pcm = file.pcm
    adapters = pcm.weights == "lora"
    rows: dict[tuple[Any, ...], Candidate] = {}
    for space in ("parameter", "feature") if adapters else ("feature",):
        for s in stiffness:
            sampler = replace(
                pcm.picard, method="pcm", parallel=ParallelConfig(warm_start="none"), pcm=PcmConfig(space, s)
            )
            for candidate in at_depths(sampler, depths, file):
                # Where it falls in the same way, a stiffness is the same sampler as the one before it.
                iterations = candidate.sampler.stop.iterations
                schedule = switching_schedule(s, pcm.iterations, iterations=iterations)
                weights = [*schedule.changing, *([schedule.last] * iterations)][:iterations]
                # Where it is all or nothing, both spaces are the same.
                if space == "feature" and adapters and set(weights) <= {0.0, 1.0}:
                    continue
                rows.setdefault((space, candidate.depth, *weights), candidate)
    return list(rows.values())


def at_depths(
    sampler: SamplerConfig, depths: Sequence[int], pcm: PCMFile | None = None
) -> Iterator[Candidate]:
    """The sampler with as many iterations as make these depths, where that is less than sequential sampling."""
    sampler = sampler.resolved()
    calls = exact_states(sampler.picard.start, sampler.picard.start_calls)
    if sampler.method == "parasolver":
        calls = sampler.parasolver.start_calls
    for depth in depths:
        if calls < depth < sampler.steps:
            yield Candidate(
                replace(sampler, stop=replace(sampler.stop, iterations=depth - calls)), depth, pcm
            )
