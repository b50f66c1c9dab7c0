"""Measure every table again: the reports of `pcm-benchmark` in order, all by one commit and with one checkpoint."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from policy.atomic_write import atomic_write
from policy.checkpoint import file_sha256
from training.benchmark.config import BenchmarkConfig
from training.benchmark.measure import benchmark
from training.command import load_config, named_as_written, run_command
from training.output_dir import Outputs, claim_output_dir, locked_output_dir
from training.provenance import JOB, code_version

CHANGED = "+changes"
TIMES, PAGE = "seconds.json", "results.md"


@dataclass(frozen=True)
class ResultsConfig:
    """See `training/conf/results.yaml`."""

    output_dir: str = MISSING
    checkpoint: str = MISSING
    demonstrations: str = MISSING
    pcm: list[str] = field(default_factory=list)
    warm_pcm: list[str] = field(default_factory=list)
    rivals: list[str] = field(default_factory=list)
    only: list[str] | None = None
    plan: bool = False
    overwrite: bool = False
    parts: dict[str, list[str]] = field(default_factory=dict)
    minutes: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.only or []:
            if name not in self.parts:
                raise ValueError(f"only must be among {', '.join(self.parts)}, got {name!r}")


@dataclass(frozen=True)
class Part:
    """One table.

    Attributes:
        name: of its folder.
        config: of the report that makes it.
        command: that makes it alone.
    """

    name: str
    config: BenchmarkConfig
    command: str

    @property
    def page(self) -> Path:
        return Path(self.config.output_dir) / f"{self.config.report}.md"

    @property
    def rows(self) -> list[Path]:
        return sorted((Path(self.config.output_dir) / f"{self.config.report}_rows").glob("*.json"))


def measure_results(config: ResultsConfig) -> None:
    """Measure what is missing, and say how long each part took.

    Raises:
        ValueError: if the checkout has changes, or a part holds rows of another commit or checkpoint.
    """
    code, output_dir = code_version(), Path(config.output_dir)
    parts = [_part(config, name) for name in config.parts if config.only is None or name in config.only]
    sha256 = file_sha256(config.checkpoint)
    for part in parts:
        check_origin(part, code=code, checkpoint_sha256=sha256)
    seconds = read_seconds(output_dir)
    print(plan(parts, seconds, config.minutes))
    if config.plan:
        return
    if code.endswith(CHANGED):
        raise ValueError(
            "the checkout has changes, and a table names the commit that it was measured by: commit first"
        )
    outputs = Outputs("pcm-results", (*config.parts, TIMES, PAGE), lambda path: path.name == TIMES)
    with locked_output_dir(output_dir, outputs, overwrite=config.overwrite):
        claim_output_dir(output_dir, outputs)
        for part in parts:
            if part.page.exists():
                continue
            started = time.monotonic()
            before = JOB.set(part.command)
            try:
                benchmark(part.config)
            finally:
                JOB.reset(before)
            seconds[part.name] = time.monotonic() - started
            _write(output_dir / TIMES, json.dumps(seconds, indent=2) + "\n")
        page = plan(parts, seconds, config.minutes)
        _write(
            output_dir / PAGE, f"# Results\n\nMeasured by commit {code} with {config.checkpoint}.\n\n{page}\n"
        )
    print(page)


def _part(config: ResultsConfig, name: str) -> Part:
    overrides = [
        *config.parts[name],
        f"checkpoint={config.checkpoint}",
        f"demonstrations={config.demonstrations}",
        f"output_dir={config.output_dir}/{name}",
    ]
    with named_as_written(f"parts.{name}"):
        made = load_config("benchmark", BenchmarkConfig, overrides)
    return Part(name, made, shlex.join(["pcm-benchmark", *overrides]))


@dataclass(frozen=True)
class Origin:
    """What a row or a page was measured by, and how long a row took."""

    path: Path
    code: str
    checkpoint_sha256: str | None
    seconds: float = 0.0


def origins(part: Part) -> list[Origin]:
    """Those of a part's rows, and of its page. A row that cannot be read is none: it is measured again."""
    found = [origin for path in part.rows if (origin := _origin_of_row(path)) is not None]
    if part.page.exists():
        text = part.page.read_text(encoding="utf-8").rpartition("```json\n")[2].rpartition("```")[0]
        provenance = json.loads(text)
        found.append(Origin(part.page, provenance["code"], provenance["checkpoint_sha256"]))
    return found


def _origin_of_row(path: Path) -> Origin | None:
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        sha256 = saved["identity"].get("checkpoint_sha256")
        return Origin(path, saved["row"]["code"], sha256, saved.get("seconds", 0.0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def check_origin(part: Part, *, code: str, checkpoint_sha256: str) -> None:
    """Refuse a part that was begun by another commit, or with another checkpoint: a table has one of each.

    Raises:
        ValueError: for such a part. The message names the file.
    """
    for origin in origins(part):
        if origin.code != code:
            raise ValueError(
                f"{origin.path} was measured by commit {origin.code}, this is {code}: choose another output_dir"
            )
        if origin.checkpoint_sha256 not in (checkpoint_sha256, None):
            raise ValueError(f"{origin.path} was measured with another checkpoint: choose another output_dir")


def plan(parts: Sequence[Part], seconds: dict[str, float], minutes: dict[str, float]) -> str:
    """Which parts there are, and how long each took, or is expected to take."""
    lines = ["| part | report | rows | minutes | |", "|---|---|---:|---:|---|"]
    total = 0.0
    for part in parts:
        over = (sum(origin.seconds for origin in origins(part)) or seconds.get(part.name, 0.0)) / 60
        if part.page.exists():
            taken, said = over, "measured"
        else:
            taken = minutes.get(part.name, 0.0)
            said = f"{'expected, of another run' if taken else 'not known'}; {over:.1f} are over"
        total += taken
        lines.append(f"| {part.name} | {part.config.report} | {len(part.rows)} | {taken:.1f} | {said} |")
    return "\n".join([*lines, f"| all | | | {total:.0f} | |"])


def read_seconds(output_dir: Path) -> dict[str, float]:
    """Seconds that each part took, of a report without rows, which say it themselves."""
    try:
        found = json.loads((output_dir / TIMES).read_text(encoding="utf-8"))
        return {str(name): float(value) for name, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("results", ResultsConfig, measure_results, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
