"""Episodes of a policy that sees: the simulator's picture is its camera."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from seeing_policy import save_seeing_policy
from sensor_msgs.msg import Image

from policy import DiffusionPolicy, SamplerConfig
from policy.task_parts import ImagePart
from training.evaluation.rollout import run_episodes

CONFIG = Path(__file__).resolve().parents[3] / "config"
LAUNCH_FILE = CONFIG.parent / "launch" / "pusht.launch.py"
SEEDS, MAX_STEPS = range(4, 8), 28


def test_lockstep_episodes_have_the_rewards_of_pcm_evaluate_and_the_path_is_seen(
    graph: Any, tmp_path: Path
) -> None:
    checkpoint = save_seeing_policy(
        tmp_path / "seeing.safetensors", ImagePart(name="camera", height=96, width=96)
    )
    overlay = graph.start("ros_nodes.overlay.path_overlay", robot=CONFIG / "pusht_image.yaml")
    drawn = graph.listen(Image, "/path_overlay/camera")
    arguments = {
        "checkpoint": checkpoint,
        "output_dir": tmp_path / "out",
        "mode": "lockstep",
        "engine": "plain",
        "solver": "ddim",
        "steps": 4,
        "first_seed": SEEDS[0],
        "episodes": len(SEEDS),
        "max_steps": MAX_STEPS,
        "noise_seed": 3,
    }
    given = [f"{name}:={value}" for name, value in arguments.items()]
    output = graph.run("ros2", "launch", str(LAUNCH_FILE), *given, timeout=180)
    assert "Traceback" not in output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    policy = DiffusionPolicy.load(checkpoint, sampler=SamplerConfig(solver="ddim", steps=4))
    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # as the processes of the graph have: with more, a convolution rounds differently
    offline = run_episodes(policy, SEEDS, MAX_STEPS, noise_seed=3, batch_size=1, show_progress=False)
    torch.set_num_threads(threads)
    rewards = [row["max_reward"] for row in summary["episodes"]]
    assert rewards == [episode.max_reward for episode in offline.episodes]
    assert len(set(rewards)) >= 3, "where the block stands still, equal rewards say nothing"
    assert summary["failures"] == {}

    assert overlay.poll() is None, graph.output(overlay)
    pictures = [np.frombuffer(each.data, np.uint8).reshape(each.height, each.width, 3) for each in drawn]
    assert {picture.shape for picture in pictures} == {(384, 384, 3)}
    orange = [(picture == (255, 140, 0)).all(-1).any() for picture in pictures]
    assert any(orange), "no picture has the first point of a path"
