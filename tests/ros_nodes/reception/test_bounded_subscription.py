from __future__ import annotations

from typing import Any

from geometry_msgs.msg import PolygonStamped
from std_msgs.msg import Float64MultiArray

from ros_nodes.reception.bounded_subscription import subscribe_bounded


def test_what_is_refused_by_its_size_is_never_converted(graph: Any) -> None:
    heard: list[Any] = []
    refused: list[tuple[str, str]] = []
    subscribe_bounded(
        graph.node,
        Float64MultiArray,
        "numbers",
        callback=heard.append,
        refuse=lambda reason, detail: refused.append((reason, detail)),
        qos=10,
        most_bytes=900,
    )
    publisher = graph.publisher(Float64MultiArray, "numbers")
    publisher.publish(bytes(904))  # no message of the type, which conversion would notice
    graph.spin_until(lambda: refused, "a refusal")
    assert refused == [("size", "904 bytes, at most 900 are read")]
    publisher.publish(Float64MultiArray(data=[1.0, 2.0]))
    graph.spin_until(lambda: heard, "a message")
    assert heard[0].data.tolist() == [1.0, 2.0]
    assert len(refused) == 1


def test_bytes_that_are_no_message_of_the_type_are_refused(graph: Any) -> None:
    heard: list[Any] = []
    refused: list[tuple[str, str]] = []
    subscription = subscribe_bounded(
        graph.node,
        PolygonStamped,
        "points",
        callback=heard.append,
        refuse=lambda reason, detail: refused.append((reason, detail)),
        qos=10,
    )
    # What DDS would not hand on: a header, and a text longer than the message.
    subscription.callback(b"\0\1\0\0" + bytes(8) + b"\xff\xff\xff\x7f")
    # And what ended the process.
    for length in range(4):
        subscription.callback(bytes(length))
    assert [reason for reason, _ in refused] == ["malformed"] * 5
    assert not heard
