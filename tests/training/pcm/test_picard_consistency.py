from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from policy import DiffusionPolicy, PicardConfig, SamplerConfig
from policy.networks.lora import add_lora
from policy.pcm import PCM
from policy.sampling.recurrence import make_recurrence
from policy.sampling.start import make_start
from training.pcm.chunk_before import ChunkBefore
from training.pcm.picard_consistency import (
    Distance,
    PicardMap,
    Samples,
    loss_weight,
    picard_consistency_loss,
)
from training.pcm.picard_trajectories import draw_samples, picard_trajectories, trajectories_after
from training.pcm.start_kinds import StartKind, error_p95, held_out_errors, loss_of_all, start_kinds
from training.pcm.trajectories import ARRAYS

T, K = 5, 3


@pytest.fixture(scope="module", params=["ddim", "dpmpp_2m"])
def sampled(trained: DiffusionPolicy, request: pytest.FixtureRequest) -> DiffusionPolicy:
    config = SamplerConfig("picard", request.param, T, picard=PicardConfig("preconditioned", "gaussian"))
    return trained.with_sampler(config)


@pytest.fixture(scope="module")
def samples(sampled: DiffusionPolicy) -> Samples:
    conditions = torch.rand(20, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rows, noise = draw_samples(sampled, len(conditions), range(16), seed=0)
    states, solution = picard_trajectories(sampled, conditions[rows], noise, iterations=K)
    return Samples(conditions[rows], states, solution, torch.zeros(16))


@pytest.fixture(scope="module")
def picard(sampled: DiffusionPolicy) -> PicardMap:
    recurrence = make_recurrence("preconditioned", sampled.solver, sampled.covariance)
    return PicardMap(sampled.solver, recurrence, exact=1)


@pytest.mark.parametrize("start_model", ["base", "pcm"])
@pytest.mark.parametrize("weights", ["lora", "full"])
def test_training_on_the_loss_brings_iterations_nearer_to_the_solution(
    sampled: DiffusionPolicy, samples: Samples, picard: PicardMap, weights: str, start_model: str
) -> None:
    if start_model == "pcm":
        picard = replace(picard, start=make_start("gaussian", picard.solver, covariance=sampled.covariance))
    network = deepcopy(sampled.network)
    if weights == "lora":
        add_lora(network, rank=4, targets=".*", generator=torch.Generator().manual_seed(0))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, 3e-3)
    before = picard_consistency_loss(network, picard, samples, k=0).item()
    for _ in range(60):
        optimizer.zero_grad()
        picard_consistency_loss(network, picard, samples, k=0).backward()
        optimizer.step()
    assert picard_consistency_loss(network, picard, samples, k=0).item() < 0.7 * before


