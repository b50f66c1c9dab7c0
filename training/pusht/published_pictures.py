"""How far the simulator's pictures are from the published ones, along the recorded states.

python -m training.pusht.published_pictures pusht_cchi_v7_replay_with_images.zarr
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from tqdm import tqdm

from pusht_env.env import PIXELS_SIZE
from pusht_env.render import draw_frame

OFF_BY = 20  # of 255: by more, a pixel shows something else


def picture_difference(states: NDArray[np.floating], pictures: NDArray[np.generic]) -> tuple[float, float]:
    """How far drawn pictures are from given ones.

    Args:
        states: (N, 5), see `draw_frame`.
        pictures: (N, 96, 96, 3) of these states, 0 to 255.

    Returns:
        Mean absolute difference, of 255, and the share of pixels with a channel that is off by more than 20.
    """
    drawn = np.stack([draw_frame(state, PIXELS_SIZE) for state in states.tolist()])
    difference = np.abs(drawn.astype(np.float32) - pictures.astype(np.float32))
    return float(difference.mean()), float((difference.max(axis=-1) > OFF_BY).mean())


def _batches(store: Any, steps: int) -> Iterable[tuple[NDArray[np.floating], NDArray[np.generic]]]:
    states, pictures = store["data/state"], store["data/img"]
    rows = pictures.chunks[0]
    for start in tqdm(range(0, steps, rows), unit="chunk"):
        stop = min(start + rows, steps)
        yield np.asarray(states[start:stop]), np.asarray(pictures[start:stop])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="compare the simulator's pictures with the published ones")
    parser.add_argument("store", help="pusht_cchi_v7_replay_with_images.zarr")
    parser.add_argument("--steps", type=int, default=2000, help="control steps to compare, from the first on")
    options = parser.parse_args(argv)
    store: Any = zarr.open_group(options.store, mode="r")
    steps = min(options.steps, store["data/state"].shape[0])
    sizes, found = [], []
    for states, pictures in _batches(store, steps):
        sizes.append(len(states))
        found.append(picture_difference(states, pictures))
    difference, off = np.average(np.array(found), axis=0, weights=sizes)
    print(
        f"{steps} pictures: {difference:.3f} of 255 off on average, {off:.3%} of the pixels by more than {OFF_BY}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
