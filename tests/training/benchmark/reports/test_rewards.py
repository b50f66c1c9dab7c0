from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest

from policy import DiffusionPolicy, PcmConfig, PicardConfig, SamplerConfig, StopConfig
from training.benchmark import measurements
from training.benchmark.candidates import Candidate, load_pcm_files
from training.benchmark.measurements import measure_rewards
from training.benchmark.reports.rewards import compare, gains
from training.benchmark.run import main
from training.benchmark.tables import table
from training.evaluation.rollout import run_episodes

CHECKPOINT = Path(__file__).resolve().parents[4] / "checkpoints" / "pusht_small.safetensors"


@pytest.fixture
def arguments(benchmark_arguments: list[str], pcm_path: Path) -> list[str]:
    return [
        *benchmark_arguments,
        "report=rewards",
        f"pcm=[{pcm_path}]",
        "steps=[4]",
        "rewards.ddim_steps=[4,2]",
        "rewards.dpmpp_2m_steps=[3]",
        "rewards.depths=[3,2]",
        "rewards.timed_calls=3",
        "rewards.episodes=2",
        "rewards.noise_seeds=[0,1]",
        "rewards.reward_samplers=[sequential,parameter]",
        "rewards.reward_steps=[2,5]",
        "rewards.reward_depths=[2]",
    ]


def read_rows(tmp_path: Path) -> list[dict[str, str]]:
    with open(tmp_path / "out" / "rewards.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_report_has_every_row_and_the_rewards_asked_for(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    squeeze: Callable[[str], str],
) -> None:
    assert main(arguments) == 0
    rows = read_rows(tmp_path)
    # DDIM 2, DPM-Solver++ 1; T = 4: eight kinds of Picard iteration and ParaSolver at two depths; the PCM in two ways.
    assert len(rows) == 3 + 18 + 4
    rewarded = {(row["sampler"], row["steps"], row["depth"]) for row in rows if row["reward_200"]}
    pcm = "pcm, ddim, adapters, parameter space, s = 1"
    assert rewarded == {("sequential, ddim", "2", "2"), (pcm, "5", "2")}
    for row in rows:
        assert float(row["ms_p50"]) <= float(row["ms_p99"])
        assert bool(row["error_p95"]) == (row["method"] != "sequential")
        if row["reward_200"]:
            assert float(row["reward_200"]) <= float(row["reward_300"])
    (reference,) = [row for row in rows if row["sampler"] == "sequential, ddim" and row["steps"] == "4"]
    assert float(reference["speedup"]) == 1
    assert float(reference["error_p95_reference"]) == 0
    drift = next(row for row in rows if row["sampler"] == "picard, ddim, drift, fresh")
    assert (drift["depth"], drift["network_evaluations"]) == (
        "3",
        "9.0",
    )  # 4 + 3 + 2: exact states are frozen

    page = squeeze((tmp_path / "out" / "rewards.md").read_text())
    for expected in (
        "### Sequential",
        "### T = 4",
        "### T = 5",
        "| sequential, ddim |",
        "× DDIM-4",
        "rows_measured_by_code",
    ):
        assert expected in page
    assert '"adapters.safetensors": ' in page
    assert imageio.imread(tmp_path / "out" / "rewards.png").std() > 5
    assert "### T = 4" in capsys.readouterr().out


def test_after_an_interruption_nothing_is_measured_twice(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []
    interrupted_at = 3

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == interrupted_at:
            raise KeyboardInterrupt
        return run_episodes(*arguments, **options)

    monkeypatch.setattr(measurements, "run_episodes", interrupted)
    assert main(arguments) == 130
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "rewards_rows").iterdir()}
    assert len(files) == 25 + 1 + 2  # errors of all rows, one turn of timing, two of four rollouts
    assert not (tmp_path / "out" / "rewards.md").exists()

    assert main(arguments) == 0
    assert len(calls) == interrupted_at + 2
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "rewards_rows").iterdir()}
    assert len(after) == 30
    assert files.items() <= after.items()
    first = read_rows(tmp_path)

    # What has been measured is shown, whatever is asked for now.
    assert main([*arguments, "rewards.reward_samplers=[]"]) == 0
    assert len(calls) == interrupted_at + 2
    assert read_rows(tmp_path) == first
    capsys.readouterr()


