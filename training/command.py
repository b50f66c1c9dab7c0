"""The common part of every command: Hydra configuration, `--help`, errors in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from importlib.resources import files
from textwrap import wrap
from typing import TypeVar, get_origin, get_type_hints

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, OverrideParseException
from omegaconf import Container, DictConfig, Node, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from policy.sampling import SamplerConfig, sampler_options
from policy.sampling.config import SECTION_METHODS

Config = TypeVar("Config")

CONF = "training.conf"
MOST_INT = 2**1023  # beyond, Python cannot make a float of it, and OmegaConf does not say of which key
SWEEP = frozenset({"-m", "--multirun"})
LONGEST_LINE = 2000  # letters of an error: some quote what a file or an argument holds

# `SamplerConfig` has the descriptions, choices and defaults of a sampler's options, so no YAML repeats them.
ConfigStore.instance().store(group="sampler", name="options", node=OmegaConf.create(asdict(SamplerConfig())))


def run_command(
    config_name: str,
    config_type: type[Config],
    run: Callable[[Config], None],
    *,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a command with a configuration from `training/conf` and ``key=value`` arguments.

    Args:
        config_name: name of the command's YAML file, whose comments are the command's help.
        config_type: dataclass of the configuration; its ``__post_init__`` checks values.
        run: function of the command.
        argv: arguments; by default those of the process.

    Returns:
        Exit status of the process: 0, 1 for an error that the command names, 130 for Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        print(_help(config_name))
        return 0
    if SWEEP & set(arguments):
        from training.sweep import run_sweep  # it knows this module

        overrides = [argument for argument in arguments if argument not in SWEEP]
        return status_of(lambda: run_sweep(config_name, config_type, run, overrides=overrides))
    return status_of(lambda: run(load_config(config_name, config_type, arguments)))


def status_of(call: Callable[[], int | None]) -> int:
    """The exit status of a call, None for 0, or of its error, which is said in one line."""
    try:
        return call() or 0
    except (
        ValueError,
        ArithmeticError,
        OSError,
        RuntimeError,
        MemoryError,
        RecursionError,
        HydraException,
        OmegaConfBaseException,
    ) as error:
        # Long words are values, quoted from an argument or a file; what is said of them comes after.
        line = re.sub(r"\S{200,}", lambda word: f"{word[0][:100]}…", _one_line(error))
        print(f"error: {line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + '…'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def load_config(config_name: str, config_type: type[Config], overrides: Sequence[str] = ()) -> Config:
    """Compose a configuration and turn it into its dataclass.

    Raises:
        ValueError: for an argument that is not ``key=value``, or a required key that is missing.
        HydraException, OmegaConfBaseException: for a key, a choice or a value that does not exist.
    """
    overrides = hydra_overrides(config_name, config_type, overrides)
    for override in overrides:
        if override.startswith("hydra"):
            raise ValueError(f"{override} belongs to a sweep, whose first argument is -m")
    with initialize_config_module(CONF, version_base="1.3"):
        try:
            composed = compose(config_name, list(overrides))
        except (TypeError, ValueError) as error:
            # Hydra takes a list of numbers for one of names, and stumbles over the first.
            if isinstance(error, ValueError) and "Config group override must be" not in str(error):
                raise
            raise ValueError(
                f"a choice is a name, got a number or the like in {' '.join(overrides)}"
            ) from error
    assert isinstance(composed, DictConfig)
    return config_of(composed, config_type)


def hydra_overrides(config_name: str, config_type: type, overrides: Sequence[str]) -> list[str]:
    """Arguments as Hydra wants them.

    Raises:
        ValueError: for an argument that is not ``key=value``.
    """
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"arguments look like key=value, got {override!r} (--help lists the keys)")
        if re.match(r"[+~]*\w*sampler=", override):
            raise ValueError(
                f"a sampler is a method and a solver: sampler.method=… sampler.solver=…, got {override!r}"
            )
    presets = f"{config_name}_preset"
    if (
        files(CONF) / presets
    ).is_dir():  # presets of this command alone, which are chosen by preset=… as well
        overrides = [re.sub("^preset=", f"{presets}=", override) for override in overrides]
    for name in _open_sections(config_type):
        overrides = [re.sub(rf"^{re.escape(name)}\.", f"++{name}.", override) for override in overrides]
    return list(overrides)


def config_of(composed: DictConfig, config_type: type[Config]) -> Config:
    """The dataclass of a composed configuration.

    Raises:
        ValueError: for a required key that is missing, or a value that is not allowed.
        OmegaConfBaseException: for a key that does not exist, or a value of another type.
    """
    missing = sorted(str(key) for key in OmegaConf.missing_keys(composed))
    if missing:
        raise ValueError(f"{missing[0]}=… is required (--help explains the keys)")
    schema = OmegaConf.structured(config_type)
    _refuse_values_of_sections(schema, composed)
    _make_writable(schema)
    merged = OmegaConf.merge(schema, composed)
    assert isinstance(merged, DictConfig)
    _check_sections(merged)
    config = OmegaConf.to_object(merged)
    assert isinstance(config, config_type)
    return config


def _refuse_values_of_sections(schema: DictConfig, composed: DictConfig, prefix: str = "") -> None:
    """Refuse a value in place of a section, which OmegaConf does without the key's name."""
    for key in map(str, composed):
        section = schema._get_node(key) if key in schema else None
        type_ = OmegaConf.get_type(section) if isinstance(section, DictConfig) else None
        number = composed._get_node(key)
        if isinstance(number, Node) and isinstance(number._value(), int) and abs(number._value()) >= MOST_INT:
            raise ValueError(f"{prefix}{key} is too large a number")
        if not isinstance(section, DictConfig) or not is_dataclass(type_):
            continue
        value = composed._get_node(key)
        if not isinstance(value, DictConfig) or value._is_none():
            first = fields(type_)[0].name
            raise ValueError(f"{prefix}{key} is a section of keys such as {prefix}{key}.{first}, no value")
        _refuse_values_of_sections(section, value, f"{prefix}{key}.")


