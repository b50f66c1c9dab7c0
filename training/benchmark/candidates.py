"""The samplers that reports compare: those of `table3`, and those with a PCM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from policy import DiffusionPolicy, SamplerConfig
from policy.checkpoint import file_sha256
from policy.pcm import PCM, load_pcm
from policy.sampling.start import initial_calls
from policy.sampling.switching import switching_weights
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
"""Formulation, initial trajectory and memory: those as published, and ours, of which none is always the best."""


@dataclass(frozen=True)
class PCMFile:
    """A PCM and the file that it was read from."""

    path: Path
    sha256: str
    pcm: PCM


@dataclass(frozen=True)
class Candidate:
    """A sampler of the table.

    Attributes:
        method: what it is called, whatever its steps and depth.
        sampler: its configuration.
        depth: network evaluations that it makes, one after the other.
        pcm: that it uses, if it does.
    """

    method: str
    sampler: SamplerConfig
    depth: int
    pcm: PCMFile | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its answers, besides the checkpoint."""
        sampler = asdict(self.sampler)
        if self.sampler.solver == "ddim":
            # As before there was a choice, so that what was measured then is found again.
            del sampler["solver"]
        return {"sampler": sampler, "pcm": None if self.pcm is None else self.pcm.sha256}

    @property
    def label(self) -> str:
        depth = f", depth {self.depth}" if self.sampler.is_parallel else ""
        return f"{self.method}, T = {self.sampler.steps}{depth}"

    @property
    def evaluations(self) -> int:
        """Network evaluations for one chunk, or somewhat more: frozen states are counted."""
        return self.sampler.steps * (self.depth if self.sampler.is_parallel else 1)

    def policy(self, base: DiffusionPolicy) -> DiffusionPolicy:
        return (base if self.pcm is None else base.with_pcm(self.pcm.pcm)).with_sampler(self.sampler)


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
    """All rows of the table: sequential samplers, then the parallel ones by T, method and depth."""
    table = config.table3
    rows = [
        Candidate(method, SamplerConfig(name, steps), steps)
        for method, name, all_steps in (
            ("DDIM", "ddim", table.ddim_steps),
            ("DPM-Solver++(2M)", "dpm_solver", table.dpm_solver_steps),
        )
        for steps in all_steps
    ]
    for steps in config.steps:
        for method, sampler in _training_free(steps):
            rows += [Candidate(method, *at_depth) for at_depth in at_depths(sampler, table.depths)]
    for file in pcms:
        rows += pcm_candidates(file, table.depths, table.stiffness)
    return rows


def _training_free(steps: int) -> Iterator[tuple[str, SamplerConfig]]:
    """The parallel samplers that need no PCM, and what they are called."""
    for formulation, initialisation, memory in PICARD:
        method = f"Picard, {formulation}, {initialisation}" + (f", memory {memory}" if memory else "")
        yield (
            method,
            SamplerConfig(
                "picard", steps, formulation=formulation, initialisation=initialisation, memory=memory
            ),
        )
    multistep = SamplerConfig("picard", steps, solver="dpm_solver", initialisation="gaussian")
    yield "Picard, DPM-Solver++, preconditioned, gaussian", multistep
    # As Picard iteration with drift from an initial trajectory by one call: each step is a sub-interval of its own.
    yield "ParaSolver", SamplerConfig("parasolver", steps, formulation="drift", initialisation="parasolver")


def pcm_candidates(file: PCMFile, depths: Sequence[int], stiffness: Sequence[float]) -> list[Candidate]:
    """A PCM with the T, formulation and initial trajectory that it was trained with, and each stiffness.

    Adapters are sampled in parameter space and, where that differs, in feature space.
    """
    pcm = file.pcm
    rows: dict[tuple[Any, ...], Candidate] = {}
    for name, method in (("pcm_lora", "PCM-LoRA"), ("pcm", "PCM")):
        if name == "pcm_lora" and pcm.method != "lora":
            continue
        for s in stiffness:
            sampler = replace(pcm.picard, name=name, stiffness=s)
            for at_depth, depth in at_depths(sampler, depths):
                # Where it falls in the same way, a stiffness is the same sampler as the one before it.
                weights, last = switching_weights(s, pcm.iterations, at_depth.iterations)
                weights += [last] * (at_depth.iterations - len(weights))
                # Where it is all or nothing, both samplers are the same.
                if name == "pcm" and pcm.method == "lora" and set(weights) <= {0.0, 1.0}:
                    continue
                candidate = Candidate(f"{method}, {file.path.stem}, s = {s:g}", at_depth, depth, file)
                rows.setdefault((name, depth, *weights), candidate)
    return list(rows.values())


def at_depths(sampler: SamplerConfig, depths: Sequence[int]) -> Iterator[tuple[SamplerConfig, int]]:
    """The sampler with as many iterations as make these depths, where that is less than sequential sampling."""
    calls = initial_calls(sampler.initialisation, sampler.preconditioning)
    for depth in depths:
        if calls < depth < sampler.steps:
            yield replace(sampler, iterations=depth - calls), depth
