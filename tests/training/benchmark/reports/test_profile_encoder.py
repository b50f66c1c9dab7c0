from __future__ import annotations

import torch

from policy import Command, DiffusionPolicy, ImagePart, Normalizer, PolicyConfig, Range, Task
from policy.image_encoder_config import ImageEncoderConfig
from training.benchmark.reports.profile_encoder import encoder_table, measure_encoders
from training.benchmark.reports.profile_floor import Floor

CONFIG = PolicyConfig(
    horizon=8,
    action_steps=4,
    down_dims=(8, 16),
    step_embed_dim=8,
    n_groups=4,
    image_encoder=ImageEncoderConfig(width=16, features=8, crop=1.0),
)
TASK = Task(
    name="seen",
    rate=10,
    observation=(ImagePart(name="camera", height=32, width=32),),
    action=Command(names=("x",), units=("px",), lower=(None,), upper=(None,)),
)


def test_encoders_have_a_row_for_each_engine_and_a_floor() -> None:
    zeros = torch.zeros(0)
    encoders = CONFIG.build_encoders(TASK)
    assert encoders is not None
    policy = DiffusionPolicy(
        CONFIG.build_network(TASK).eval(),
        TASK,
        CONFIG,
        Normalizer(Range(zeros, zeros), Range(torch.zeros(1), torch.ones(1))),
        encoders=encoders.eval(),
    )
    measured = measure_encoders(policy, ["eager", "openvino"], threads=1, calls=3, seed=0)

    assert {name: len(each) for name, each in measured["milliseconds"].items()} == {"plain": 3, "openvino": 3}
    # The first convolution alone: 16 × 16 places, 16 channels of 7 × 7 × 3 products and sums.
    assert measured["flops"] > 2 * 16 * 16 * 16 * 7 * 7 * 3
    assert measured["weight_bytes"] == 4 * sum(p.numel() for p in encoders.parameters())
    slow = Floor(flops=1, weight_bytes=1, flops_per_second=1000 * measured["flops"], bytes_per_second=1e30)
    table = encoder_table({**measured, "milliseconds": {"plain": [2.0, 3.0, 4.0]}}, slow)
    assert "| plain" in table
    assert "3.0" in table.splitlines()[-1]  # a floor of 1 ms, a median of 3
