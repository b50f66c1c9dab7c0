"""The policy node's statistics as a diagnostic message."""

from __future__ import annotations

from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from ros_nodes.policy_node.policy_statistics import PolicyStatistics, percentile


def diagnostic_message(
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


def statistics_values(statistics: PolicyStatistics) -> dict[str, str]:
    """The statistics by name, with the unit in the name."""
    values = {"chunks": str(statistics.chunks)}
    for name, seconds in (
        ("latency", statistics.latencies),
        ("inference", statistics.inference_seconds),
        ("overhead", statistics.overheads),
    ):
        for percent in (50, 95, 99):
            values[f"{name}_p{percent}_ms"] = f"{percentile(seconds, percent) * 1e3:.2f}"
    values["iterations"] = str(statistics.iterations)
    values["network_evaluations"] = str(statistics.network_evaluations)
    values["residual"] = f"{statistics.residual:.3g}"
    values["deadline_cuts"] = str(statistics.deadline_cuts)
    values["clamped_points"] = str(statistics.clamped_points)
    values["deadline_misses"] = str(statistics.deadline_misses)
    values["non_finite_chunks"] = str(statistics.non_finite_chunks)
    values["goals_rejected"] = str(statistics.goals_rejected)
    values["goals_aborted"] = str(statistics.goals_aborted)
    values["rejected_observations"] = str(statistics.rejections.total())
    for (source, reason), count in sorted(statistics.rejections.items()):
        values[f"rejected_observations.{source}.{reason}"] = str(count)
    return values


def age_values(ages: Mapping[str, float | None]) -> dict[str, str]:
    """Age of the newest observation of each source by name."""
    return {
        f"observation_age_s.{source}": "none" if age is None else f"{age:.3f}" for source, age in ages.items()
    }
