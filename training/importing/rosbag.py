"""Rosbag2 recordings as episodes, by the file that describes the robot to its policy node.

A bag is an episode, or it is cut where messages are missing, or where a topic says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from policy.robot.description import Robot, RobotError, Source
from policy.robot.fit import control_period_ns, task_of
from policy.robot.pictures import Picture
from policy.robot.robot_file import load_robot
from policy.task import Task, TaskError
from training.importing.bag_messages import BagError, bag_messages, bags_in
from training.importing.bag_sizes import image_sizes, number_counts
from training.importing.control_steps import ControlSteps, StepError, Stretch
from training.importing.frame_file import FrameFile
from training.importing.recording import (
    Advance,
    Choice,
    Dropped,
    Episode,
    EpisodeError,
    Item,
    Recording,
    RecordingError,
    count_frames,
)

COMMAND, NEXT_OBSERVATION = "command", "next_observation"
WHOLE, AT_GAPS = "none", "gaps"
MARKERS = ("std_msgs/Bool", "std_msgs/Empty", "std_msgs/String")
"""Types of a topic that cuts bags: each message begins an episode, only a Bool of false ends one."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How bags are read.

    Attributes:
        observed: indices of the observed numbers that are the actions, (A,); None for commands.
        split: where bags are cut: `WHOLE`, `AT_GAPS` or a topic.
        wanted: topics and their types.
    """

    robot: Robot
    task: Task
    observed: tuple[int, ...] | None
    split: str
    wanted: Mapping[str, tuple[str, ...]]


def open_rosbag(path: Path, choice: Choice) -> Recording:
    """Open bags: one, or a folder of them.

    Raises:
        RecordingError: for no bag, a robot's file that is missing or wrong, or a choice that bags do not have.
    """
    bags = bags_in(path)
    if not bags:
        raise RecordingError(f"{path}: no rosbag2: no metadata.yaml, no .mcap, no .db3, nor a folder of them")
    if not choice.robot:
        raise RecordingError(f"{path}: bags need robot=…, the file of the policy node's parameters")
    if choice.parts:
        raise RecordingError(
            f"{path}: the parts are those of {choice.robot}; parts=… is for other recordings"
        )
    if choice.actions not in ("", COMMAND, NEXT_OBSERVATION):
        raise RecordingError(
            f"{path}: actions of bags must be {COMMAND} or {NEXT_OBSERVATION}, got {choice.actions!r}"
        )
    try:
        plan = _plan(load_robot(choice.robot), bags, choice, name=choice.name or path.resolve().stem)
    except (RobotError, TaskError) as error:
        file = str(choice.robot)
        raise RecordingError(str(error) if file in str(error) else f"{file}: {error}") from error

    def read(index: int, advance: Advance) -> Iterator[Item]:
        bag = bags[index]
        try:
            yield from _read(bag, plan, advance)
        except (BagError, StepError) as error:
            command = plan.robot.command
            has_none = command is not None and str(error).startswith(f"topic {command.topic} is missing")
            hint = f"; actions={NEXT_OBSERVATION} needs none" if has_none else ""
            raise EpisodeError(f"{bag}: {error}{hint}") from error

    return Recording(
        path=path, format="rosbag2", task=plan.task, episodes=[bag.name for bag in bags], read=read
    )


def _plan(robot: Robot, bags: list[Path], choice: Choice, *, name: str) -> _Plan:
    rate = choice.rate or (1 / robot.control_period if robot.control_period else None)
    if rate is None:
        raise RobotError("says no control_period; rate=… (Hz) is required")
    uses_commands = choice.actions != NEXT_OBSERVATION
    task = task_of(
        robot,
        name=name,
        rate=rate,
        sizes=number_counts(robot, bags),
        image_sizes=image_sizes(robot, bags, choice.image_size),
    )
    control_period_ns(robot, task)  # the file's own must not contradict the rate
    sources = [*robot.sources, *([robot.command] if uses_commands and robot.command else [])]
    wanted: dict[str, tuple[str, ...]] = {}
    for source in sources:
        if wanted.setdefault(source.topic, (source.type,)) != (source.type,):
            raise RobotError(f"topic {source.topic} is {wanted[source.topic][0]} and {source.type}")
    if choice.split not in (WHOLE, AT_GAPS):
        if choice.split.lstrip("/") in {topic.lstrip("/") for topic in wanted}:
            raise RobotError(f"split={choice.split} tells of observations or commands, not of episodes")
        wanted[choice.split] = MARKERS
    return _Plan(
        robot=robot,
        task=task,
        observed=None if uses_commands else _observed(robot, task),
        split=choice.split,
        wanted=wanted,
    )


def _observed(robot: Robot, task: Task) -> tuple[int, ...]:
    """Where the positions of the commanded joints are in an observation."""
    if not robot.joints:
        raise RobotError("joints is empty, must name those whose next positions are the actions")
    indices = []
    for joint in robot.joints:
        found = [
            task.slices[source.name].start
            + source.joints.index(joint) * len(source.fields)
            + source.fields.index("position")
            for source in robot.sources
            if joint in source.joints and "position" in source.fields
        ]
        if len(found) != 1:
            raise RobotError(
                f"joint {joint!r} must have its position in one source to be its own action, has it in {len(found)}"
            )
        indices += found
    return tuple(indices)


def _read(bag: Path, plan: _Plan, advance: Advance) -> Iterator[Item]:
    """The episodes of a bag, named after it. Raises BagError and StepError."""
    with ExitStack() as stack:
        frames = {
            image.name: stack.enter_context(FrameFile((image.height, image.width)))
            for image in plan.task.images
        }
        yield from _read_with(frames, bag, plan, advance=advance)


def _read_with(
    frames: Mapping[str, FrameFile], bag: Path, plan: _Plan, *, advance: Advance
) -> Iterator[Item]:
    robot = plan.robot
    observing: dict[str, list[Source]] = {}
    for source in robot.sources:
        observing.setdefault(source.topic, []).append(source)
    command = robot.command if plan.observed is None else None
    steps = ControlSteps(robot, plan.task, observed=plan.observed, frames=frames)
    episodes = _Episodes(bag, plan, steps, frames=frames)
    for topic, message, now_ns in bag_messages(bag, plan.wanted, advance=advance):
        if topic == plan.split:
            yield from episodes.mark(begins=getattr(message, "data", True) is not False)
        if not episodes.begun:
            continue
        for source in observing.get(topic, ()):
            for stretch in steps.observe(source, message, now_ns):
                yield from episodes.take(stretch)
        if command is not None and topic == command.topic:
            steps.command(command, message, now_ns)
    yield from episodes.close()
    for topic, count in steps.left_out.items():
        yield Dropped(f"{bag.name}#{topic}", f"{count} messages, the first: {steps.reasons[topic]}")
    if steps.without_command:
        yield Dropped(f"{bag.name}#steps", f"{steps.without_command} steps without a command in force")


class _Episodes:
    """Makes episodes of the stretches of a bag."""

    def __init__(
        self, bag: Path, plan: _Plan, steps: ControlSteps, *, frames: Mapping[str, FrameFile]
    ) -> None:
        self._bag = bag
        self._frames = frames
        self._counted = dict.fromkeys(frames, 0)  # frames of each camera up to the last one that is seen
        self._plan = plan
        self._steps = steps
        self._number = 0
        self._held: list[Stretch] = []
        self._marked = plan.split not in (WHOLE, AT_GAPS)
        self.begun = not self._marked
        """Whether messages count."""

    def mark(self, *, begins: bool) -> Iterator[Item]:
        """A message of the topic that cuts bags."""
        if self.begun:
            yield from self._end()
            self._number += 1
        self._steps.forget()
        self.begun = begins

    def take(self, stretch: Stretch) -> Iterator[Item]:
        if self._plan.split == AT_GAPS:
            yield from self._cut(stretch)
        else:
            self._held.append(stretch)

    def close(self) -> Iterator[Item]:
        """The end of the bag. Raises StepError if it has no episode."""
        if self.begun:
            yield from self._end()
        elif not self._number:
            raise StepError(f"topic {self._plan.split}: begins no episode")

    def _end(self) -> Iterator[Item]:
        for stretch in self._steps.end():
            yield from self.take(stretch)
        if self._plan.split == AT_GAPS:
            if not self._number:
                raise StepError(self._steps.obstacle())
            return
        held, self._held = self._held, []
        name = f"{self._bag.name}#{self._number}" if self._marked else self._bag.name
        if not held:
            problem = self._steps.obstacle()
        elif len(held) > 1:
            problem = (
                f"gap after {_end_s(held[0], self._plan):.3f} s: {held[0].end}; split={AT_GAPS} cuts there"
            )
        elif len(held[0].actions) < 2:
            problem = "only one step"
        else:
            yield self._episode(name, held[0])
            return
        if not self._marked:
            raise StepError(problem)
        yield EpisodeError(f"{self._bag}: episode {name}: {problem}", name)

    def _cut(self, stretch: Stretch) -> Iterator[Item]:
        name = f"{self._bag.name}#{self._number}"
        self._number += 1
        if len(stretch.actions) < 2:
            yield Dropped(f"{name} piece", f"only one step, then {stretch.end or 'the end'}")
            return
        yield self._episode(name, stretch)
        if stretch.end:
            yield Dropped(f"{name} gap", f"after {_end_s(stretch, self._plan):.3f} s: {stretch.end}")

    def _episode(self, name: str, stretch: Stretch) -> Episode:
        task, observations = self._plan.task, stretch.observations
        pictures: dict[str, Iterator[Picture]] = {}
        frames: dict[str, Counter[str]] = {}
        for column, (camera, file) in enumerate(self._frames.items(), start=task.observation_dim):
            numbers = observations[:, column].astype(int).tolist()
            pictures[camera] = map(file.frame, numbers)
            frames[camera] = Counter()
            end = max(numbers) + 1
            count_frames(frames[camera], numbers, read=end - min(self._counted[camera], min(numbers)))
            self._counted[camera] = end
        return Episode(
            name=name,
            parts={part: observations[:, where] for part, where in task.slices.items()},
            actions=stretch.actions,
            pictures=pictures,
            frames=frames,
        )


def _end_s(stretch: Stretch, plan: _Plan) -> float:
    """Time of a stretch's last step, as its messages are stamped, in s."""
    return stretch.start_ns / 1e9 + (len(stretch.actions) - 1) / plan.task.rate
