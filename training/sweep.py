"""Many jobs of one command: Hydra's multirun, with the launcher that ``hydra/launcher=…`` names."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from itertools import product
from typing import Any, TypeVar

from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from training.command import CONF, config_of, hydra_overrides, load_config, status_of
from training.provenance import JOB

Config = TypeVar("Config")

OUTPUTS = ("output_dir", "output")
SHARED = ("benchmark",)  # several processes may measure the rows of one report
DEFAULTS = {
    "hydra/job_logging": "none",
    "hydra.output_subdir": "null",
    "hydra.sweep.dir": "outputs/multirun/${now:%Y-%m-%d_%H-%M-%S}",
}
"""Each job writes its log and its configuration into its own output directory already."""


def run_sweep(
    config_name: str, config_type: type[Config], run: Callable[[Config], None], *, overrides: Sequence[str]
) -> int:
    """Run a command once for each combination of values, such as ``training.seed=0,1,2``.

    Args:
        config_name, config_type, run: see `run_command`.
        overrides: arguments of the command.

    Returns:
        The largest exit status of the jobs. A job that fails does not stop the others.

    Raises:
        ValueError: for a launcher that is not installed, or two jobs with one output directory. Nothing has run then.
        HydraException, OmegaConfBaseException: for arguments that a job cannot have. Nothing has run then.
    """
    overrides = hydra_overrides(config_name, config_type, overrides)
    _check_jobs(config_name, config_type, overrides)

    job = partial(
        _run_job, config_name=config_name, config_type=_importable(config_type), run=_importable(run)
    )
    given = {override.partition("=")[0] for override in overrides}
    overrides += [f"{key}={value}" for key, value in DEFAULTS.items() if key not in given]
    with initialize_config_module(CONF, version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        _check_launcher(overrides, hydra.config_loader.get_group_options("hydra/launcher"))
        batches = hydra.multirun(config_name, job, list(overrides))
    return max(int(done.return_value) for batch in batches for done in batch)


def _importable(thing: Any) -> Any:
    """A function or class of a module that was started by ``python -m``, as another process finds it."""
    if thing.__module__ != "__main__":
        return thing
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "a sweep needs a command that is a module"
    return getattr(import_module(spec.name), thing.__name__)


def _run_job(
    composed: DictConfig, *, config_name: str, config_type: type[Config], run: Callable[[Config], None]
) -> int:
    said = shlex.join([f"pcm-{config_name.replace('_', '-')}", *HydraConfig.get().overrides.task])
    before = JOB.set(said)
    try:
        return status_of(lambda: run(config_of(composed, config_type)))
    finally:
        JOB.reset(before)


def _check_launcher(overrides: Sequence[str], installed: Sequence[str]) -> None:
    for override in overrides:
        found = re.match(r"hydra/launcher=(\S+)", override)
        if found and found[1] not in installed:
            raise ValueError(
                f"hydra/launcher={found[1]} is not installed, there are {', '.join(installed)}; joblib and ray come "
                "with pip install 'pcm_policy[sweep]', submitit_slurm with hydra-submitit-launcher"
            )


def _check_jobs(config_name: str, config_type: type[Any], overrides: Sequence[str]) -> None:
    """Refuse arguments that a job cannot have, and two jobs that would write into one place."""
    places: dict[Any, Sequence[str]] = {}
    for job in _jobs([override for override in overrides if not override.startswith("hydra")]):
        config: Any = load_config(config_name, config_type, job)
        for name in OUTPUTS:
            place = getattr(config, name, None)
            if place is None or config_name in SHARED:
                continue
            if place in places:
                differing = [(a, b) for a, b in zip(places[place], job, strict=True) if a != b]
                key = differing[0][0].partition("=")[0].lstrip("+") if differing else "training.seed"
                jobs = (
                    " and ".join(" ".join(said) for said in zip(*differing, strict=True)) or "the same twice"
                )
                raise ValueError(
                    f"two jobs would write into {name}={place}: {jobs}; name it after what differs, such as "
                    f"'{name}=outputs/${{{key}}}'"
                )
            places[place] = job


def _jobs(overrides: Sequence[str]) -> Iterator[list[str]]:
    """The arguments of each job; none for a range, which only other sweepers than Hydra's own know."""
    choices = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if not override.is_sweep_override():
            choices.append([override.input_line])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            return
    yield from map(list, product(*choices))
