"""`pcm-demonstrate-pusht`: a window in which a person demonstrates PushT, and a store that episodes are appended to.

A store that cannot be appended to is refused before the window opens. From then on it is whole at any time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from pusht_env.demonstration import Hand, demonstrate, find_seed
from pusht_env.physics import CONTROL_HZ
from training.command import run_command
from training.data.store_arrays import EPISODE_ENDS
from training.pusht.append_episode import append_episode, stored_episodes

if TYPE_CHECKING:
    from pusht_env.demonstration_window import DemonstrationWindow

LAST_SEED = 2**32 - 1
SEEDS_TO_TRY = 2000
MOST_STEPS = 100_000  # nearly three hours: what is beyond is a slip
SIZES = (448, 4096)  # the window's words need the smallest; nobody has a larger screen


@dataclass(frozen=True)
class DemonstrateConfig:
    """See `training/conf/demonstrate_pusht.yaml`."""

    output: str = MISSING
    seed: int | None = None
    max_steps: int = 600
    size: int = 640

    def __post_init__(self) -> None:
        if not self.output:
            raise ValueError("output must name a store")
        if self.seed is not None and not 0 <= self.seed <= LAST_SEED:
            raise ValueError(f"seed must be in 0 … {LAST_SEED}, got {self.seed}")
        if not 1 <= self.max_steps <= MOST_STEPS:
            raise ValueError(f"max_steps must be in 1 … {MOST_STEPS}, got {self.max_steps}")
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise ValueError(f"size must be in {SIZES[0]} … {SIZES[1]}, got {self.size}")


def demonstrate_pusht(config: DemonstrateConfig) -> None:
    """Open the window, and append what the person keeps to the store, until the person quits.

    Raises:
        ValueError: for a store that cannot be appended to, or whose next seed is not known.
        RuntimeError: where there is no screen, or no pygame.
    """
    kept, seed = starting_point(config)
    window = _open_window(config.size)
    try:
        record(config, window, range(seed, LAST_SEED + 1), kept=kept)
    finally:
        window.close()


def starting_point(config: DemonstrateConfig) -> tuple[int, int]:
    """The number of episodes in the store, and the seed of the next one.

    Raises:
        ValueError: see `demonstrate_pusht`.
    """
    path = Path(config.output)
    if not path.exists():
        return 0, config.seed or 0
    arrays, _ = stored_episodes(path)
    ends = [0, *arrays[EPISODE_ENDS].tolist()]
    kept = len(ends) - 1
    if config.seed is not None:
        return kept, config.seed
    # Each episode has had a seed of its own, so that the last one's is no smaller than its index.
    candidates = range(kept - 1, kept - 1 + SEEDS_TO_TRY)
    last = find_seed(arrays["data/state"][ends[-2]], candidates)
    if last is None:
        raise ValueError(
            f"{path}: its last episode begins as none of the seeds {candidates[0]} … {candidates[-1]} does; "
            "seed=… must say which one is next"
        )
    return kept, last + 1


def record(config: DemonstrateConfig, hand: Hand, seeds: Iterable[int], *, kept: int = 0) -> None:
    """Append what a hand demonstrates and keeps to the store, each episode before the next one begins.

    Args:
        config: its output and its longest episode.
        hand: who demonstrates.
        seeds: of the initial states.
        kept: episodes in the store.
    """
    path = Path(config.output)
    for shown in demonstrate(hand, seeds, max_steps=config.max_steps, kept=kept):
        kept = append_episode(path, shown.states, shown.actions, n_contacts=shown.n_contacts)
        seconds = len(shown.actions) / CONTROL_HZ
        print(
            f"{path}: kept seed {shown.seed} ({seconds:.1f} s, reward {shown.reward:.2f}), {kept} episodes now",
            flush=True,
        )


def _open_window(size: int) -> DemonstrationWindow:
    try:
        from pusht_env.demonstration_window import DemonstrationWindow
    except ModuleNotFoundError as error:
        raise RuntimeError(f"the window needs {error.name}: pip install 'pcm_policy[sim]'") from error
    return DemonstrationWindow(size)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("demonstrate_pusht", DemonstrateConfig, demonstrate_pusht, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
