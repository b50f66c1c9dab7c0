"""What a node says on `/diagnostics`."""

from __future__ import annotations

from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

DIAGNOSTIC_PERIOD = 1.0  # s


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
