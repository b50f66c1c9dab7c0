from __future__ import annotations

import numpy as np
import pytest

from ros_nodes.seams.synthetic_chunks import (
    BEFORE,
    CHUNK,
    NOW,
    SPEED,
    TAIL,
    horizon,
    interval,
    path,
    points,
)


def test_the_path_has_its_speed() -> None:
    times = np.linspace(0, 2, 20001)
    speeds = np.linalg.norm(np.diff(path(times), axis=0), axis=1) / np.diff(times)
    np.testing.assert_allclose(speeds, SPEED, rtol=1e-3)


def test_a_chunk_begins_where_the_observation_is_and_drifts_as_told() -> None:
    rng = np.random.default_rng(0)
    drifts = np.array(
        [horizon(3.0, drift=10.0, rng=rng) - horizon(3.0, drift=0.0, rng=rng) for _ in range(500)]
    )
    assert not drifts[:, 0].any()
    assert drifts[:, CHUNK].std() == pytest.approx(10, rel=0.1)


def test_the_next_chunk_comes_before_the_end() -> None:
    assert [interval(latency) for latency in (0.0, 0.05, 0.15, 0.3)] == pytest.approx([0.7, 0.7, 0.6, 0.4])


def test_publications_send_what_they_say() -> None:
    actions = horizon(1.0, drift=0.0, rng=np.random.default_rng(0))
    times = {"stamp_ns": 10**9, "published_ns": 1_150_000_000}
    assert (points(actions, BEFORE, **times).times_ns[0], len(points(actions, BEFORE, **times))) == (10**8, 8)
    assert (points(actions, NOW, **times).times_ns[0], len(points(actions, NOW, **times))) == (3 * 10**8, 6)
    assert len(points(actions, TAIL, **times)) == 13
