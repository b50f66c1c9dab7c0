"""What the policy node says on `/diagnostics`."""

from __future__ import annotations

from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from policy import SamplerConfig
from policy.sampling import sampler_options


def diagnostic_message(
    *,
    name: str,
    hardware_id: str,
    level: bytes,
    summary: str,
    values: Mapping[str, str],
    stamp: Time,
) -> DiagnosticArray:
    """One status for `/diagnostics`."""
    message = DiagnosticArray()
    message.header.stamp = stamp
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    message.status = [
        DiagnosticStatus(level=level, name=name, message=summary, hardware_id=hardware_id, values=pairs)
    ]
    return message


def sampler_values(sampler: SamplerConfig) -> dict[str, str]:
    """The sampler's options by name, such as `sampler.stop.iterations`."""
    return {name: str(value) for name, _, value in sampler_options(sampler)}


def age_values(ages: Mapping[str, float | None]) -> dict[str, str]:
    """Age of the newest observation of each source by name."""
    return {
        f"observation_age_s.{source}": "none" if age is None else f"{age:.3f}" for source, age in ages.items()
    }
