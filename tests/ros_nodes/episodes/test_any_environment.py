"""Episodes of a robot that is not PushT: a gymnasium environment behind the trajectory execution."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from policy import DiffusionPolicy, PolicyConfig, SamplerConfig
from policy.normalizer import fit_normalizer
from slider_env import TASK
from training.evaluation.environment import EnvironmentConfig
from training.evaluation.rollout import run_episodes

SLIDER = EnvironmentConfig("slider_env:Slider-v0", {"goal": "goal_position"})
MODULE = "ros_nodes.simulator.environment_simulator_node"
ARGUMENTS = {"environment.id": "slider_env:Slider-v0", "environment.observation.goal": "goal_position"}
SEEDS, MAX_STEPS = range(5, 9), 14
ROBOT = """
/**:
  ros__parameters:
    observation_sources: [goal, arm]
    goal: {topic: goal/state, type: sensor_msgs/JointState, joints: [goal_a, goal_b, goal_c]}
    arm: {topic: joint_states, type: sensor_msgs/JointState, joints: [a, b, c]}
    range_margin: 5.0
"""


@pytest.fixture
def sliding(tmp_path: Path) -> Path:
    """A checkpoint of an untrained policy of the slider's task."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    observations, actions = (2 * torch.rand((64, size), generator=random) - 1 for size in (6, 3))
    config = PolicyConfig(horizon=8, action_steps=4, down_dims=(8, 16), step_embed_dim=8, n_groups=4)
    normalizer = fit_normalizer(TASK, observations, actions, scaling={})
    policy = DiffusionPolicy(config.build_network(TASK).eval(), TASK, config, normalizer, provenance={})
    policy.save(tmp_path / "sliding.safetensors")
    return tmp_path / "sliding.safetensors"


def test_lockstep_episodes_have_the_rewards_of_pcm_evaluate(
    graph: Any, sliding: Path, tmp_path: Path
) -> None:
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState
    from std_msgs.msg import Float64MultiArray

    robot = tmp_path / "robot.yaml"
    robot.write_text(ROBOT)
    given = {name.replace(".", "__"): value for name, value in ARGUMENTS.items()}
    graph.start(MODULE, mode="lockstep", checkpoint=sliding, **given)
    statuses: list[list[float]] = []
    graph.node.create_subscription(
        Float64MultiArray, "/simulator/episode", lambda message: statuses.append(message.data.tolist()), 1000
    )
    settings = ["checkpoint:=" + str(sliding), "engine:=plain", "sampler.solver:=ddim", "sampler.steps:=2"]
    settings += ["synchronous:=true", "use_sim_time:=true"]
    options = [text for setting in settings for text in ("-p", setting)]
    graph.start("ros_nodes.policy_node.node", "--ros-args", "--params-file", str(robot), *options)
    for label in ("configure", "activate"):
        request = ChangeState.Request(transition=Transition(label=label))
        assert graph.call(ChangeState, "/policy/change_state", request).success, graph.logs()
    runner = graph.start(
        "ros_nodes.episodes.episode_runner",
        output_dir=tmp_path / "out",
        first_seed=SEEDS[0],
        episodes=len(SEEDS),
        max_steps=MAX_STEPS,
        noise_seed=3,
        simulator="simulator",
        controller="joint_trajectory_controller",
    )
    graph.spin_until(lambda: runner.poll() is not None, "the episode runner ends", timeout=300)
    assert runner.returncode == 0, graph.logs()

    policy = DiffusionPolicy.load(sliding, sampler=SamplerConfig(solver="ddim", steps=2))
    offline = run_episodes(
        policy, SEEDS, MAX_STEPS, noise_seed=3, batch_size=1, environment=SLIDER, show_progress=False
    )
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    for episode, row in zip(offline.episodes, summary["episodes"], strict=True):
        assert len(set(episode.rewards)) > 5, "where nothing moves, equal rewards say nothing"
        rewards = [status[2] for status in statuses if status[0] == episode.seed and status[1] > 0]
        assert rewards == episode.rewards.tolist()
        assert (row["seed"], row["max_reward"]) == (episode.seed, episode.max_reward)
        assert (row["success"], row["steps"]) == (episode.success, episode.steps)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({}, "error: parameter checkpoint must name a safetensors file of a policy, whose task it is"),
        (
            {"checkpoint": "{checkpoint}"},
            "error: task 'slide' has no environment of its own: environment.id=… names",
        ),
        (
            {"checkpoint": "{checkpoint}", "environment__id": "slider_env:Slider-v0"},
            "error: environment 'slider_env:Slider-v0' observes no 'goal', but arm, camera",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_in_one_line(
    graph: Any, sliding: Path, arguments: dict[str, str], line: str
) -> None:
    process = graph.start(
        MODULE, **{name: text.format(checkpoint=sliding) for name, text in arguments.items()}
    )
    assert process.wait(60) == 1
    errors = [said for said in graph.output(process).splitlines() if said.startswith("error:")]
    assert len(errors) == 1
    assert errors[0].startswith(line)
