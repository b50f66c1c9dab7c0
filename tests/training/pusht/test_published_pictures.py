from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from training.pusht.published_pictures import main, picture_difference

PUBLISHED = Path(__file__).resolve().parents[4] / "shared" / "data" / "pusht_cchi_v7_replay_with_images.zarr"
pytestmark = pytest.mark.skipif(not PUBLISHED.exists(), reason="the published pictures are not there")


def test_the_simulator_draws_the_published_pictures() -> None:
    """Six chunks of 161 pictures over the first 2,000; the command compares all of them."""
    store = zarr.open_group(PUBLISHED, mode="r")
    found = []
    for start in range(0, 2000, 322):
        pictures = store["data/img"][start : start + 161][::8]
        found.append(picture_difference(store["data/state"][start : start + 161][::8], pictures))
    difference, off = np.mean(found, axis=0)

    assert difference <= 0.3
    assert off <= 0.003


def test_a_picture_of_another_state_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    store = zarr.open_group(PUBLISHED, mode="r")
    later, pictures = store["data/state"][40:41], store["data/img"][:1]

    assert picture_difference(later, pictures)[1] > 0.004
    assert main([str(PUBLISHED), "--steps", "3"]) == 0
    assert "3 pictures: 0." in capsys.readouterr().out
