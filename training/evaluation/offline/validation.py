"""The held-out episodes of a training: errors at each validation, and a report at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policy import DiffusionPolicy, PolicyConfig
from policy.task import Task
from training.data.demonstrations import Demonstrations
from training.data.features import with_features
from training.evaluation.offline.chunks import DemonstratedChunks, demonstrated_chunks, sampled_chunks
from training.evaluation.offline.errors import action_errors, share_of_range, varied_range
from training.evaluation.offline.judgement import judge, other_actions
from training.evaluation.offline.report import write_judgement
from training.evaluation.summary import write_summary

NAME = "held_out"
FILES = tuple(f"{NAME}.{ending}" for ending in ("csv", "json", "png"))
OVERALL = "held_out_error"
NOISE_SEEDS = range(5)  # of the report; a validation takes the first


@dataclass(frozen=True)
class HeldOutEpisodes:
    """What a training is judged by.

    Attributes:
        demonstrations: all of them.
        chunks: of the held-out episodes.
        ranges: (A,) of the other episodes' actions, NaN where they do not vary.
    """

    demonstrations: Demonstrations
    chunks: DemonstratedChunks
    ranges: NDArray[np.float64]

    @classmethod
    def of(
        cls, demonstrations: Demonstrations, episodes: NDArray[np.int64], config: PolicyConfig
    ) -> HeldOutEpisodes:
        chunks = demonstrated_chunks(demonstrations, episodes, config)
        return cls(demonstrations, chunks, varied_range(other_actions(demonstrations, episodes)[0]))

    @property
    def task(self) -> Task:
        return self.demonstrations.task

    @property
    def columns(self) -> list[str]:
        """Names of what `errors` returns."""
        return [OVERALL, *(f"{OVERALL}/{name}" for name in self.task.action.names)]

    def seen_by(self, policy: DiffusionPolicy) -> HeldOutEpisodes:
        """The same with the features that a policy's encoders make of pictures."""
        if policy.encoders is None:
            return self
        episodes = np.unique(self.chunks.episodes)
        seen = with_features(self.demonstrations, policy, episodes)
        return HeldOutEpisodes.of(seen, episodes, policy.config)

    def errors(self, policy: DiffusionPolicy) -> dict[str, float]:
        """Mean absolute errors of sampled actions: of all as a share of their ranges, of each in its unit.

        The noises are the same at every validation, so that errors differ by the weights alone.
        """
        sampled = sampled_chunks(policy, self.chunks, NOISE_SEEDS[0])
        errors = action_errors(sampled[None], self.chunks).mean_absolute
        overall = share_of_range(errors, self.ranges).mean()
        return dict(zip(self.columns, [float(overall), *errors.mean((0, 1)).tolist()], strict=True))

    def report(self, policy: DiffusionPolicy, folder: Path) -> str:
        """Judge with several noise seeds beside the baselines, write `FILES` into a folder, return the table."""
        episodes = np.unique(self.chunks.episodes)
        judgement = judge(policy, self.demonstrations, episodes=episodes, noise_seeds=NOISE_SEEDS)
        write_summary(folder / f"{NAME}.json", judgement.summary)
        return write_judgement(judgement, folder, NAME)
