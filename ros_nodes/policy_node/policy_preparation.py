"""Policies made ready by an engine, another sampler's in a thread of its own, while the plain policy acts with it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import replace

import torch

from policy import DiffusionPolicy, SamplerConfig
from policy.runtime import Policy, serve
from ros_nodes.policy_node.inference_worker import started_thread


def prepare(policy: DiffusionPolicy, engine: str, threads: int) -> Policy:
    """Make a policy ready, as `serve`, for one robot.

    Args:
        threads: of the CPU, 0 for as many as PyTorch uses.
    """
    return serve(policy, engine=engine, threads=threads or None)


class PolicyPreparation:
    """The policy to act with, for one sampler after the other: by the engine where it is ready, and plain until then.

    Args:
        policy: that may act plainly at any time.
        prepared: the same with its sampler, made ready by `prepare`.
        engine, threads: as of `prepare`.
        notify: called from the preparing thread when the engine is ready, or has failed.
        warn: called by `follow`, once, with `failure`, or with what a sampler's PCM was not trained for.

    Attributes:
        preparing: whether the engine is not ready for the sampler that was followed last.
        failure: that it will not be, and why; empty otherwise.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        prepared: Policy,
        engine: str,
        threads: int,
        notify: Callable[[], None],
        warn: Callable[[str], None],
    ) -> None:
        self.preparing = False
        self.failure = ""
        self._policy = policy
        self._ready = self._plain = prepared
        self._engine = engine
        self._threads = threads or torch.get_num_threads()
        self._notify = notify
        self._warn = warn
        self._pool = started_thread("preparation", threads)
        self._future: Future[Policy] | None = None

    def follow(self, sampler: SamplerConfig) -> Policy:
        """The policy to act with now; the first call with a sampler begins to prepare it."""
        if sampler != self._ready.sampler:
            self._follow_unprepared(sampler)
        if sampler != self._ready.sampler:
            return self._plain
        self.preparing, self.failure = False, ""
        return self._ready

    def _follow_unprepared(self, sampler: SamplerConfig) -> None:
        if self._future is None or sampler != self._plain.sampler:
            if self._future is not None:
                self._future.cancel()
            # Its first chunk, in another thread, makes what the sampler needs: callers must not wait for that.
            plain = replace(self._policy, sampler=sampler)
            if plain.pcm_mismatch:
                self._warn(plain.pcm_mismatch)
            self._plain = plain
            self._future = self._pool.submit(self._prepare, sampler)
            self._future.add_done_callback(lambda _: self._notify())
            self.failure = ""
        self.preparing = not self._future.done()
        if self.preparing or self.failure:
            return
        if error := self._future.exception():
            self.failure = f"the policy acts without the engine {self._engine!r}, which failed: {error}"
            self._warn(self.failure)
        else:
            self._ready = self._plain = self._future.result()
            self._future = None

    def _prepare(self, sampler: SamplerConfig) -> Policy:
        # Networks of its own: exporting one changes it for a while, and the plain policy acts meanwhile.
        pcm = self._policy.pcm and replace(self._policy.pcm, network=deepcopy(self._policy.pcm.network))
        network = deepcopy(self._policy.network)
        policy = replace(self._policy, sampler=sampler, network=network, pcm=pcm)
        return prepare(policy, self._engine, self._threads)

    def close(self) -> None:
        """End the thread, after what it is preparing."""
        self._pool.shutdown(cancel_futures=True)
