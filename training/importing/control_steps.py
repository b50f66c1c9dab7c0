"""From a bag's messages to control steps, by the code that shows the policy its observations on the robot.

A step is what an `ObservationHistory` says at whole control periods after the first complete observation. Its action is
the command in force at the end of the period, or what is observed there. Knows neither bags nor ROS.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.robot.description import Robot, Source
from policy.robot.fit import control_period_ns, filled_parts, observation_history
from policy.robot.message_types import Message
from policy.robot.messages import command_points, measurement, message_stamp_ns
from policy.robot.observation_history import Arrival, RejectedObservation
from policy.robot.pictures import FrozenCheck, camera_measurement
from policy.robot.times import SECOND
from policy.task import Task
from training.importing.frame_file import FrameFile

LATEST = SECOND
"""How much later than observations of the same time a command may be in a bag, in ns."""

TOLERATED = frozenset({"black", "frame", "frozen", "joint", "order"})
"""Reasons for which a message is left out, as the node does. Others mean that the bag is damaged."""


class StepError(ValueError):
    """Messages of which no steps can be made. The message names the topic."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Steps without a gap.

    Attributes:
        observations: (n, D + I) float32: the numbers of all vectors, then of each camera the number of a frame.
        actions: (n, A) float32.
        start_ns: time of the first step.
        end: why there is no further one; empty at the end of the messages.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    start_ns: int
    end: str


@dataclass(frozen=True, kw_only=True)
class _Command:
    start_ns: int  # from then on it is in force
    due_ns: int  # when the robot shall be there
    values: NDArray[np.float64]


