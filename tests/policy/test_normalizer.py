from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policy import Command, Normalizer, Part, Range, Task
from policy.normalizer import fit_normalizer
from policy.normalizer_values import normalizer_from_values, normalizer_values

ARM = Task(
    name="arm",
    rate=30,
    observation=(
        Part(name="joints", names=("shoulder", "elbow"), units=("rad", "rad")),
        Part(name="effort", names=("shoulder", "elbow"), units=("Nm", "Nm")),
        Part(name="gripper", names=("opening",), units=("m",)),
    ),
    action=Command(names=("shoulder", "gripper"), units=("rad", "m"), lower=(None, None), upper=(None, None)),
)


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), dim=st.integers(1, 20))
def test_unnormalize_inverts_normalize(seed: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.rand((50, dim), generator=generator, dtype=torch.float64) * 512
    limits = Range.of(samples)
    normalized = limits.normalize(samples)
    torch.testing.assert_close(normalized.amin(0), -torch.ones(dim, dtype=torch.float64))
    torch.testing.assert_close(normalized.amax(0), torch.ones(dim, dtype=torch.float64))
    torch.testing.assert_close(limits.unnormalize(normalized), samples)


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), constant=st.floats(-1e6, 1e6, width=32))
def test_what_never_varies_becomes_0_and_comes_back_exactly(seed: int, constant: float) -> None:
    samples = torch.rand((50, 3), generator=torch.Generator().manual_seed(seed))
    samples[:, 1] = constant
    for standardized in (None, torch.ones(3, dtype=torch.bool)):
        found = Range.of(samples, standardized)
        assert found.varies.tolist() == [True, False, True]
        assert not found.normalize(samples)[:, 1].any()
        # Whatever the network predicts.
        assert torch.equal(found.unnormalize(torch.randn(50, 3))[:, 1], samples[:, 1])


def test_values_too_close_to_be_divided_by_count_as_still() -> None:
    samples = torch.tensor([[0.0], [1e-45]])
    assert not Range.of(samples).normalize(samples).any()
    assert not Range.of(samples, torch.tensor([True])).normalize(samples).any()


def test_mean_and_deviation_become_0_and_1_of_the_chosen_dimensions_alone() -> None:
    samples = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) * 7 + 100
    found = Range.of(samples, torch.tensor([False, True]))
    normalized = found.normalize(samples)
    assert torch.equal(normalized[:, 0], Range.of(samples).normalize(samples)[:, 0])
    torch.testing.assert_close(normalized[:, 1].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalized[:, 1].std(correction=0), torch.tensor(1.0))
    torch.testing.assert_close(found.unnormalize(normalized), samples)
    # What a robot's observations are checked against are the limits either way.
    assert torch.equal(found.minimum, samples.amin(0))
    assert torch.equal(found.maximum, samples.amax(0))


def fitted(**scaling: str) -> tuple[Normalizer, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(40, 5, generator=generator) * 3
    observations[:, 4] = 0.02
    actions = torch.randn(40, 2, generator=generator)
    return fit_normalizer(ARM, observations, actions, scaling=scaling), observations


@pytest.mark.parametrize("scaling", [{}, {"effort": "mean_deviation"}, {"gripper": "mean_deviation"}])
def test_a_normalizer_is_the_same_after_its_way_through_json(scaling: dict[str, str]) -> None:
    normalizer, observations = fitted(**scaling)
    values = json.loads(json.dumps(normalizer_values(ARM, normalizer), sort_keys=True))
    again = normalizer_from_values(ARM, values)
    assert torch.equal(
        again.observation.normalize(observations), normalizer.observation.normalize(observations)
    )
    assert [values["observation"][part.name]["scaling"] for part in ARM.observation] == [
        scaling.get(part.name, "limits") for part in ARM.observation
    ]
    assert values["action"]["scaling"] == "limits"


def test_impossible_scalings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"normalization\.camera: the task has the parts joints, effort"):
        fitted(camera="limits")
    with pytest.raises(ValueError, match=r"normalization\.joints must be one of limits, mean_deviation"):
        fitted(joints="deviation")


def test_a_widened_range_holds_both_and_keeps_its_mean() -> None:
    standardized = torch.tensor([True, False])
    one = Range.of(torch.tensor([[0.0, 0.0], [2.0, 4.0]]), standardized)
    wide = one.widened(Range.of(torch.tensor([[-1.0, 1.0], [1.0, 5.0]])))
    assert (wide.minimum.tolist(), wide.maximum.tolist()) == ([-1, 0], [2, 5])
    samples = torch.tensor([[1.5, 2.0]])
    assert torch.equal(wide.normalize(samples)[:, 0], one.normalize(samples)[:, 0])
    assert wide.normalize(samples)[0, 1] == pytest.approx(-0.2)


def test_ranges_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="must not decrease, dimension 1 does"):
        Range(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]))
    with pytest.raises(ValueError, match="must be finite"):
        Range(torch.tensor([0.0]), torch.tensor([float("nan")]))
    with pytest.raises(ValueError, match="must be finite"):
        Range(torch.tensor([-3e38]), torch.tensor([3e38]))
    zero, one = torch.tensor([0.0]), torch.tensor([1.0])
    with pytest.raises(ValueError, match="a mean and a deviation, or neither"):
        Range(zero, one, mean=zero)
    with pytest.raises(ValueError, match="of dimension 0 do not fit its limits"):
        Range(zero, one, mean=one * 2, deviation=one)
    with pytest.raises(ValueError, match="of dimension 0 do not fit its limits"):
        Range(zero, one, mean=zero, deviation=-one)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("joints", {"minimum": [0.0]}, r"the minimum of joints has shape \(1,\), need \(2,\)"),
        ("joints", {"minimum": [0.0, False]}, "the minimum of joints must be numbers, got False"),
        ("joints", {"maximum": 1.0}, r"the maximum of joints must be a list of numbers, got 1\.0"),
        ("effort", {"deviation": [1.0, True]}, "the deviation of effort must be numbers, got True"),
        ("joints", {"scaling": "log"}, "the scaling of joints must be one of limits, mean_deviation"),
        ("gripper", {"maximum": [-1.0]}, "gripper: limits of a range must not decrease"),
        ("effort", {"mean": [float("nan")] * 2}, "the mean of effort must be finite"),
    ],
)
def test_a_damaged_normalizer_is_refused_by_the_name_of_its_part(
    part: str, change: dict[str, object], message: str
) -> None:
    values = normalizer_values(ARM, fitted(effort="mean_deviation")[0])
    values["observation"][part] |= change
    with pytest.raises(ValueError, match=message):
        normalizer_from_values(ARM, values)
    del values["observation"][part]
    with pytest.raises(ValueError, match=f"the task has .*{part}"):
        normalizer_from_values(ARM, values)
