"""PushT for gymnasium: importing this package registers `pusht_env/PushT-v0`."""

import os
from importlib.util import find_spec

if find_spec("gymnasium") is None or find_spec("pymunk") is None:
    raise ModuleNotFoundError("the simulator needs: pip install 'pcm_policy[sim]'", name="gymnasium")

from gymnasium.envs.registration import register

from pusht_env.block import GOAL_POSE, coverage, keypoint_observation
from pusht_env.env import PushTEnv

__all__ = ["GOAL_POSE", "PushTEnv", "coverage", "keypoint_observation"]

# Otherwise pygame prints a greeting to standard output, among the results of programs.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

register(id="pusht_env/PushT-v0", entry_point="pusht_env.env:PushTEnv", max_episode_steps=200)
