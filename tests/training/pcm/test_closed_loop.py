from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from policy import DiffusionPolicy, Prediction
from policy.networks.lora import ALL_LAYERS, add_lora
from policy.pcm import PCM, save_pcm, weights_sha256
from training.evaluation.rollout import run_episodes
from training.pcm import closed_loop
from training.pcm.build_trajectories import main
from training.pcm.chunk_before import ClosedLoopConfig
from training.pcm.closed_loop import closed_loop_sampler, states_met
from training.pcm.trajectories import load_trajectories, open_store

STEPS = 16


@pytest.fixture
def with_pcm(policy: DiffusionPolicy) -> DiffusionPolicy:
    network = deepcopy(policy.network)
    add_lora(network, rank=2, targets=ALL_LAYERS, generator=torch.Generator().manual_seed(0))
    pcm = PCM(
        network,
        weights="lora",
        base_sha256=weights_sha256(policy.network),
        solver="dpmpp_2m",
        steps=3,
        jacobian="preconditioned",
        start="gaussian",
        iterations=1,
        warm_start="actions",
        warm_iterations=1,
        rank=2,
        targets=ALL_LAYERS,
    )
    policy = replace(policy, covariance=0.1 * torch.eye(32)).with_pcm(pcm)
    return policy.with_sampler(closed_loop_sampler(pcm))


def _inferences(
    policy: DiffusionPolicy, *, seed: int, action_steps: int
) -> list[tuple[torch.Tensor, Prediction]]:
    """Observations and prediction of each inference of an episode."""
    policy = replace(policy, config=replace(policy.config, action_steps=action_steps))
    seen = []

    def compute(observations: torch.Tensor, noise: torch.Tensor, **options: Any) -> Prediction:
        prediction = policy.predict_unchecked(observations, noise, **options)
        seen.append((observations, prediction))
        return prediction

    run_episodes(replace(policy, compute=compute), [seed], STEPS, show_progress=False)
    return seen[1:]  # the first is a call of `run_episodes` alone


def test_what_is_met_is_what_inferences_began_with(
    with_pcm: DiffusionPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of one episode each: the chunk before is the PCM's own, from the observations of the row before."""
    monkeypatch.setattr(closed_loop, "GROUP", 1)
    config = ClosedLoopConfig(episodes=2, max_steps=STEPS, first_seed=7)

    def meet() -> closed_loop.Met:
        return states_met(
            with_pcm, config=config, most_executed=8, seed=0, folder=tmp_path, identity={"pcm_sha256": "x"}
        )

    met = meet()
    assert len(list(tmp_path.iterdir())) == 2
    for group in range(2):
        executed = int(met.before.executed[2 * group : 2 * group + 2].max())
        normalizer = with_pcm.normalizer
        seen = _inferences(with_pcm, seed=7 + group, action_steps=executed)
        conditions = [normalizer.observation.normalize(each).flatten(1)[0] for each, _ in seen]
        for row in (2 * group, 2 * group + 1):
            (index,) = [i for i, found in enumerate(conditions) if torch.equal(found, met.conditions[row])]
            assert met.before.executed[row] == (executed if index else 0)
            if index:
                before = seen[index - 1][1]
                expected = normalizer.action.normalize(before.actions)[0]
                torch.testing.assert_close(met.before.actions[row], expected, atol=1e-5, rtol=0)
                assert torch.equal(met.before.noise[row], before.noise[0])

    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = meet()
    assert torch.equal(again.conditions, met.conditions)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    with pytest.raises(ValueError, match=r"00000\.safetensors: states of another closed loop"):
        states_met(with_pcm, config=config, most_executed=8, seed=1, folder=tmp_path, identity={})


def test_a_store_of_a_pcms_closed_loop_says_so(
    with_pcm: DiffusionPolicy, small_demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, pcm, output = (tmp_path / name for name in ("base.safetensors", "pcm.safetensors", "s.zarr"))
    with_pcm.save(checkpoint)
    assert with_pcm.pcm is not None
    save_pcm(pcm, with_pcm.pcm)
    loop = ["episodes=2", f"max_steps={STEPS}", f"pcm={pcm}"]
    arguments = [
        f"checkpoint={checkpoint}",
        f"demonstrations={small_demonstrations}",
        f"output={output}",
        "preset=warm",
        "sampler.steps=3",
        "samples=8",
        "device=cpu",
        *(f"before.closed_loop.{option}" for option in loop),
    ]
    assert main(arguments) == 0
    assert len(open_store(output).identity["before"]["closed_loop"]["pcm"]) == 64
    assert len(load_trajectories(open_store(output)).executed) == 8
    assert main([*arguments, "sampler.parallel.warm_start=none"]) == 1
    assert "before.closed_loop.pcm needs a warm start" in capsys.readouterr().err
    save_pcm(pcm, replace(with_pcm.pcm, warm_start="none", warm_iterations=0))
    assert main([*arguments, f"output={tmp_path / 'other.zarr'}"]) == 1
    assert "before.closed_loop.pcm was trained from cold starts alone" in capsys.readouterr().err
