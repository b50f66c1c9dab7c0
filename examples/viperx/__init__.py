"""A six-joint arm that presses two buttons: importing this registers `viperx/PressButtons-v0` with gymnasium."""

from gymnasium.envs.registration import register

register(
    id="viperx/PressButtons-v0",
    entry_point="viperx.environment:PressButtonsEnv",
    max_episode_steps=100,
)
