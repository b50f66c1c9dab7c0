"""Subscriptions that refuse a message by its size, before it becomes Python objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message

MOST_BYTES = 64 * 1024
"""Of a message: 1,000 joints, 1,000 points of a trajectory, or 8,000 numbers."""

CDR_HEADER = 4
"""Bytes that every serialised message begins with. Of fewer, rmw_cyclonedds_cpp reads beyond the end, and dies."""


def subscribe_bounded(
    node: Node,
    message_type: Any,
    topic: str,
    *,
    callback: Callable[[Any], None],
    refuse: Callable[[str, str], None],
    qos: QoSProfile | int,
    most_bytes: int = MOST_BYTES,
    keep: Callable[[bytes], object] | None = None,
) -> Any:
    """Subscribe to a topic of which anybody may send anything.

    rclpy would turn all of a message into Python objects before it asks anybody: one of a million points keeps a node
    for 4 s, and a trajectory of as many for 45 s. So the bytes are taken as they came, which takes milliseconds.

    Args:
        node: node that subscribes.
        message_type: class of the messages.
        topic: name of the topic.
        callback: called with each message.
        refuse: called with reason and detail instead: `size` for a message with more bytes than `most_bytes`,
            `malformed` for bytes that are no such message.
        qos: of the subscription.
        most_bytes: of a serialised message.
        keep: called with the bytes of each message that is not too large, before it is read.
    """

    def receive(serialized: bytes) -> None:
        if len(serialized) > most_bytes:
            refuse("size", f"{len(serialized)} bytes, at most {most_bytes} are read")
            return
        if len(serialized) < CDR_HEADER:
            refuse("malformed", f"{len(serialized)} bytes, a message has at least {CDR_HEADER}")
            return
        if keep is not None:
            keep(serialized)
        try:
            message = deserialize_message(serialized, message_type)
        except Exception as error:  # of rclpy's C code, whose types are not public
            refuse("malformed", f"no {message_type.__name__}: {error}")
            return
        callback(message)

    return node.create_subscription(message_type, topic, receive, qos, raw=True)
