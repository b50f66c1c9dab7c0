"""A six-joint arm that puts a cube onto a target: importing this registers `viperx/PickPlace-v0` with gymnasium."""

from gymnasium.envs.registration import register

register(
    id="viperx/PickPlace-v0",
    entry_point="viperx.environment:PickPlaceEnv",
    max_episode_steps=150,
)
