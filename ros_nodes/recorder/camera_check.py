"""What is wrong with a camera, said before it is recorded. Knows no ROS."""

from __future__ import annotations

from policy.robot.description import RobotError, Source
from policy.robot.message_types import Message
from policy.robot.messages import check_frame, message_stamp_ns
from policy.robot.observation_history import RejectedObservation
from policy.robot.pictures import FrozenCheck, camera_measurement, check_decoder
from policy.robot.times import SECOND

LOOK_AGAIN = SECOND // 2
"""Between two looks at a picture, in ns: decoding each of them would take a core."""


class CameraCheck:
    """Looks at the messages of a camera.

    Attributes:
        blind: why pictures cannot be looked at here; empty if they can.
        size: height and width in px of the newest picture that was looked at.
    """

    def __init__(self, source: Source) -> None:
        self.blind = ""
        self.size: tuple[int, int] | None = None
        self._source = source
        self._frozen = FrozenCheck(source)
        self._looked_ns: int | None = None
        try:
            check_decoder(source)
        except RobotError as error:
            self.blind = str(error)

    def stamp(self, message: Message, now_ns: int) -> int:
        """When a message was taken, in ns.

        Raises:
            RejectedObservation: if it would be refused as an observation, or for a picture of another size than the one
                before.
        """
        looked = self._looked_ns
        if self.blind or (looked is not None and 0 <= now_ns - looked < LOOK_AGAIN):
            check_frame(message, self._source.frame_id)
            stamp = message_stamp_ns(message, now_ns)
            self._frozen.check(message, stamp)
            return stamp
        self._looked_ns = now_ns
        stamp, picture = camera_measurement(message, self._source, frozen=self._frozen, now_ns=now_ns)
        before, self.size = self.size, (picture.shape[0], picture.shape[1])
        if before is not None and before != self.size:
            sizes = ["×".join(map(str, size)) for size in (self.size, before)]
            raise RejectedObservation("size", f"{sizes[0]} px after {sizes[1]}")
        return stamp
