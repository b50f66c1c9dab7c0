"""Arguments of every command, up to the point where its work would begin."""

from __future__ import annotations

import contextlib
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from tests.fuzz.case import Family, Fault, Inject, Mishandled, Outcome
from training.benchmark.config import BenchmarkConfig
from training.command import load_config, run_command
from training.data.download_demonstrations import DownloadConfig
from training.evaluation.evaluate import EvaluateConfig
from training.pcm.build_trajectories import BuildTrajectoriesConfig
from training.pcm.train_pcm import TrainPcmConfig
from training.policy.estimate_covariance import EstimateCovarianceConfig
from training.policy.train_policy import TrainPolicyConfig


@dataclass(frozen=True)
class Command:
    """A command's name in `training/conf`, its configuration, and arguments that are enough for it."""

    name: str
    config_type: type
    arguments: tuple[str, ...]


COMMANDS = (
    Command("benchmark", BenchmarkConfig, ()),
    Command(
        "build_trajectories",
        BuildTrajectoriesConfig,
        ("demonstrations=d", "output=o", "sampler.method=picard"),
    ),
    Command("download_demonstrations", DownloadConfig, ("output_dir=o",)),
    Command(
        "estimate_covariance", EstimateCovarianceConfig, ("demonstrations=d", "output=o", "checkpoint=c")
    ),
    Command("evaluate", EvaluateConfig, ()),
    Command("train_pcm", TrainPcmConfig, ("trajectories=t", "output_dir=o")),
    Command("train_policy", TrainPolicyConfig, ("demonstrations=d", "output_dir=o")),
)
NUMBERS = (
    *("0", "1", "-1", "2", "3", "7", "8", "16", "17", "100", "1000000", "1000000000", "9223372036854775807"),
    *(
        "9223372036854775808",
        "-9223372036854775809",
        "1" + "0" * 400,
        "1e3",
        "1e15",
        "1e308",
        "1e999",
        "-1e308",
    ),
    *(
        "0.5",
        "1.5",
        "16.0",
        "-0.0",
        "1e-320",
        "nan",
        "inf",
        "-inf",
        ".nan",
        "0x10",
        "0b1",
        "0o7",
        "1_000",
        "٣",
    ),
)
WORDS = (
    *("true", "false", "null", "none", "", "auto", "picard", "pcm", "ddim", "cpu", "cuda:99", "fixed", "xyz"),
    *(
        "josé",
        "a b",
        "a=b",
        "'a'",
        '"a',
        "a,b",
        "{a:1}",
        "{a:}",
        "[1,2]",
        "[",
        "[[[[",
        "[]",
        "{}",
        "$x",
        "${x}",
    ),
    *(
        "${oc.env:HOME}",
        "${checkpoint}",
        "???",
        "\\",
        "a\nb",
        "\0",
        "~",
        "!!python/object:os.system",
        "*",
        "&a",
        "%",
    ),
    *(
        "../..",
        "/dev/zero",
        "/etc/passwd",
        "http://x",
        "file:///etc/passwd",
        "x" * 5000,
        "[" * 200,
        "range(1,9)",
    ),
    *(
        "choice(1,2)",
        "glob(*)",
        "int(3)",
        "sort([3,1])",
        "[1e400]",
        "[0]",
        "[-1]",
        "[nan]",
        "[1,1]",
        "[a,b]",
        "2 3",
    ),
)
STRANGE = (
    *(
        "",
        "=",
        "==",
        "key",
        "=value",
        "--version",
        "-x",
        "-m",
        "--multirun",
        "--config-path=/",
        "--cfg",
        "job",
    ),
    *("hydra.run.dir=x", "hydra=x", "hydra/launcher=x", "+hydra.x=1", "~output_dir", "~sampler", "++a.b.c=1"),
    *("+new=1", "++new=1", "seed=1=2", "a.b.c.d=1", ".=1", "..=1", "seed.=1", ".seed=1", "seed@x=1", "a/b=1"),
    *(
        "sampler=ddim",
        "preset=nosuch",
        "preset=../../x",
        "latency=nosuch",
        "sampler.method",
        "é=1",
        "\ud800=1",
    ),
    *("defaults=[]", "_self_=1", "defaults=null", "hydra.searchpath=[file:///tmp]", "seed=1 seed=2", "#=1"),
)


