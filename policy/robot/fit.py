"""Whether a robot fills a task: every part has its source, every action its joint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.robot.description import Robot, RobotError, Source
from policy.robot.observation_history import ObservationHistory, SourceSlice
from policy.robot.times import SECOND
from policy.task import Command, Part, Task

PERIOD_TOLERANCE = 0.01
"""How far a control period may be from the task's, as a share: 0.033 s are 30 Hz."""


@dataclass(frozen=True, kw_only=True)
class FilledPart:
    """A part of a task, and the source that fills it."""

    source: Source
    slice: SourceSlice


def filled_parts(robot: Robot, task: Task) -> tuple[FilledPart, ...]:
    """The parts of a task with their sources, in the order of the task. Other sources are left out.

    Raises:
        RobotError: naming the first part that has no source, one of another size, or one in another order.
    """
    sources = {source.name: source for source in robot.sources}
    filled = []
    for part in task.vectors:
        if part.name not in sources:
            raise RobotError(
                f"part {part.name!r} of the task {task.name!r} has no source: observation_sources are "
                f"{', '.join(sources)}"
            )
        source = sources[part.name]
        _check_part(part, source)
        where = task.slices[part.name]
        max_age_ns = round(source.max_age * SECOND)
        filled.append(
            FilledPart(
                source=source,
                slice=SourceSlice(name=part.name, first=where.start, size=part.size, max_age_ns=max_age_ns),
            )
        )
    return tuple(filled)


def _check_part(part: Part, source: Source) -> None:
    size = source.size
    if size is None and part.size % (len(source.fields) or 1):
        raise RobotError(
            f"part {part.name!r} has {part.size} numbers, its source gives {len(source.fields)} for each point"
        )
    if size is not None and size != part.size:
        gives = f"{len(source.joints)} joints × " if source.kind.by_joint else ""
        raise RobotError(
            f"part {part.name!r} has {part.size} numbers ({some(part.names)}), its source gives {size}: "
            f"{gives}{len(source.fields)} fields"
        )
    _check_order(f"part {part.name!r}", part.names, source.number_names(part.size))


def joint_names(robot: Robot, task: Task) -> tuple[str, ...]:
    """The joints that the task's actions are for.

    Raises:
        RobotError: for joints that are not as many as the actions, or in another order.
    """
    action = task.action
    names = robot.joints or action.names
    if len(names) != action.size:
        raise RobotError(
            f"joints are {len(names)} ({some(names)}), the task {task.name!r} commands {action.size} "
            f"({some(action.names)})"
        )
    _check_order("joints", action.names, names)
    return names


def position_columns(robot: Robot, task: Task) -> dict[str, dict[str, int]]:
    """Where the robot's sources measure positions of the joints that it commands.

    Returns:
        For each source that does, by its name: the index among its numbers of each such joint.

    Raises:
        RobotError: for a robot that does not fill the task.
    """
    commanded = set(joint_names(robot, task))
    columns = {}
    for source in (part.source for part in filled_parts(robot, task)):
        if source.kind.by_joint and "position" in source.fields:
            size, first = len(source.fields), source.fields.index("position")
            found = {name: index * size + first for index, name in enumerate(source.joints)}
            columns[source.name] = {name: found[name] for name in commanded & found.keys()}
    return columns


def control_period_ns(robot: Robot, task: Task) -> int:
    """The task's control period in ns.

    Raises:
        RobotError: if the robot's contradicts it.
    """
    period = 1 / task.rate
    if robot.control_period and abs(robot.control_period - period) > PERIOD_TOLERANCE * period:
        raise RobotError(
            f"control_period is {robot.control_period:g} s, the task {task.name!r} has {task.rate:g} Hz, which is "
            f"{period:g} s; 0 takes the task's"
        )
    return round(SECOND / task.rate)


def observation_history(
    robot: Robot,
    task: Task,
    *,
    steps: int = 1,
    limits: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> ObservationHistory:
    """The history that turns measurements of a robot's sources into observations of a task.

    Args:
        steps: number of observations in a history.
        limits: (observation_dim,) each, beyond which a value is refused; none if None.

    Raises:
        RobotError: for a robot that does not fill the task.
    """
    nowhere = np.full(task.observation_dim, np.inf)
    lower, upper = limits or (-nowhere, nowhere)
    return ObservationHistory(
        [part.slice for part in filled_parts(robot, task)],
        lower,
        upper,
        steps=steps,
        period_ns=control_period_ns(robot, task),
        restart_gap_ns=round(robot.restart_gap * SECOND),
    )


def task_of(robot: Robot, *, name: str, rate: float, sizes: Mapping[str, int]) -> Task:
    """The task that a robot's own recordings are of: its sources are the parts, its command the action.

    Args:
        name: of the task.
        rate: control steps a second, in Hz.
        sizes: numbers that sources give of which only the messages tell how many, by the source's name; for the
            commands as well.

    Raises:
        RobotError: if nothing says what is commanded, or how many numbers a source gives.
        TaskError: for a task that cannot be.
    """
    parts = []
    for source in robot.sources:
        size = _size(source, sizes)
        parts.append(Part(name=source.name, names=source.number_names(size), units=source.number_units(size)))
    command = robot.command
    if command is None:
        raise RobotError("nothing says what is commanded: joints or command.topic must have a value")
    size = _size(command, sizes)
    names = robot.joints if len(robot.joints) == size else command.number_names(size)
    limits = {
        key: tuple(None if math.isnan(limit) else limit for limit in getattr(robot, f"{key}_limits"))
        or (None,) * size
        for key in ("lower", "upper")
    }
    action = Command(names=names, units=command.number_units(size), **limits)
    return Task(name=name, rate=rate, observation=tuple(parts), action=action)


def _size(source: Source, sizes: Mapping[str, int]) -> int:
    size = sizes.get(source.name) if source.size is None else source.size
    if size is None:
        raise RobotError(f"only messages tell how many numbers {source.name!r} gives, and there is none")
    return size


def _check_order(where: str, wanted: Sequence[str], given: Sequence[str]) -> None:
    """The same names in another order are a mistake; names of other kinds are not."""
    if set(wanted) == set(given) and tuple(wanted) != tuple(given):
        raise RobotError(f"{where} must be in the order {some(wanted)}, got {some(given)}")


def some(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
