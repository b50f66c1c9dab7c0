"""Record demonstrations of the scripted expert as a store that pcm-train-policy reads.

    python -m viperx.demonstrate viperx.zarr --episodes 300

The arm does not quite do what the expert commands: a little noise on its joints shows the policy how to come back.
Recorded is what the expert commanded. Episodes without success are dropped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import gymnasium
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.data.write_demonstrations import write_demonstrations
from training.provenance import code_version, command_line
from viperx.environment import Observation
from viperx.expert import expert_action
from viperx.task import TASK

Rows = tuple[NDArray[np.float64], NDArray[np.float64]]


def demonstrate(seed: int, noise: float) -> Rows | None:
    """Observations (n, 11) and actions (n, 6) of an episode; None if the expert did not succeed.

    Args:
        seed: of the episode's initial state, and of the noise.
        noise: standard deviation in rad of what is added to the joints' commands.
    """
    env = gymnasium.make("viperx/PressButtons-v0")
    observation: Observation
    observation, _ = env.reset(seed=seed)
    random = np.random.default_rng(seed)
    observations, actions, ended = [], [], False
    while not ended:
        action = expert_action(observation)
        observations.append(np.concatenate([observation[part.name] for part in TASK.observation]))
        actions.append(action)
        noisy = action + random.normal(0.0, noise, len(action))
        observation, _, terminated, truncated, _ = env.step(noisy)
        ended = terminated or truncated
    env.close()
    return (np.array(observations), np.array(actions)) if terminated else None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("viperx.demonstrate", description="Record demonstrations of the expert.")
    parser.add_argument("output", help="folder of the zarr store, where nothing may be yet")
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument(
        "--first-seed", type=int, default=0, help="of the first episode; each has the next one"
    )
    parser.add_argument("--noise", type=float, default=0.02, help="on the joints, in rad")
    options = parser.parse_args(argv)
    origin = {name: value for name, value in vars(options).items() if name != "output"}
    provenance = {"code": code_version(), "command": command_line(), **origin}
    seeds = range(options.first_seed, options.first_seed + options.episodes)
    try:
        with write_demonstrations(options.output, TASK, origin=origin, provenance=provenance) as writer:
            for seed in tqdm(seeds, desc="demonstrations", unit="episode"):
                if str(seed) in writer.sources:  # of the run that this one continues
                    continue
                rows = demonstrate(seed, options.noise)
                if rows is None:
                    writer.drop(str(seed), "no success")
                else:
                    writer.append(*rows, source=str(seed))
            steps, episodes, dropped = writer.ends[-1:], len(writer.ends), len(writer.dropped)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: {episodes} episodes, {sum(steps)} steps; {dropped} dropped, without success")
    return 0


if __name__ == "__main__":
    sys.exit(main())
