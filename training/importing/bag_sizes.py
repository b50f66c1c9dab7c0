"""What only the messages of bags tell of a robot's sources: how many numbers they give, how large pictures are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from policy.robot.description import Robot, Source
from policy.robot.message_types import Message
from policy.robot.observation_history import RejectedObservation
from policy.robot.pictures import check_decoder, message_picture
from training.importing.bag_messages import BagError, bag_messages


def number_counts(robot: Robot, bags: list[Path]) -> dict[str, int]:
    """Numbers of the sources of which only messages tell how many."""
    sizes: dict[str, int] = {}
    for source in (*robot.sources, *([robot.command] if robot.command else [])):
        if source.size is None and source.kind.count is not None:
            for message in _first_messages(source, bags):
                sizes[source.name] = source.kind.count(message, source.fields)
                break
    return sizes


def image_sizes(robot: Robot, bags: list[Path], wanted: tuple[int, int] | None) -> dict[str, tuple[int, int]]:
    """Height and width of each camera's part: as it is wanted, or of its first picture."""
    sizes: dict[str, tuple[int, int]] = {}
    for source in robot.sources:
        if not source.is_camera:
            continue
        check_decoder(source)
        if wanted is not None:
            sizes[source.name] = wanted
            continue
        for message in _first_messages(source, bags):
            with suppress(RejectedObservation):  # said when its turn comes
                sizes[source.name] = message_picture(message).shape[:2]
                break
    return sizes


def _first_messages(source: Source, bags: list[Path]) -> Iterator[Message]:
    """The first message of a source in each bag."""
    for bag in bags:
        with suppress(BagError):  # said when its turn comes
            for _, message, _ in bag_messages(bag, {source.topic: (source.type,)}):
                yield message
                break
