from __future__ import annotations

import pytest

from ros_nodes.episodes.episode_log import EpisodeLog


def status(
    step: int, reward: float = 0.0, end: str = "", *, trajectories: int = 0, seed: int = 5
) -> list[float]:
    is_success = float(end == "success")
    return [
        seed,
        step,
        reward,
        is_success,
        float(end in ("success", "failure")),
        float(end == "truncated"),
        trajectories,
    ]


def begun(timeout: float = 5.0) -> EpisodeLog:
    log = EpisodeLog(5, timeout, now=100.0, period=0.1)
    log.hear(status(0, reward=0.9), now=101.0)
    return log


def test_rewards_are_those_after_each_control_step() -> None:
    log = begun()
    for step, reward in enumerate([0.1, 0.4, 0.3], start=1):
        log.hear(status(step, reward, trajectories=1), now=102.0)
    assert not log.ended
    log.hear(status(4, 0.2, "truncated", trajectories=1), now=102.0)
    assert log.ended
    assert log.failure(1e9) is None
    episode = log.episode()
    assert (episode.seed, episode.rewards.tolist()) == (5, [0.1, 0.4, 0.3, 0.2])
    assert (episode.max_reward, episode.success) == (0.4, False)


@pytest.mark.parametrize("end", ["success", "failure"])
def test_an_episode_may_end_with_and_without_success(end: str) -> None:
    log = begun()
    log.hear(status(1, 1.0, end, trajectories=1), now=102.0)
    assert log.ended
    assert log.episode().success == (end == "success")


def test_what_comes_from_other_episodes_does_not_count() -> None:
    log = EpisodeLog(5, 5.0, now=100.0, period=0.1)
    log.hear(status(17, 0.9), now=100.0)  # the end of an episode of the same seed
    log.hear(status(0, seed=4), now=100.0)
    log.hear(status(1, 0.8, seed=4), now=100.0)
    log.hear(status(0), now=100.0)
    log.hear(status(1, 0.1, "truncated", trajectories=1), now=100.0)
    log.hear(status(2, 0.7), now=100.0)  # a robot goes on in real time
    assert log.episode().rewards.tolist() == [0.1]


def test_a_missing_control_step_is_an_error() -> None:
    log = begun()
    log.hear(status(1), now=102.0)
    with pytest.raises(ValueError, match="heard of step 3 after step 1"):
        log.hear(status(3), now=102.0)


def test_an_episode_without_control_steps_fails() -> None:
    log = begun()
    log.hear(status(1, trajectories=1), now=103.0)
    assert log.failure(now=107.9) is None
    assert log.failure(now=108.1) == "no control step for 5 s after step 1"


def test_an_episode_without_trajectories_fails_by_simulation_time() -> None:
    log = begun()
    for step in range(1, 57):
        log.hear(status(step, trajectories=min(step, 6)), now=102.0)
    assert log.failure(now=102.0) is None
    log.hear(status(57, trajectories=6), now=102.0)
    assert log.failure(now=102.0) == "no chunk for 5 s after step 6"


def test_an_episode_that_never_got_a_trajectory_has_failed_even_at_its_end() -> None:
    log = begun()
    log.hear(status(1, 0.9, "truncated"), now=102.0)
    assert log.failure(now=102.0) == "no chunk came"


def test_an_episode_that_never_began_has_no_reward() -> None:
    log = EpisodeLog(5, 5.0, now=100.0, period=0.1)
    assert log.failure(now=106.0) == "no control step for 5 s after step 0"
    assert log.episode().max_reward == 0.0
    assert log.episode().steps == 0


def test_a_chunk_takes_from_the_first_time_of_its_observation() -> None:
    log = begun()
    log.observe(1, 10.0)
    log.observe(1, 10.5)  # repeated
    log.answer(1, 11.0)
    log.answer(2, 12.0)  # overtakes its observation
    log.observe(2, 12.5)
    log.answer(9, 13.0)  # of an earlier episode
    log.hear(status(1, 0.0, "truncated", trajectories=1), now=102.0)
    log.observe(3, 14.0)
    log.answer(3, 15.0)  # of the last observation, after which nothing is executed
    assert log.episode().chunk_seconds == (1.0, 0.0)
