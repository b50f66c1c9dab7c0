from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imageio.v2 as imageio
import pytest
import torch
from safetensors.torch import load_file

from policy import DiffusionPolicy, PicardConfig, SamplerConfig
from training.benchmark.covariances import conditional_covariance, covariances, marginal_covariance
from training.benchmark.run import main
from training.data.demonstrations import load_demonstrations
from training.data.windows import Windows
from training.pcm.build_trajectories import main as build

TRAINING = [
    "preset=fast",
    "rank=2",
    "epochs=4",
    "iterations=null",
    "loss_weight=constant",
    "floor=0",
    "base_iterations=0",
    "start_model=base",
    "held_out_samples=8",
    "training.batch_size=8",
    "training.learning_rate=1e-2",
    "training.warmup_steps=0",
    "training.log_every=1",
    "training.checkpoint_every=2",
    "training.validate_every=8",
]


@pytest.fixture
def arguments(benchmark_arguments: list[str], trained: DiffusionPolicy, tmp_path: Path) -> list[str]:
    trained.save(tmp_path / "policy.safetensors")
    return [
        *benchmark_arguments,
        "report=ablations",
        "steps=[3,4]",
        "ablations.depths=[2,3]",
        "ablations.isotropic=[0.1]",
    ]


@pytest.fixture
def training_arguments(arguments: list[str], tmp_path: Path, small_demonstrations: Path) -> list[str]:
    store = tmp_path / "store.zarr"
    options = [
        "samples=24",
        "sampler.steps=4",
        "sampler.solver=ddim",
        "iterations=3",
        "batch_size=8",
        "held_out_episodes=1",
        "device=cpu",
    ]
    paths = [arguments[0], f"demonstrations={small_demonstrations}", f"output={store}"]
    assert build([*paths, *options]) == 0
    training = ",".join(f'"{argument}"' for argument in TRAINING)
    return [
        *arguments,
        f"ablations.trajectories={store}",
        f"ablations.training=[{training}]",
        "ablations.loss_weights=[inverse]",
        "ablations.ranks=[1]",
    ]


def read_rows(tmp_path: Path) -> list[dict[str, str]]:
    with open(tmp_path / "out" / "ablations.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_covariances_are_compared_by_the_errors_of_their_samplers(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    squeeze: Callable[[str], str],
) -> None:
    assert main(arguments) == 0
    rows = read_rows(tmp_path)
    # Two T with one and two depths below them, two initial trajectories.
    assert len({row["variant"] for row in rows}) == 5
    assert len(rows) == 5 * 2 * (1 + 2)

    def errors(variant: str) -> list[str]:
        return [row["error_p95"] for row in rows if row["variant"] == variant]

    # The test's covariance is 0.02·I.
    assert errors("of samples") == errors("of samples, diagonal")
    assert errors("of samples") != errors("isotropic, s = 0.1")
    assert all(float(row["error_p50"]) <= float(row["error_p95"]) for row in rows)
    page = (tmp_path / "out" / "ablations.md").read_text()
    assert "### Covariance, T = 4" in page
    assert "| of demonstrations, given the observation | gaussian start |" in squeeze(page)
    assert imageio.imread(tmp_path / "out" / "ablations.png").std() > 5
    assert "### Covariance, T = 3" in capsys.readouterr().out


def test_trainings_differ_in_one_thing_each_and_go_on_where_they_were(
    training_arguments: list[str], tmp_path: Path
) -> None:
    assert main([*training_arguments, "ablations.ranks=[]"]) == 0
    folder = tmp_path / "out" / "ablations_rows"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert len(before) == 3 * 2  # a PCM and a state each

    assert main(training_arguments) == 0
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert len(after) == 4 * 2
    assert before.items() <= after.items()

    rows = [row for row in read_rows(tmp_path) if row["ablation"] == "training"]
    by_variant: dict[str, list[str]] = {}
    for row in rows:
        by_variant.setdefault(row["variant"], []).append(row["error_p95"])
        assert bool(row["stiffness"]) == (row["variant"] != "none")
    assert list(by_variant) == [
        "none",
        "rank 2, α constant, averaged weights",
        "α inverse",
        "last weights, not averaged",
        "rank 1",
    ]
    assert [len(errors) for errors in by_variant.values()] == [2, 4, 4, 4, 4]  # two depths, two stiffnesses
    depth_2, depth_3 = (
        [row["error_p95"] for row in rows if row["variant"] == "rank 1" and row["depth"] == depth]
        for depth in ("2", "3")
    )
    assert depth_2[0] == depth_2[1]  # the first iteration is the PCM's, however soon it is switched off
    assert depth_3[0] != depth_3[1]
    assert len({tuple(errors) for errors in by_variant.values()}) == 5
    assert "α inverse" in (tmp_path / "out" / "ablations.md").read_text()


