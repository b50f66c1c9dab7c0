"""The PushT of the package gym-pusht, seen by the keypoints of the published demonstrations.

pip install --target gym_pusht_site --no-deps gym-pusht==0.1.8 'pymunk<7' opencv-python-headless
PYTHONPATH=gym_pusht_site:examples pcm-evaluate environment.id=gym_pusht_keypoints:GymPushTKeypoints-v0 \
  sampler.solver=dpmpp_2m sampler.steps=5 episodes=50 max_steps=300 output_dir=outputs/gym_pusht
"""

from typing import Any

import gymnasium
import numpy as np

from pusht_env.block import keypoint_observation


def make_environment(**options: Any) -> gymnasium.Env[Any, Any]:
    """gym-pusht with an observation (20,) in px: 9 points on the block, then the pusher."""
    env = gymnasium.make("gym_pusht:gym_pusht/PushT-v0", obs_type="state", **options)
    space = gymnasium.spaces.Box(-np.inf, np.inf, (20,), np.float64)
    return gymnasium.wrappers.TransformObservation(env, keypoint_observation, space)


gymnasium.register("GymPushTKeypoints-v0", entry_point=make_environment)
