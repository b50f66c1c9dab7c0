"""What the next chunk may begin with: the prediction before it. Knows no ROS."""

from __future__ import annotations

from policy import Prediction


class PreviousPrediction:
    """The last prediction that was sent to the robot, and how far the world has moved on since its observations.

    Args:
        control_period_ns: control period in ns.
    """

    def __init__(self, control_period_ns: int) -> None:
        self._control_period_ns = control_period_ns
        self._newest: tuple[Prediction, int] | None = None

    def remember(self, prediction: Prediction, stamp_ns: int) -> None:
        """Take note of a prediction that is being executed, and the time of its newest observation."""
        self._newest = prediction, stamp_ns

    def forget(self) -> None:
        """The world or the noises start anew: nothing continues what was before."""
        self._newest = None

    def at(self, stamp_ns: int) -> tuple[Prediction | None, int | None]:
        """The prediction, and the whole number of control periods from its observation to a later one.

        Both are None where there is no prediction, or no period lies between.
        """
        if self._newest is None:
            return None, None
        prediction, then_ns = self._newest
        executed = round((stamp_ns - then_ns) / self._control_period_ns)
        return (prediction, executed) if executed >= 1 else (None, None)