def test_a_reward_is_shown_when_all_its_noise_seeds_are_there(arguments: list[str], tmp_path: Path) -> None:
    one_seed = [*arguments, 'rewards.reward_samplers=["sequential, ddim"]', "rewards.timed_calls=0"]
    assert main([*one_seed, "rewards.noise_seeds=[1]"]) == 0
    assert sum(bool(row["reward_200"]) for row in read_rows(tmp_path)) == 1
    assert main([*one_seed, "rewards.reward_samplers=[]"]) == 0
    assert not any(row["reward_200"] for row in read_rows(tmp_path))
    assert main(one_seed) == 0
    rows = read_rows(tmp_path)
    assert sum(bool(row["reward_200"]) for row in rows) == 1
    assert not any(row["ms_p50"] or row["speedup"] for row in rows)


def test_one_rollout_gives_the_rewards_of_two_evaluations() -> None:
    # With these seeds the reward still grows just before 200 steps, and after them.
    policy = DiffusionPolicy.load(CHECKPOINT, sampler=SamplerConfig("sequential", "ddim", 2))
    seeds = [100007, 100008]
    rewards = measure_rewards(policy, first_seed=seeds[0], episodes=2, noise_seed=1)
    for steps in (200, 300):
        apart = run_episodes(policy, seeds, max_steps=steps, noise_seed=1, show_progress=False)
        assert rewards[f"max_reward_{steps}"] == [episode.max_reward for episode in apart.episodes]
    assert rewards["max_reward_200"] != rewards["max_reward_300"]


def test_a_row_is_compared_with_the_fastest_sequential_one_that_is_as_good() -> None:
    def row(method: str, steps: int, ms: float | None, reward: float | None, **more: Any) -> dict[str, Any]:
        rewards = {}
        for horizon in (200, 300):
            found = more.get(f"at_{horizon}", reward)
            rewards[f"reward_{horizon}"] = found
            rewards[f"reward_{horizon}_low"] = None if found is None else found - 0.05
            rewards[f"reward_{horizon}_high"] = None if found is None else found + 0.05
        return {
            "sampler": f"{method}, ddim",
            "method": method,
            "solver": "ddim",
            "steps": steps,
            "ms_p50": None if ms is None else float(ms),
            **rewards,
        }

    rows = compare(
        table(
            [
                row("sequential", 50, 100, 0.95),
                row("sequential", 10, 20, 0.94),
                row("sequential", 4, 8, 0.91, at_300=0.80),  # as good at 200 steps only
                row("sequential", 2, 4, 0.50),
                row("picard", 10, 10, 0.93),
                row("picard", 16, 16, None),
                row("picard", 25, None, 0.93),
            ]
        ),
        reference_steps=50,
    )
    assert rows["speedup"].tolist() == pytest.approx([1, 5, 12.5, 25, 10, 6.25, np.nan], nan_ok=True)
    equal = rows.to_dict("records")
    assert (equal[4]["equal_steps"], equal[4]["speedup_to_equal"]) == (10, 2)
    assert equal[0]["speedup_to_equal"] == pytest.approx(0.2)
    assert equal[3]["equal_steps"] == 2
    assert rows.loc[5:, ["equal_sampler", "equal_steps", "speedup_to_equal"]].isna().all(axis=None)


