"""Training objectives other than diffusion's: MIP's regression in two steps, and consistency distillation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from policy import DiffusionPolicy, SamplerConfig
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod
from training.policy.consistency import consistency_loss
from training.policy.mip import mip_loss
from training.policy.noise_prediction import TrainingData
from training.policy.train_policy import main

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100).float()
TINY = [
    "policy.down_dims=[8,16]",
    "policy.step_embed_dim=8",
    "policy.n_groups=4",
    "held_out_episodes=0",
    "rollout_episodes=0",
    "training.batch_size=8",
    "training.steps=10",
    "training.log_every=10",
    "training.checkpoint_every=10",
    "training.validate_every=10",
    "task=pusht",
]


class Recorded(nn.Module):
    """Answers by a function, and keeps what it was asked."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer, self.inputs, self.timesteps = answer, [], []

    def forward(self, sample: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        self.inputs.append(sample)
        self.timesteps.append(timestep)
        return self.answer(sample, timestep)


def data() -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    return TrainingData(torch.zeros(20, 40), torch.rand(20, 16, 2, generator=generator) * 2 - 1)


def options(**more) -> dict:
    generator = torch.Generator().manual_seed(5)
    return {"alphas_cumprod": ALPHAS_CUMPROD, "generator": generator, "share": slice(None), **more}


def test_mip_regresses_the_actions_from_zero_and_from_their_neighbourhood() -> None:
    windows, rows = data(), torch.arange(20)
    network = Recorded(lambda sample, timestep: torch.zeros_like(sample))
    loss = mip_loss(network, windows, rows, **options())
    zeros, near = network.inputs[0].chunk(2)
    assert not zeros.any()
    assert (near - windows.actions).std() == pytest.approx(0.1, rel=0.1)
    assert network.timesteps[0].tolist() == [99] * 20 + [10] * 20
    mean_square = windows.actions.square().mean()
    assert loss.item() == pytest.approx((mean_square / 0.9**2 + mean_square / 0.1**2).item(), rel=1e-5)
    actions = windows.actions.repeat(2, 1, 1)
    assert mip_loss(Recorded(lambda *_: actions), windows, rows, **options()).item() == 0


def test_a_student_that_knows_the_answer_has_no_consistency_loss() -> None:
    """Where the actions are one point, the exact noise is known: teacher, target and student agree."""
    point = torch.full((16, 2), 0.3)
    windows, rows = TrainingData(torch.zeros(1, 40), point[None]), torch.zeros(64, dtype=torch.long)

    def exact(sample: Tensor, timestep: Tensor) -> Tensor:
        alpha = ALPHAS_CUMPROD[timestep, None, None]
        return (sample - alpha.sqrt() * point) / (1 - alpha).sqrt()

    oracle, wrong = Recorded(exact), Recorded(lambda sample, timestep: sample)
    assert consistency_loss(oracle, windows, rows, **options(teacher=oracle, target=oracle)).item() < 1e-6
    assert consistency_loss(wrong, windows, rows, **options(teacher=oracle, target=oracle)).item() > 0.01


def test_the_goal_is_the_targets_prediction_after_the_teachers_step() -> None:
    """A teacher that always predicts 1 leads to states where the target is asked; the last goal is the teacher's."""

    def predicting(value: float):
        def answer(sample: Tensor, timestep: Tensor) -> Tensor:
            alpha = ALPHAS_CUMPROD[timestep, None, None]
            return (sample - alpha.sqrt() * value) / (1 - alpha).sqrt()

        return answer

    teacher, target, student = (Recorded(predicting(value)) for value in (1.0, 0.5, 0.0))
    loss = consistency_loss(
        student, data(), torch.arange(20), **options(teacher=teacher, target=target)
    ).item()
    asked, following = student.timesteps[0], target.timesteps[0]
    assert set(asked.tolist()) <= {90, 80, 70, 60, 50, 40, 30, 20, 10, 0}
    assert torch.equal(following, (asked - 10).clamp(min=0))
    last = (asked == 0).float().mean().item()
    assert loss == pytest.approx(last * 1.0**2 + (1 - last) * 0.5**2, rel=1e-3)
    now, then = ALPHAS_CUMPROD[asked, None, None], ALPHAS_CUMPROD[following, None, None]
    noise = (student.inputs[0] - now.sqrt()) / (1 - now).sqrt()  # of the teacher, who predicts 1
    rest = asked > 0
    torch.testing.assert_close(
        target.inputs[0][rest], (then.sqrt() + (1 - then).sqrt() * noise)[rest], atol=1e-4, rtol=0
    )


def test_policies_of_both_objectives_are_trained_judged_and_act(
    small_demonstrations: Path, tmp_path: Path, observations: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    def trained(name: str, *more: str) -> int:
        arguments = [*TINY, f"demonstrations={small_demonstrations}", f"output_dir={tmp_path / name}", *more]
        return main(arguments)

    teacher = f"teacher={tmp_path / 'noise' / 'policy.safetensors'}"
    assert trained("noise") == 0
    assert (
        trained("mip", "objective=mip", "held_out_episodes=1", "rollout_episodes=1", "rollout_max_steps=4")
        == 0
    )
    assert trained("consistency", "objective=consistency", teacher) == 0
    depths = {"noise": 50, "mip": 2, "consistency": 1}
    for name, depth in depths.items():
        policy = DiffusionPolicy.load(tmp_path / name / "policy.safetensors")
        assert policy.objective == name
        assert policy.predict(observations).depth == depth
    base, student = (
        DiffusionPolicy.load(tmp_path / name / "policy.safetensors") for name in ("noise", "consistency")
    )
    sampler = SamplerConfig(solver="ddim", steps=2)
    difference = student.with_sampler(sampler).predict(observations, noise=torch.zeros(3, 16, 2)).actions
    difference -= base.with_sampler(sampler).predict(observations, noise=torch.zeros(3, 16, 2)).actions
    assert 0 < difference.abs().max() < 100  # px: it began with its teacher's weights
    capsys.readouterr()
    assert trained("consistency", "objective=noise") == 1
    assert "belongs to a run with objective=consistency" in capsys.readouterr().err
    base_file = f"initial={tmp_path / 'noise' / 'policy.safetensors'}"
    wrong = f"teacher={tmp_path / 'mip' / 'policy.safetensors'}"
    for more, message in (
        (
            ["objective=consistency", wrong],
            "the teacher must be trained with objective=noise, it is with mip",
        ),
        (
            ["objective=consistency", teacher, "policy.down_dims=[8,32]"],
            "the teacher has policy.down_dims=(8, 16)",
        ),
        (["objective=consistency"], "objective=consistency needs teacher=…"),
        (["objective=mip", teacher], "teacher belongs to objective=consistency, not to mip"),
        (
            ["objective=mip", base_file],
            "the initial policy must be trained with objective=mip, it is with noise",
        ),
        (
            ["objective=consistency", teacher, base_file],
            "initial: a student begins with its teacher's weights",
        ),
        ([base_file, "normalization.keypoints=limits"], "initial brings its own normalization"),
        (["objective=flow"], "objective must be one of noise, mip, consistency, got 'flow'"),
        (
            ["objective=mip", "rollout_sampler.solver=ddim"],
            "rollout_sampler.solver must be one of mip for a policy",
        ),
    ):
        assert trained("refused", *more) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "refused").exists()