def _open_sections(config_type: type) -> Iterator[str]:
    """Names of the sections whose keys are the user's."""
    for name, type_ in get_type_hints(config_type).items():
        if get_origin(type_) is dict:
            yield name
        elif is_dataclass(type_) and isinstance(type_, type):
            yield from (f"{name}.{inner}" for inner in _open_sections(type_))


def _check_sections(config: DictConfig, prefix: str = "") -> None:
    """Construct the dataclass of every section, so that a message names a key as it was written, with its section."""
    for key in map(str, config):
        section = config._get_node(key)
        type_ = OmegaConf.get_type(section) if isinstance(section, DictConfig) else None
        if not isinstance(section, DictConfig) or not is_dataclass(type_):
            continue
        name = f"{prefix}{key}"
        _check_sections(section, f"{name}.")
        with named_as_written(name, [option.name for option in fields(type_)]):
            OmegaConf.to_object(section)


@contextmanager
def named_as_written(section: str, options: Sequence[str] = ()) -> Iterator[None]:
    """Name the keys in messages of `ValueError` as they are written on the command line.

    Args:
        section: name of the section, such as ``rollout_sampler``, which a `SamplerConfig` calls ``sampler``.
        options: names of options that a message may begin with, without their section.
    """
    try:
        yield
    except ValueError as error:
        message = re.sub(r"(?<![\w.])sampler\.", f"{section}.", str(error))
        if re.split(r"\W", message)[0] in options and not message.startswith(f"{section}."):
            message = f"{section}.{message}"
        raise ValueError(message) from error


def _make_writable(node: Container) -> None:
    """Let values be merged into a schema of frozen dataclasses, which OmegaConf makes read-only."""
    OmegaConf.set_readonly(node, False)
    if isinstance(node, DictConfig):
        for key in node:
            child = node._get_node(key)
            if isinstance(child, Container):
                _make_writable(child)


def _help(config_name: str) -> str:
    conf = files(CONF)
    text = (conf / f"{config_name}.yaml").read_text(encoding="utf-8").strip()
    parts = [text]
    for folder in sorted((entry for entry in conf.iterdir() if entry.is_dir()), key=lambda entry: entry.name):
        # A group belongs to a command if the command's list of defaults names it.
        if f"- {folder.name}: " not in text:
            continue
        for choice in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if choice.name.endswith(".yaml"):
                name = choice.name.removesuffix(".yaml")
                key = folder.name.removeprefix(f"{config_name}_")
                parts.append(f"# {key}={name}\n{choice.read_text(encoding='utf-8').strip()}")
    if sections := re.findall(r"- sampler(?:@(\w+))?: options", text):
        parts.append(_sampler_help([section or "sampler" for section in sections]))
    return "\n\n".join(parts)


def _sampler_help(sections: Sequence[str]) -> str:
    """The options of samplers as YAML with comments: of the first, for they are the same for all."""
    section, *others = sections
    lines = [", ".join(f"# {name}.KEY=…" for name in sections), f"{section}:"]
    if others:
        lines[1] += f"  # and {', '.join(others)}"
    before = ""
    for name, option, value in sampler_options():
        *inner, key = name.removeprefix("sampler.").split(".")
        if inner and inner[0] != before:
            before = inner[0]
            methods = SECTION_METHODS[before]
            lines.append(
                f"  {before}:  # of the method{'s' if len(methods) > 1 else ''} {', '.join(methods)}"
            )
        choices = f" ({', '.join(option.metadata['choices'])})" if "choices" in option.metadata else ""
        indent = "    " if inner else "  "
        lines += [f"{indent}# {line}" for line in wrap(option.metadata["description"] + choices, 110)]
        lines.append(f"{indent}{key}: {value}")
    return "\n".join(lines)


def _one_line(error: BaseException) -> str:
    """The error's cause in one line, without Hydra's internals."""
    while isinstance(error, HydraException) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OverrideParseException):
        said = f"cannot read the argument {error.override!r}"
        key, _, value = str(error.override).partition("=")
        if re.search(r"[\"'\[\]{}$\\]", value) or not value.isprintable():
            return said
        # Hydra's grammar knows few letters without quotes.
        return f"""{said}; a value with other than plain letters needs quotes: '{key}="{value}"'"""
    if isinstance(error, (ConfigKeyError, ConfigAttributeError)):
        beside = error.parent_node if isinstance(error.parent_node, DictConfig) else ()
        allowed = ", ".join(str(key) for key in beside if key != "hydra")
        return f"there is no key {error.full_key!r}; keys beside it: {allowed}"
    if isinstance(error, MemoryError):
        return f"not enough memory ({error})" if str(error) else "not enough memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    noise = ("Config search path", "provider=", "object_type=", "reference_type=")
    return " ".join(line for line in lines if not line.startswith(noise))