@pytest.mark.parametrize("sampled", ["dpmpp_2m"], indirect=True)
def test_training_by_the_recipe_of_warm_starts_brings_iterations_nearer_from_both(
    sampled: DiffusionPolicy,
) -> None:
    """The final state, its chunk once more, and a share of the same after an iteration of the base."""
    # Uncertain answers: where noise decides nothing, the last state keeps to the guess whatever the network says.
    sampled = replace(sampled, covariance=torch.eye(32)).with_sampler(sampled.sampler)
    conditions = torch.rand(20, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rows, noise = draw_samples(sampled, len(conditions), range(24), seed=0)
    earlier = noise.flip(0)[:, 0]
    actions = (0.3 * earlier).clamp(-1, 1)  # far from the answer
    before = ChunkBefore(torch.tensor([0, 3, 8]).repeat(8), actions, earlier)
    found = trajectories_after(sampled, conditions[rows], noise, before=before, iterations=2)
    samples = Samples(*(torch.from_numpy(getattr(found, name)) for name in ARRAYS))
    pcm = PCM(
        deepcopy(sampled.network),
        weights="lora",
        base_sha256="",
        solver=sampled.resolved_sampler.solver,
        steps=T,
        jacobian="preconditioned",
        start="gaussian",
        iterations=1,
        start_model="pcm",
        warm_start="actions",
        warm_iterations=1,
    )
    kinds = start_kinds(pcm, sampled, sampled.solver)
    assert [kind.of(samples).executed.tolist() for kind in kinds] == [[0.0] * 8, [3.0, 8.0] * 8]
    network = pcm.network
    add_lora(network, rank=4, targets=".*", generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam([each for each in network.parameters() if each.requires_grad], 3e-3)

    def loss(kinds: list[StartKind]) -> torch.Tensor:
        return loss_of_all(
            network,
            kinds,
            samples,
            weights=[1.0] * len(kinds),
            ks=[0] * len(kinds),
            distance=Distance(1.0, 0.003, states_weight=0.0, chunk_weight=1.0, chunk=(1, 9)),
            relative=True,
            base=sampled.network,
            base_iterations=1,
            base_weight=0.3,
        )

    before_training = [loss([kind]).item() for kind in kinds]
    # Relative to no training, and weighted by its share of the samples. The start's call is the network's own.
    assert sum(before_training) == pytest.approx(1.0, rel=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        loss(kinds).backward()
        optimizer.step()
    for kind, start in zip(kinds, before_training, strict=True):
        assert loss([kind]).item() < 0.9 * start


def test_loss_is_the_mean_square_distance_of_the_next_trajectory(
    sampled: DiffusionPolicy, samples: Samples, picard: PicardMap
) -> None:
    """The base's next states are in the samples, so its loss is known without any network."""
    squares = [(samples.states[:, k + 1] - samples.solution)[:, 1:].square() for k in range(K)]
    for k in range(K):
        loss = picard_consistency_loss(sampled.network, picard, samples, k=k, distance=Distance(2.0))
        expected = squares[k].mean() + 2 * squares[k][:, -1].mean()
        torch.testing.assert_close(loss, expected, atol=1e-8, rtol=1e-3)
    unrolled = picard_consistency_loss(sampled.network, picard, samples, k=0, unrolled_iterations=K)
    torch.testing.assert_close(unrolled, torch.stack(squares).mean(), atol=1e-8, rtol=1e-3)
    initial = replace(picard, start=make_start("gaussian", picard.solver, covariance=sampled.covariance))
    torch.testing.assert_close(
        picard_consistency_loss(sampled.network, initial, samples, k=0),
        squares[0].mean(),
        atol=1e-8,
        rtol=1e-3,
    )


def test_errors_of_the_base_are_those_of_its_trajectories(
    sampled: DiffusionPolicy, samples: Samples, picard: PicardMap
) -> None:
    errors, _ = held_out_errors(sampled.network, sampled.network, picard, samples=samples, iterations=K)
    expected = [error_p95(samples.states[:, k + 1], samples.solution) for k in range(K)]
    assert errors == pytest.approx(expected, abs=1e-5)


def test_base_model_after_a_pcm_ends_at_its_own_solution(
    sampled: DiffusionPolicy, samples: Samples, picard: PicardMap
) -> None:
    network = deepcopy(sampled.network)
    add_lora(network, rank=2, targets=".*", generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    always, first = held_out_errors(network, sampled.network, picard, samples=samples, iterations=T)
    assert first[-1] < 1e-4 < always[-1]


def test_iterations_by_the_base_count_and_train_the_pcm(
    sampled: DiffusionPolicy, samples: Samples, picard: PicardMap
) -> None:
    """With the base in the PCM's place, all states are those in the samples."""
    squares = [(samples.states[:, k + 1] - samples.solution)[:, 1:].square().mean() for k in range(K)]
    base = deepcopy(sampled.network).requires_grad_(False)
    loss = picard_consistency_loss(sampled.network, picard, samples, k=0, base=base, base_iterations=2)
    torch.testing.assert_close(loss, torch.stack(squares).mean(), atol=1e-8, rtol=1e-3)
    loss = picard_consistency_loss(
        sampled.network,
        picard,
        samples,
        k=0,
        distance=Distance(floor=1e-2),
        relative=True,
        base=base,
        base_iterations=2,
    )
    assert loss.item() == pytest.approx(
        1.0, rel=1e-3
    )  # relative to no training, of a network that is not trained
    loss.backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all()
        for parameter in sampled.network.parameters()
    )


def test_robust_distance_lets_one_sample_that_is_far_off_count_less(samples: Samples) -> None:
    states = samples.solution.clone()
    states[0, 1:] += 1
    assert Distance()(states, samples.solution).tolist() == pytest.approx([1.0] + 15 * [0.0])
    assert Distance(3.0)(states, samples.solution)[0].item() == pytest.approx(4.0)
    robust = Distance(3.0, floor=0.1)(states, samples.solution)
    assert robust.tolist() == pytest.approx([4.01**0.5] + 15 * [0.1])


def test_loss_weights_follow_their_formulas(sampled: DiffusionPolicy) -> None:
    solver = sampled.solver
    assert [loss_weight("constant", k, iterations=K, solver=solver) for k in range(K)] == [1, 1, 1]
    assert [loss_weight("inverse", k, iterations=K, solver=solver) for k in range(K)] == [1, 1 / 2, 1 / 3]
    expected = [(1 - solver.alphas_cumprod[state].item()) ** -0.5 for state in (0, 1, 3)]  # ⌊k·5/3⌋
    assert [loss_weight("inverse_std", k, iterations=K, solver=solver) for k in range(K)] == pytest.approx(
        expected
    )
    with pytest.raises(
        ValueError,
        match="loss_weight must be one of constant, inverse, inverse_std, training_free, got 'x'",
    ):
        loss_weight("x", 0, iterations=K, solver=solver)