def prepare(folder: Path) -> Inject:
    keys = {command.name: _keys(command) for command in COMMANDS}

    def inject(rng: np.random.Generator, case: Path) -> Fault:
        command = COMMANDS[rng.integers(len(COMMANDS))]
        count = int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))
        changed = [_argument(rng, keys[command.name]) for _ in range(count)]
        arguments = [*command.arguments, *changed]
        text = f"{command.name} {' '.join(repr(each)[:80] for each in changed)}"
        return Fault(text, lambda: _run(command, arguments, changed))

    return inject


def _keys(command: Command) -> list[str]:
    """All keys of a command, with their sections."""
    config = load_config(command.name, command.config_type, command.arguments)

    def inside(value: Any, prefix: str) -> list[str]:
        if not isinstance(value, dict):
            return [prefix]
        below = (found for key, part in value.items() for found in inside(part, f"{prefix}.{key}"))
        return [prefix, *below]

    values = OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(values, dict)
    return [found for key, value in values.items() for found in inside(value, str(key))]


def _argument(rng: np.random.Generator, keys: list[str]) -> str:
    if rng.random() < 0.1:
        return STRANGE[rng.integers(len(STRANGE))]
    key = keys[rng.integers(len(keys))]
    values = NUMBERS if rng.random() < 0.6 else WORDS
    value = values[rng.integers(len(values))]
    if rng.random() < 0.05:
        value = "".join(chr(code) for code in rng.integers(1, 0x2FF, int(rng.integers(1, 20))))
    sign = rng.choice(["", "+", "++", "~"], p=[0.91, 0.03, 0.03, 0.03])
    if rng.random() < 0.04:
        key = [f"{key}x", key.upper(), f"{key}.x", key[:-1]][rng.integers(4)]
    return f"{sign}{key}={value}"


def _run(command: Command, arguments: list[str], changed: list[str]) -> Outcome:
    configs: list[Any] = []
    heard = io.StringIO()
    with contextlib.redirect_stderr(heard):
        status = run_command(command.name, command.config_type, configs.append, argv=arguments)
    if status == 0 and configs:
        _check_values(configs[0], changed)
        return "accepted"
    check_refusal(status, heard.getvalue())
    said = heard.getvalue()
    if not any(_is_named(argument, said) for argument in changed):
        raise Mishandled(f"the error names none of the arguments: {said!r}")
    return "refused"


def check_refusal(status: int, said: str) -> None:
    """Raise `Mishandled` if a command ended in another way than with one line that begins with `error:`."""
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    if status != 1 or len(lines) != 1 or not said.splitlines()[-1].startswith("error: "):
        raise Mishandled(f"exit status {status}, and on stderr {said[-300:]!r}")
    if len(lines[0]) > 7000:
        raise Mishandled(f"the error has {len(lines[0])} letters: {lines[0][:200]!r}…")


def _is_named(argument: str, said: str) -> bool:
    key = argument.partition("=")[0].lstrip("+~")
    words = [word for word in re.split(r"[.@/]", key) if word]
    return not words or any(word in said for word in words) or repr(argument) in said or argument in said


def _check_values(config: Any, changed: list[str]) -> None:
    """What was taken must be what was written. Of what Hydra's grammar means by a value, only numbers are checked."""
    written = {argument.partition("=")[0].lstrip("+"): argument.partition("=")[2] for argument in changed}
    for key, text in written.items():
        if (
            text not in NUMBERS
            or key.startswith("hydra")
            or any(other.startswith(f"{key}.") for other in written)
        ):
            continue
        value = config
        for name in key.split("."):
            value = getattr(value, name)
        if isinstance(value, str):
            continue
        if isinstance(value, bool):
            if value != (float(text) != 0):  # as OmegaConf takes every other whole number for true
                raise Mishandled(f"takes {text} for {value}")
            continue
        try:
            number = int(text, 0) if isinstance(value, int) else float(text.lstrip("."))
        except ValueError:
            raise Mishandled(f"takes {text} for {value}") from None
        if number != value and not (math.isnan(number) and math.isnan(value)):
            raise Mishandled(f"takes {text} for {value}")


COMMAND_OPTIONS = Family("command_options", 0.13, prepare, most_seconds=3.0)
