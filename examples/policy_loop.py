"""A policy in a loop: observe, predict a chunk from the chunk before, act.

python examples/policy_loop.py
"""

import gymnasium
import numpy as np
import torch

import pusht_env  # noqa: F401 (makes PushT known to gymnasium)
from policy import DiffusionPolicy, SamplerConfig
from policy.sampling import ParallelConfig, StopConfig

torch.manual_seed(0)
parallel = ParallelConfig(warm_start="actions")
sampler = SamplerConfig("picard", "dpmpp_2m", 5, stop=StopConfig(iterations=3), parallel=parallel)
policy = DiffusionPolicy.load("checkpoints/pusht_mirror.safetensors", sampler=sampler)
env = gymnasium.make("pusht_env/PushT-v0", max_episode_steps=300)
observation, _ = env.reset(seed=100000)
history, rewards, prediction, ended = [observation, observation], [], None, False
while not ended:
    observations = torch.from_numpy(np.stack(history[-2:]))[None]  # (1, 2, 20) px
    prediction = policy.predict(observations, previous=prediction)
    for action in prediction.chunk[0].numpy():  # 8 targets of the pusher, px
        observation, reward, success, timeout, _ = env.step(action)
        history.append(observation)
        rewards.append(float(reward))
        if ended := success or timeout:
            break
print(f"{len(rewards)} control steps, largest reward {max(rewards):.3f}")
