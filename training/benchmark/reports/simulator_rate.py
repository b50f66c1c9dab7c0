"""Control steps per second of CPU time of one PushT environment: a program that runs in any interpreter.

  python simulator_rate.py MODULE STEPS

It drives the environment MODULE/PushT-v0 and prints JSON. `gym-pusht`'s interpreter has gymnasium and NumPy, and
nothing of this project.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module, metadata

import gymnasium
import numpy as np


def measure(module: str, steps: int) -> dict[str, float | str]:
    """Drive `<module>/PushT-v0` for a number of control steps, in this process.

    Returns:
        `steps_per_second` of CPU time, resets included, and the version of `pymunk`.
    """
    import_module(module)
    env = gymnasium.make(f"{module}/PushT-v0", obs_type="state", max_episode_steps=300)
    offsets = np.random.default_rng(0).normal(0.0, 60.0, (steps, 2))
    seed = 0
    observation, _ = env.reset(seed=seed)
    # The first step loads what is loaded lazily.
    env.step(observation[2:4])

    start = time.process_time()
    for offset in offsets:
        # Around the block, so that it is pushed about as often as in a demonstration.
        target = np.clip(observation[2:4] + offset, 0.0, 512.0)
        observation, _, terminated, truncated, _ = env.step(target)
        if terminated or truncated:
            seed += 1
            observation, _ = env.reset(seed=seed)
    return {"steps_per_second": steps / (time.process_time() - start), "pymunk": metadata.version("pymunk")}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
