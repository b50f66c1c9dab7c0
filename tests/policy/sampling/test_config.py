from __future__ import annotations

import pytest

from policy.sampling import SamplerConfig
from policy.sampling.config import SAMPLERS


def test_a_sampler_names_its_solver_where_it_is_not_ddim() -> None:
    assert "dpm_solver" in str(SamplerConfig("picard", 4, solver="dpm_solver"))
    assert "ddim" not in str(SamplerConfig("picard", 4))
    for name in ("ddim", "parasolver"):
        assert "dpm_solver" not in str(SamplerConfig(name, 4, solver="dpm_solver"))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("name", "euler", f"must be one of {', '.join(SAMPLERS)}, got 'euler'"),
        ("formulation", "newton", "must be one of jacobi, drift, semilinear, preconditioned, got 'newton'"),
        ("solver", "ddpm", "must be one of ddim, dpm_solver, got 'ddpm'"),
        ("initialisation", "zero", "must be one of fresh, repeated, parasolver, gaussian, got 'zero'"),
        ("iterations", 0, "must be in 1 … 1000, got 0"),
        ("tolerance", float("nan"), r"must be in 0\.0 … 10\.0, got nan"),
        ("stiffness", -1.0, r"must be in 0\.0 … 1000\.0, got -1\.0"),
        ("window", -1, "must be in 0 … 1000, got -1"),
    ],
)
def test_impossible_options_are_refused(option: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=rf"sampler\.{option} {message}"):
        SamplerConfig(**{option: value})
