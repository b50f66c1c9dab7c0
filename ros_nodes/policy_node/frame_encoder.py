"""One thread that turns cameras' messages into what the policy sees of them, as they arrive. Knows no ROS."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from policy.robot.fit import FilledPart
from policy.robot.message_types import Message
from policy.robot.pictures import FrozenCheck, Picture, camera_measurement, resize_picture
from policy.runtime import Policy
from ros_nodes.policy_node.inference_worker import started_thread

Encode: TypeAlias = Callable[[str, Picture], NDArray[np.float64]]
"""(part's name, picture (height, width, 3) in the part's size) → its features (F,)."""


def picture_encoder(policy: Policy) -> Encode:
    """What encodes the pictures of a policy's cameras, each by itself.

    Each camera's encoder has run once, since the first run of a process takes longer.
    """

    def encode(name: str, picture: Picture) -> NDArray[np.float64]:
        features: NDArray[np.float64] = (
            policy.encode_image(name, torch.tensor(picture)[None])[0].double().cpu().numpy()
        )
        return features

    for part in policy.task.images:
        encode(part.name, np.zeros(part.shape, np.uint8))
    return encode


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A camera's message.

    Attributes:
        part: which camera's.
        message: of ROS.
        now_ns: when it arrived on the node's clock.
        arrived: the same by `time.perf_counter`, in s.
    """

    part: FilledPart
    message: Message
    now_ns: int
    arrived: float


@dataclass(frozen=True, kw_only=True)
class EncodedFrame:
    """What a frame became.

    Attributes:
        frame: the frame.
        stamp_ns: when it was taken.
        features: (F,); or why there are none: a `RejectedObservation`, or what the encoder raised.
        seconds: what it took.
    """

    frame: Frame
    stamp_ns: int
    features: NDArray[np.float64] | Exception
    seconds: float


class FrameEncoder:
    """Encodes frames in the order of their arrival.

    Args:
        parts: the cameras.
        encode: what encodes a picture.
        notify: called from the encoder's thread when a frame is ready to be taken.
        threads: CPU threads; 0 for as many as PyTorch uses.
        every: whether every frame counts, as in lockstep. Otherwise a frame that still waits gives way to a newer one
            of its camera.

    Attributes:
        skipped: number of frames that gave way.
    """

    def __init__(
        self,
        parts: Mapping[str, FilledPart],
        encode: Encode,
        *,
        notify: Callable[[], None],
        threads: int,
        every: bool,
    ) -> None:
        self.skipped = 0
        self._encode = encode
        self._notify = notify
        self._every = every
        self._frozen = {name: FrozenCheck(part.source) for name, part in parts.items()}
        self._lock = Lock()
        self._waiting: dict[str, deque[Frame]] = {name: deque() for name in parts}
        self._ready: deque[tuple[int, EncodedFrame]] = deque()
        self._era = 0
        self._checked_era = 0
        self._pool = started_thread("encoding", threads)

    def submit(self, frame: Frame) -> None:
        """Encode a frame when those before it are done."""
        name = frame.part.slice.name
        with self._lock:
            waiting = self._waiting[name]
            if waiting and not self._every:
                waiting[-1] = frame
                self.skipped += 1
                return
            waiting.append(frame)
        self._pool.submit(self._run, name)

    def take(self) -> list[EncodedFrame]:
        """The frames that are ready, oldest first."""
        taken = []
        while self._ready:
            era, encoded = self._ready.popleft()
            if era == self._era:
                taken.append(encoded)
        return taken

    def forget(self) -> None:
        """Start anew: frames that are being encoded will not be taken."""
        with self._lock:
            self._era += 1
            for waiting in self._waiting.values():
                waiting.clear()

    def close(self) -> None:
        """End the thread, after the frame that it is encoding."""
        self._pool.shutdown(cancel_futures=True)

    def _run(self, name: str) -> None:
        with self._lock:
            era, waiting = self._era, self._waiting[name]
            if not waiting:  # forgotten
                return
            frame = waiting.popleft()
        if era != self._checked_era:
            self._checked_era = era
            for frozen in self._frozen.values():
                frozen.forget()
        self._ready.append((era, self._encoded(frame)))
        self._notify()

    def _encoded(self, frame: Frame) -> EncodedFrame:
        part, started = frame.part, time.perf_counter()
        name, image = part.slice.name, part.image
        assert image is not None
        stamp = frame.now_ns
        features: NDArray[np.float64] | Exception
        try:
            stamp, picture = camera_measurement(
                frame.message, part.source, frozen=self._frozen[name], now_ns=frame.now_ns
            )
            features = self._encode(name, resize_picture(picture, height=image.height, width=image.width))
        except Exception as error:  # the executor's thread tells what is refused from what has failed
            features = error
        return EncodedFrame(
            frame=frame, stamp_ns=stamp, features=features, seconds=time.perf_counter() - started
        )