def test_weights_that_are_not_averaged_are_the_last_ones(
    training_arguments: list[str], tmp_path: Path
) -> None:
    only = ["ablations.loss_weights=[]", "ablations.ranks=[]"]
    assert main([*training_arguments, *only]) == 0
    equal = []
    for path in (tmp_path / "out" / "ablations_rows").rglob("training_state.safetensors"):
        state = load_file(path)
        names = [name.removeprefix("network.") for name in state if name.startswith("network.")]
        equal.append(all(torch.equal(state[f"network.{n}"], state[f"averaged.{n}"]) for n in names))
    assert sorted(equal) == [False, True]


def test_covariance_given_the_observation_leaves_out_what_the_observation_tells() -> None:
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(4000, 2, 3, generator=generator)
    noise = torch.randn(4000, 2, 2, generator=generator)
    noise[:, 1] = 0.5 * noise[:, 0]
    actions = observations[:, :, :2] + 0.1 * noise + 5
    windows = Windows(observations, actions, torch.zeros(4000, 2))
    expected = 0.01 * torch.kron(torch.tensor([[1, 0.5], [0.5, 0.25]]), torch.eye(2))
    torch.testing.assert_close(conditional_covariance(windows), expected, atol=5e-4, rtol=0)
    torch.testing.assert_close(marginal_covariance(windows), expected + torch.eye(4), atol=0.08, rtol=0)


def test_repeated_observations_are_no_obstacle() -> None:
    observations = torch.randn(500, 1, 3, generator=torch.Generator().manual_seed(0)).repeat(1, 2, 1)
    actions = observations[:, :, :2] + 1
    residual = conditional_covariance(Windows(observations, actions, torch.zeros(500, 2)))
    assert residual.abs().max() < 1e-8


def test_every_covariance_leaves_the_fixed_point_where_it_is(
    trained: DiffusionPolicy, small_demonstrations: Path, observations: torch.Tensor
) -> None:
    noise = torch.randn((3, 16, 2), generator=torch.Generator().manual_seed(0))
    exact = trained.with_sampler(SamplerConfig("sequential", "ddim", 4)).predict(observations, noise=noise)
    found = covariances(
        trained, load_demonstrations(small_demonstrations, task="pusht"), held_out_episodes=1, isotropic=[0.3]
    )
    assert len(found) == 5
    for name, covariance in found.items():
        sampler = SamplerConfig("picard", "ddim", 4, picard=PicardConfig(start="gaussian"))
        actions = (
            replace(trained, covariance=covariance)
            .with_sampler(sampler)
            .predict(observations, noise=noise)
            .actions
        )
        torch.testing.assert_close(
            actions, exact.actions, atol=2e-2, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("ablations.depths=[]", "ablations.depths must not be empty"),
        ("ablations.stiffness=[]", "ablations.stiffness must not be empty"),
        ("ablations.depths=[1]", "ablations.depths must be at least 2, got [1]"),
        ("ablations.depths=[9]", "none of ablations.depths [9] is below any of steps [3, 4]"),
        ("ablations.isotropic=[0]", "ablations.isotropic must be above 0, got [0"),
        ("ablations.trajectories=nowhere", "nowhere: no such store of trajectories"),
    ],
)
def test_a_bad_argument_is_named_in_one_line(
    arguments: list[str], refusal: Callable[..., str], option: str, message: str
) -> None:
    assert message in refusal(*arguments, option)


def test_a_bad_argument_of_the_training_is_named_before_anything_is_measured(
    training_arguments: list[str], tmp_path: Path, refusal: Callable[..., str]
) -> None:
    assert "there is no key 'epocs'" in refusal(*training_arguments, 'ablations.training=["epocs=1"]')
    assert "loss_weight must be one of" in refusal(*training_arguments, "ablations.loss_weights=[beauty]")
    assert "none of ablations.depths [8] is below 4, T of" in refusal(
        *training_arguments, "ablations.depths=[8]", "steps=[10]"
    )
    assert not (tmp_path / "out").exists()