def test_a_pcm_is_compared_with_the_same_sampler_without_it(policy: DiffusionPolicy, pcm_path: Path) -> None:
    (file,) = load_pcm_files([str(pcm_path)], policy)

    def untrained(iterations: int) -> SamplerConfig:
        return SamplerConfig(
            "picard", "ddim", 5, stop=StopConfig(iterations), picard=PicardConfig("drift", "fresh")
        )

    trained = replace(untrained(2), method="pcm", pcm=PcmConfig("parameter", 3.0))
    compared = [
        Candidate(untrained(3), 3),
        Candidate(untrained(2), 2),
        Candidate(trained, 2, file),
        Candidate(replace(trained, picard=PicardConfig("drift", "repeated")), 2, file),
        Candidate(replace(trained, stop=StopConfig(3)), 3, file),
    ]
    errors = [0.1 * index for index in range(len(compared))]
    easy, hard = [0.9, 0.8], [0.2, 0.1]  # noise seeds of an initial state each

    def measured(gain: float, longer: float) -> list[dict[str, Any]]:
        return [
            {"max_reward_200": [a + gain, b + gain], "max_reward_300": [a, b + longer]}
            for a, b in zip(easy, hard, strict=True)
        ]

    rewards = [measured(0.3, 0), measured(0, 0), measured(0.05, 0.1), measured(0, 0), []]
    rows = gains(compared, errors, rewards).to_dict("records")
    assert [row["error_p95_untrained"] for row in rows] == pytest.approx(
        [np.nan, np.nan, 0.1, np.nan, 0.0], nan_ok=True
    )
    # Initial states differ by 0.7, gains not at all.
    assert [rows[2][f"gain_200{end}"] for end in ("", "_low", "_high")] == pytest.approx([0.05] * 3)
    mean, low, high = (rows[2][f"gain_300{end}"] for end in ("", "_low", "_high"))
    assert mean == pytest.approx(0.05)
    assert (low, high) == pytest.approx((0, 0.1))  # of the two initial states' gains
    for other in (0, 1, 3, 4):
        assert np.isnan(rows[other]["gain_200"])


def test_pcms_are_shown_beside_the_same_samplers_without_them(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, "steps=[5]", "rewards.timed_calls=0", "rewards.reward_samplers=[]"]) == 0
    rows = read_rows(tmp_path)
    trained = [row for row in rows if row["error_p95_untrained"]]
    assert {row["space"] for row in trained} == {"feature", "parameter"}
    for row in trained:
        (without,) = [
            other
            for other in rows
            if other["sampler"] == "picard, ddim, drift, fresh" and other["depth"] == row["depth"]
        ]
        assert row["error_p95_untrained"] == without["error_p95"] != row["error_p95"]
    assert "### PCMs, and the same samplers without them" in (tmp_path / "out" / "rewards.md").read_text()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("rewards.depths=[0]", "rewards.depths must be at least 1, got [0]"),
        ("rewards.ddim_steps=[]", "rewards.ddim_steps must not be empty"),
        ("rewards.ddim_steps=[1000]", "steps must be in 1 … 100"),
        ("rewards.noise_seeds=[]", "rewards.noise_seeds must not be empty"),
        ("rewards.ddim_steps=[4,4]", "rewards.ddim_steps must not repeat a number, got [4, 4]"),
        ("rewards.timed_calls=-1", "rewards.timed_calls must be at least 0, got -1"),
        ("rewards.episodes=0", "rewards.episodes must be at least 1, got 0"),
        ("rewards.first_seed=-1", "rewards.first_seed must be in 0 … "),
        (
            "rewards.reward_samplers=[ddim,picad]",
            "'picad' is part of none of sequential, ddim; sequential, dpmpp_2m; picard, ",
        ),
        ("rewards.depth=2", "there is no key"),
        ("pcm=[nowhere.safetensors]", "nowhere.safetensors"),
        ("report=reward", "report must be one of "),
    ],
)
def test_a_bad_argument_is_named_in_one_line(
    arguments: list[str], refusal: Callable[..., str], option: str, message: str
) -> None:
    assert message in refusal(*arguments, option)


def test_a_policy_without_covariance_is_told_what_to_do(
    policy: DiffusionPolicy, arguments: list[str], tmp_path: Path, refusal: Callable[..., str]
) -> None:
    policy.save(tmp_path / "policy.safetensors")
    assert "no covariance; add it with pcm-estimate-covariance" in refusal(*arguments)


def test_help_explains_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for line in text.splitlines():
        begins_section, is_item = line.endswith(":"), line.lstrip().startswith("- ")
        if line.strip() and not begins_section and not is_item:
            assert "#" in line, line
