"""The computation of chunks, one at a time: with which policy, which noises, and which prediction before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from policy import Prediction
from policy.exported import ExportedPolicy
from policy.runtime import Policy
from ros_nodes.policy_node.inference_worker import ChunkRequest, ComputedChunk, InferenceWorker
from ros_nodes.policy_node.loading import LoadedPolicy
from ros_nodes.policy_node.parameters import PolicyParameters, PolicySettings
from ros_nodes.policy_node.preparation import PolicyPreparation
from ros_nodes.policy_node.previous_prediction import PreviousPrediction


class ChunkComputation:
    """Computes chunks in a thread of its own, each with the sampler and the noises that are asked for by then.

    Args:
        policy: the plain policy.
        prepared: the same policy, made ready by `prepare`.
        parameters: of which the sampler and the seed may change.
        settings: the parameters that may not.
        period_ns: control period.
        notify: called from another thread when a chunk or an engine is ready.
        warn: called with what people should know of a sampler.

    Attributes:
        preparation: of the engine of another sampler.
    """

    def __init__(
        self,
        policy: LoadedPolicy,
        prepared: Policy | ExportedPolicy,
        *,
        parameters: PolicyParameters,
        settings: PolicySettings,
        period_ns: int,
        notify: Callable[[], None],
        warn: Callable[[str], None],
    ) -> None:
        self._parameters = parameters
        self._synchronous = settings.synchronous
        self._policy = prepared
        self._previous = PreviousPrediction(period_ns)
        self._request: ChunkRequest | None = None  # the one that the worker computes
        self.preparation = PolicyPreparation(
            policy, prepared, engine=settings.engine, threads=settings.threads, notify=notify, warn=warn
        )
        self._worker = InferenceWorker(notify, settings.threads)
        self.start_anew()

    @property
    def busy(self) -> bool:
        return self._worker.busy

    def start_anew(self) -> None:
        """Begin with the noises of the seed again. A chunk that is being computed will be dropped."""
        self.drop()
        self._seed = self._parameters.seed()
        self._generator = torch.Generator().manual_seed(self._seed)

    def drop(self) -> None:
        """Nothing continues what was before, a chunk that is being computed included."""
        self._request = None
        self._previous.forget()

    def follow_sampler(self) -> tuple[bool, bool]:
        """Change to the sampler that is asked for.

        Returns:
            Whether a chunk may be computed now, which it may not while the world waits for an engine, and whether the
            policy has changed.
        """
        policy = self.preparation.follow(self._parameters.sampler())
        if self.preparation.preparing and self._synchronous:
            return False, False
        changed = policy is not self._policy
        self._policy = policy
        return True, changed

    def submit(
        self, observations: NDArray[np.float64], *, stamp_ns: int, started_ns: int, arrived: float, delay: int
    ) -> None:
        """Begin to compute a chunk from observations; the arguments are as of `ChunkRequest`."""
        if self._parameters.seed() != self._seed:
            self.start_anew()
        previous, executed = self._previous.at(stamp_ns)
        self._request = ChunkRequest(
            policy=self._policy,
            observations=observations,
            generator=self._generator,
            noises=self._generator.get_state(),
            stamp_ns=stamp_ns,
            started_ns=started_ns,
            arrived=arrived,
            previous=previous,
            executed=executed,
            delay=delay,
        )
        self._worker.submit(self._request)

    def give_up(self, request: ChunkRequest) -> None:
        """Take back the noises of a request that got no answer. Nothing continues what was before."""
        self._generator.set_state(request.noises)
        self.drop()

    def take(self) -> tuple[ChunkRequest, ComputedChunk | Exception] | None:
        """The chunk that is ready, or what computing it raised; None for none, and for one that was dropped."""
        taken = self._worker.take()
        if taken is None or taken[0] is not self._request:
            return None
        self._request = None
        return taken

    def remember(self, prediction: Prediction, stamp_ns: int) -> None:
        """Take note of a prediction that is being executed, and the time of its newest observation."""
        self._previous.remember(prediction, stamp_ns)

    def close(self) -> None:
        """End the threads, after what they are computing."""
        self._worker.close()
        self.preparation.close()
