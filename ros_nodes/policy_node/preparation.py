"""Engines prepared in the background: when the sampler changes, the plain policy acts until the new engine is ready."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import replace

import torch

from policy import DiffusionPolicy, SamplerConfig
from policy.exported import ExportedPolicy
from policy.runtime import Policy, serve
from ros_nodes.policy_node.inference_worker import started_thread
from ros_nodes.policy_node.loading import LoadedPolicy


def prepare(policy: LoadedPolicy, engine: str, threads: int) -> Policy | ExportedPolicy:
    """Make a policy ready for one robot, as `serve` does; that of a server is.

    Args:
        policy: policy with the sampler to use.
        engine: engine of `serve`.
        threads: CPU threads; 0 for as many as PyTorch uses.
    """
    if isinstance(policy, ExportedPolicy):
        return policy
    return serve(policy, engine=engine, threads=threads or None)


class PolicyPreparation:
    """The policy to act with, for one sampler after the other: with the engine once it is ready, plain until then.

    Args:
        policy: the plain policy, which may act at any time.
        prepared: the same policy with its sampler, made ready by `prepare`.
        engine, threads: arguments of `prepare`.
        notify: called from the preparing thread when the engine is ready, or has failed.
        warn: called by `follow`, once each, with `failure`, or with how a sampler differs from what its PCM was
            trained for.

    Attributes:
        preparing: whether the engine is still being prepared for the newest sampler.
        failure: why the engine cannot be prepared for it; empty if it can.
    """

    def __init__(
        self,
        policy: LoadedPolicy,
        prepared: Policy | ExportedPolicy,
        *,
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
        self._future: Future[Policy | ExportedPolicy] | None = None

    def follow(self, sampler: SamplerConfig) -> Policy | ExportedPolicy:
        """The policy to act with now. The first call with a sampler begins to prepare its engine."""
        if isinstance(self._policy, ExportedPolicy):  # its server has one sampler
            return self._policy
        if sampler != self._ready.sampler:
            self._follow_unprepared(self._policy, sampler)
        if sampler != self._ready.sampler:
            return self._plain
        self.preparing, self.failure = False, ""
        return self._ready

    def _follow_unprepared(self, policy: DiffusionPolicy, sampler: SamplerConfig) -> None:
        if self._future is None or sampler != self._plain.sampler:
            if self._future is not None:
                self._future.cancel()
            # What the sampler needs is made by its first chunk, in the worker's thread: callers must not wait for it.
            plain = replace(policy, sampler=sampler)
            if plain.pcm_mismatch:
                self._warn(plain.pcm_mismatch)
            self._plain = plain
            self._future = self._pool.submit(self._prepare, policy, sampler)
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

    def _prepare(self, policy: DiffusionPolicy, sampler: SamplerConfig) -> Policy | ExportedPolicy:
        # Copies of the networks: an export changes its network for a while, and the plain policy acts meanwhile.
        pcm = policy.pcm and replace(policy.pcm, network=deepcopy(policy.pcm.network))
        network = deepcopy(policy.network)
        policy = replace(policy, sampler=sampler, network=network, pcm=pcm)
        return prepare(policy, self._engine, self._threads)

    def close(self) -> None:
        """End the thread once it has prepared what it is preparing."""
        self._pool.shutdown(cancel_futures=True)
