"""The values that the policy node shows on `/diagnostics`. Knows no ROS."""

from __future__ import annotations

from collections.abc import Mapping

from policy import SamplerConfig
from policy.sampling import sampler_options


def sampler_values(sampler: SamplerConfig) -> dict[str, str]:
    """The sampler's options by name, such as `sampler.stop.iterations`."""
    return {name: str(value) for name, _, value in sampler_options(sampler)}


def age_values(ages: Mapping[str, float | None]) -> dict[str, str]:
    """Age of the newest observation of each source by name."""
    return {
        f"observation_age_s.{source}": "none" if age is None else f"{age:.3f}" for source, age in ages.items()
    }
