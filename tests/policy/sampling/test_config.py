from __future__ import annotations

import pytest

from policy.sampling import (
    METHOD_NAMES,
    METHODS,
    ParallelConfig,
    ParaSolverConfig,
    PartialConfig,
    PicardConfig,
    SamplerConfig,
    SamplerDefaults,
    StopConfig,
    sampler_from_options,
    sampler_options,
)
from policy.solvers import OWN_SOLVERS, SOLVERS

SAID = SamplerConfig(
    "picard", "dpmpp_2m", 8, stop=StopConfig(2, 0.1), picard=PicardConfig("drift", "held", 3)
)


def test_every_method_can_be_chosen() -> None:
    assert METHODS.keys() == set(METHOD_NAMES)


def test_every_option_has_a_name_and_a_description() -> None:
    names = [name for name, _, _ in sampler_options()]
    assert len(set(names)) == len(names) == 21
    assert {"sampler.method", "sampler.stop.iterations", "sampler.pcm.stiffness"} <= set(names)
    for name, option, value in sampler_options():
        assert option.metadata["description"], name
        assert value == option.default, name


def test_options_by_their_names_are_the_sampler() -> None:
    assert sampler_from_options({name: value for name, _, value in sampler_options(SAID)}) == SAID
    assert sampler_from_options({}) == SamplerConfig()
    assert sampler_from_options({"steps": 3, "stop.iterations": 2, "method": "picard"}) == SamplerConfig(
        "picard", steps=3, stop=StopConfig(2)
    )


def test_a_sampler_says_what_differs_from_the_defaults() -> None:
    assert str(SAID) == (
        "picard, dpmpp_2m, T = 8 (stop.iterations=2, stop.tolerance=0.1, picard.jacobian=drift, picard.start=held, "
        "picard.start_calls=3)"
    )
    assert str(SamplerConfig("sequential", "ddim", 10)) == "sequential, ddim, T = 10"
    without_noise = SamplerConfig("sequential", "ddim", 10, partial=PartialConfig(2, "none"))
    assert str(without_noise) == "sequential, ddim, T = 10 (partial.steps=2, partial.noise=none)"
    cold = SamplerConfig("picard", "ddim", 10, parallel=ParallelConfig(warm_start="none"))
    assert str(cold) == "picard, ddim, T = 10"


def test_what_is_not_said_is_chosen() -> None:
    assert SamplerConfig().resolved() == SamplerConfig("sequential", "ddim", 50)
    assert SamplerConfig("picard", steps=9).resolved() == SamplerConfig(
        "picard",
        "ddim",
        9,
        parallel=ParallelConfig(warm_start="none"),
        picard=PicardConfig("preconditioned", "fresh"),
    )
    assert SamplerConfig("parasolver").resolved().picard == PicardConfig()
    trained_for = SamplerDefaults("dpmpp_2m", 5, "drift", "gaussian", "parameter", "actions")
    resolved = SamplerConfig("pcm", picard=PicardConfig(start="fresh")).resolved(trained_for)
    assert (resolved.solver, resolved.steps, resolved.pcm.space) == ("dpmpp_2m", 5, "parameter")
    assert resolved.picard == PicardConfig("drift", "fresh")
    assert resolved.uses_previous
    cold = SamplerConfig("pcm", parallel=ParallelConfig(warm_start="none"))
    assert not cold.resolved(trained_for).uses_previous


@pytest.mark.parametrize(
    ("method", "option", "value", "methods"),
    [
        ("sequential", "stop.iterations", 2, "methods picard, parasolver, pcm"),
        ("sequential", "parallel.warm_start", "actions", "methods picard, parasolver, pcm"),
        ("parasolver", "picard.jacobian", "drift", "methods picard, pcm"),
        ("picard", "parasolver.sub_intervals", 2, "method parasolver"),
        ("picard", "pcm.stiffness", 2.0, "method pcm"),
    ],
)
def test_an_option_of_another_method_is_refused_by_name(
    method: str, option: str, value: object, methods: str
) -> None:
    message = rf"sampler\.{option}={value} belongs to the {methods}, not to {method}"
    with pytest.raises(ValueError, match=message):
        sampler_from_options({"method": method, "steps": 4, option: value})


def test_calls_belong_to_the_start_that_makes_them() -> None:
    with pytest.raises(
        ValueError, match=r"sampler\.picard\.start_calls=2 belongs to the start held, not to gaussian"
    ):
        SamplerConfig("picard", picard=PicardConfig(start="gaussian", start_calls=2))
    with pytest.raises(
        ValueError, match=r"sampler\.parasolver\.sub_intervals must divide sampler\.steps 10, got 4"
    ):
        SamplerConfig("parasolver", steps=10, parasolver=ParaSolverConfig(4))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("method", "euler", f"must be one of {', '.join(METHOD_NAMES)}, got 'euler'"),
        ("solver", "heun", f"must be one of auto, {', '.join([*SOLVERS, *OWN_SOLVERS])}, got 'heun'"),
        (
            "picard.jacobian",
            "newton",
            "must be one of auto, jacobi, drift, semilinear, preconditioned, got 'newton'",
        ),
        ("picard.start", "zero", "must be one of auto, fresh, repeated, held, gaussian, got 'zero'"),
        ("stop.iterations", -1, "must be in 0 … 1000, got -1"),
        ("stop.tolerance", float("nan"), r"must be in 0\.0 … 10\.0, got nan"),
        ("pcm.stiffness", -1.0, r"must be in 0\.0 … 1000\.0, got -1\.0"),
        ("parallel.window", -1, "must be in 0 … 1000, got -1"),
        ("steps", 1001, "must be in 0 … 1000, got 1001"),
    ],
)
def test_impossible_options_are_refused(option: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=rf"sampler\.{option} {message}".replace(".j", r"\.j")):
        sampler_from_options({option: value})