class ControlSteps:
    """Takes messages in the order of their arrival, and gives stretches of steps.

    Args:
        robot: what the messages mean.
        task: of which the steps are.
        observed: for actions that are the next observation: which of its numbers, (A,). None for commands.
        frames: takes the frames of each camera, by its part's name.

    Attributes:
        left_out: of each topic, how many messages the node would leave out, too.
        reasons: why the first of these was.
        without_command: steps that were left out because no command was in force.

    Raises:
        RobotError: for a robot that does not fill the task.
    """

    def __init__(
        self,
        robot: Robot,
        task: Task,
        *,
        observed: Sequence[int] | None = None,
        frames: Mapping[str, FrameFile] | None = None,
    ) -> None:
        self._robot, self._task = robot, task
        self._observed = None if observed is None else list(observed)
        self._period_ns = control_period_ns(robot, task)
        # Steps are taken when all sources have passed them. Until then no measurement that one needs may be forgotten.
        longest = max(robot.restart_gap, *(2 * source.max_age for source in robot.sources))
        held = math.ceil(longest * SECOND / self._period_ns) + 1
        self._history = observation_history(robot, task, steps=held)
        self._sizes = {part.slice.name: part.slice.size for part in filled_parts(robot, task)}
        self._next_ns: int | None = None  # time of the next step
        self._waiting: deque[tuple[int, NDArray[np.float64]]] = (
            deque()
        )  # times and observations without actions
        self._commands: deque[_Command] = deque()
        self._stamps: dict[str, int] = {}  # of each source's newest message
        self.left_out: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}
        self.without_command = 0
        self._arrived: Counter[str] = Counter()  # messages of each source
        self._sampled = 0
        self._frames = frames or {}
        self._frozen = {source.name: FrozenCheck(source) for source in robot.sources if source.is_camera}
        self._start()

    def observe(self, source: Source, message: Message, now_ns: int) -> Iterator[Stretch]:
        """Take in a message that tells of an observation.

        Args:
            now_ns: when it arrived.

        Raises:
            StepError: for numbers that are not finite, arrays of other lengths, a time that no clock shows, time that
                runs backwards, or topics that are all too slow.
        """
        name = source.name
        try:
            stamp, values = self._measurement(source, message, now_ns)
            arrival = self._history.add(name, stamp, values)
        except RejectedObservation as rejection:
            self._leave_out(source, rejection)
            return
        if arrival is Arrival.DUPLICATE:
            return
        if arrival is Arrival.RESTART:
            step = stamp - self._stamps.get(name, stamp)
            self._check_forwards(source, step)
            yield from self.end(f"topic {source.topic} is silent for {step / SECOND:.3g} s")
        self._stamps[name] = stamp
        self._arrived[name] += 1
        yield from self._take_steps()

    def _measurement(self, source: Source, message: Message, now_ns: int) -> tuple[int, NDArray[np.float64]]:
        if not source.is_camera:
            return measurement(message, source, size=self._sizes[source.name], now_ns=now_ns)
        stamp, picture = camera_measurement(message, source, frozen=self._frozen[source.name], now_ns=now_ns)
        return stamp, np.array([self._frames[source.name].add(picture)], dtype=np.float64)

    def command(self, source: Source, message: Message, now_ns: int) -> None:
        """Take in a message that tells a command. Arguments and errors are those of `observe`."""
        try:
            points = command_points(message, source, size=self._task.action_dim, now_ns=now_ns)
            start = message_stamp_ns(message, now_ns)
            _check_points(points)
            if (step := start - self._stamps.get(source.name, start)) < 0:
                if -step > max(self._robot.restart_gap, source.max_age) * SECOND:
                    self._check_forwards(source, step)
                raise RejectedObservation("order", f"{-step / SECOND:.3f} s older than its predecessor")
        except RejectedObservation as rejection:
            self._leave_out(source, rejection)
            return
        self._stamps[source.name] = start
        # It replaces what an earlier trajectory says of later times.
        while self._commands and self._commands[-1].start_ns >= start:
            self._commands.pop()
        for due, values in points:
            self._commands.append(_Command(start_ns=start, due_ns=due, values=values))
            start = max(start, due)

    def end(self, reason: str = "") -> Iterator[Stretch]:
        """End the steps that have begun, if any have. Raises StepError if all topics are too slow."""
        yield from self._act(math.inf)
        self._waiting.clear()
        self._next_ns = None
        yield from self._stretch(reason)

    def forget(self) -> None:
        """Start anew, as if nothing had arrived."""
        self._history.forget()
        for frozen in self._frozen.values():
            frozen.forget()
        self._commands.clear()
        self._stamps.clear()
        self._waiting.clear()
        self._next_ns = None
        self._start()

    def obstacle(self) -> str:
        """Why there was no step, naming the topics."""
        sources = [*self._robot.sources, *([self._robot.command] if self._robot.command else [])]
        if self._observed is not None:
            sources = list(self._robot.sources)
        for source in sources:
            if source.name not in self._stamps:
                count, reason = self.left_out[source.topic], self.reasons.get(source.topic)
                because = (
                    f"none of its {count} messages can be used: {reason}" if reason else "it has no messages"
                )
                return f"topic {source.topic}: {because}"
        newest = ", ".join(f"{source.topic} {self._stamps[source.name] / SECOND:.3f} s" for source in sources)
        return f"topics are never stamped within max_age of each other; newest stamps: {newest}"

    def _start(self) -> None:
        self._rows: list[NDArray[np.float32]] = []
        self._actions: list[NDArray[np.float32]] = []
        self._start_ns = 0

    def _take_steps(self) -> Iterator[Stretch]:
        """Sample the history at all control periods that no later message can change."""
        newest = self._history.newest_stamp()
        if newest is None:
            return
        if self._next_ns is None:
            self._next_ns = newest
        while self._next_ns <= newest:
            if silent := self._history.silent(self._next_ns):
                topic = next(source.topic for source in self._robot.sources if source.name == silent)
                yield from self.end(f"topic {topic} is silent for longer than twice its max_age")
                self._next_ns = newest
            self._waiting.append((self._next_ns, self._history.observation(self._next_ns)))
            self._next_ns += self._period_ns
            self._sampled += 1
        yield from self._act(newest - LATEST)

    def _act(self, until_ns: float) -> Iterator[Stretch]:
        """Give their actions to the observations that wait for one and whose period ends before a time."""
        while self._waiting:
            time, observation = self._waiting[0]
            if self._observed is not None:
                if len(self._waiting) < 2:
                    return
                action = self._waiting[1][1][self._observed]
            elif time + self._period_ns > until_ns:
                return
            else:
                command = self._command_at(time + self._period_ns)
                if command is None:
                    self._waiting.popleft()
                    self.without_command += 1
                    yield from self._stretch("no command is in force")
                    continue
                action = command.values
            self._waiting.popleft()
            if not self._rows:
                self._start_ns = time
            self._rows.append(observation.astype(np.float32))
            self._actions.append(action.astype(np.float32))

    def _command_at(self, end_ns: int) -> _Command | None:
        """The command in force at the end of a control period; a command of that very time belongs to the next one."""
        while len(self._commands) > 1 and self._commands[1].start_ns < end_ns:
            self._commands.popleft()
        if not self._commands or self._commands[0].start_ns >= end_ns:
            return None
        command, source = self._commands[0], self._robot.command
        assert source is not None
        age_ns = end_ns - max(command.start_ns, command.due_ns)
        return None if age_ns > source.max_age * SECOND else command

    def _stretch(self, reason: str) -> Iterator[Stretch]:
        rows, actions, start_ns = self._rows, self._actions, self._start_ns
        self._start()
        if not rows:
            return
        name, most = self._arrived.most_common(1)[0]
        if most + 1 < 2 / 3 * self._sampled:
            topic = next(source.topic for source in self._robot.sources if source.name == name)
            raise StepError(
                f"topic {topic}: {self._task.rate:g} Hz cannot be kept, no topic has more than "
                f"{most / self._sampled * self._task.rate:.3g} Hz"
            )
        yield Stretch(observations=np.stack(rows), actions=np.stack(actions), start_ns=start_ns, end=reason)

    def _check_forwards(self, source: Source, step_ns: int) -> None:
        if step_ns < 0:
            raise StepError(f"topic {source.topic}: time runs backwards by {-step_ns / SECOND:.3g} s")

    def _leave_out(self, source: Source, rejection: RejectedObservation) -> None:
        if rejection.reason not in TOLERATED:
            raise StepError(f"topic {source.topic}: {rejection}")
        self.left_out[source.topic] += 1
        self.reasons.setdefault(source.topic, str(rejection))


def _check_points(points: Sequence[tuple[int, NDArray[np.float64]]]) -> None:
    for _, values in points:
        finite = np.isfinite(values)
        if not finite.all():
            index = int(np.argmin(finite))
            raise RejectedObservation("not_finite", f"number {index} is {values[index]}")
