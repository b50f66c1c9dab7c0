"""A fleet of simulated robots that act through one policy server, at 10 Hz of wall time, and what became of them.

python examples/fleet/robots.py http://127.0.0.1:8000/ outputs/fleet/policy.xml
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Barrier

import numpy as np

from policy.exported import ExportedPolicy, open_exported
from policy.exported.graph_files import Arrays
from policy.exported.remote import open_remote
from training.evaluation.rollout import run_episodes

ROBOTS, FIRST_SEED, MAX_STEPS = 16, 100_000, 200


@dataclass
class PacedServer:
    """The server's graph for one robot, asked no sooner than the robot has executed its chunk, and how long it took."""

    policy: ExportedPolicy
    seconds: list[float]
    due: float = 0.0

    def run(self, inputs: Arrays) -> list[np.ndarray]:
        time.sleep(max(0.0, self.due - time.perf_counter()))
        started = time.perf_counter()
        self.due = max(self.due, started) + self.policy.config.action_steps / self.policy.task.rate
        outputs = self.policy.run(inputs)
        self.seconds.append(time.perf_counter() - started)
        return outputs


def main(address: str, file: str) -> None:
    """Run the episodes of `ROBOTS` robots at once, and the same ones from the file."""
    # Late chunks are counted here, not lost: the simulated world waits for them.
    remote, seeds = open_remote(address, time_limit=60.0), range(FIRST_SEED, FIRST_SEED + ROBOTS)
    servers = [PacedServer(remote, []) for _ in seeds]
    chunk_seconds = remote.config.action_steps / remote.task.rate
    together = Barrier(ROBOTS)

    def episode(server: PacedServer, seed: int) -> float:
        together.wait()
        time.sleep(chunk_seconds * (seed - FIRST_SEED) / ROBOTS)  # robots do not ask all at once
        policy = replace(remote, run=server.run)
        return run_episodes(policy, [seed], MAX_STEPS, show_progress=False).episodes[0].max_reward

    with ThreadPoolExecutor(ROBOTS) as pool:
        rewards = list(pool.map(episode, servers, seeds))
    alone = run_episodes(open_exported(file), seeds, MAX_STEPS, show_progress=False).episodes
    differences = [abs(a - b.max_reward) for a, b in zip(rewards, alone, strict=True)]
    milliseconds = 1000 * np.array([taken for server in servers for taken in server.seconds[1:]])
    p50, p99 = np.percentile(milliseconds, [50, 99])
    print(f"{ROBOTS} robots, {len(milliseconds)} chunks, {chunk_seconds:g} s each")
    print(f"mean reward {np.mean(rewards):.4f}, from the file {np.mean([e.max_reward for e in alone]):.4f}")
    print(f"largest difference of an episode's reward {max(differences):.2g}")
    print(f"ms from request to chunk: median {p50:.1f}, 99 % {p99:.1f}, largest {milliseconds.max():.1f}")
    print(f"chunks later than a control step: {(milliseconds > 1000 / remote.task.rate).sum()}")
    print(f"chunks later than the chunk before them lasts: {(milliseconds > 1000 * chunk_seconds).sum()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
