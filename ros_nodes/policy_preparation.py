"""Policies made ready by an engine, another sampler's in a thread of its own, so that the one in use goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from policy import DiffusionPolicy, SamplerConfig
from policy.runtime import Policy, serve


def prepare(policy: DiffusionPolicy, engine: str, threads: int) -> Policy:
    """Make a policy ready, as `serve`, for one robot.

    Args:
        threads: of the CPU, 0 for as many as PyTorch uses.
    """
    return serve(policy, 1, engine, threads or None)


class PolicyPreparation:
    """Prepares a policy for one sampler after the other; arguments as of `prepare`.

    Args:
        notify: called from the preparing thread when a policy is ready.
    """

    def __init__(
        self, policy: DiffusionPolicy, engine: str, threads: int, notify: Callable[[], None]
    ) -> None:
        self._policy = policy
        self._engine = engine
        self._threads = threads
        self._notify = notify
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="preparation")
        self._sampler: SamplerConfig | None = None
        self._future: Future[Policy] | None = None

    def prepared(self, sampler: SamplerConfig) -> Policy | None:
        """The policy with a sampler, or None while it is being prepared, which the first call of a sampler begins.

        Raises:
            ValueError, EngineError: as `prepare`.
        """
        if self._future is None or sampler != self._sampler:
            if self._future is not None:
                self._future.cancel()
            self._sampler = sampler
            policy = replace(self._policy, sampler=sampler)
            self._future = self._pool.submit(prepare, policy, self._engine, self._threads)
            self._future.add_done_callback(lambda _: self._notify())
        return self._future.result() if self._future.done() else None

    def close(self) -> None:
        """End the thread, after what it is preparing."""
        self._pool.shutdown(cancel_futures=True)
