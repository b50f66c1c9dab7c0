from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policy import ImagePart
from policy.image_encoder_config import ImageEncoderConfig
from policy.networks.image_encoder import ImageEncoders, SpatialSoftmax, cropped

WRIST, TOP = ImagePart(name="wrist", height=48, width=64), ImagePart(name="type", height=40, width=40)
SMALL = ImageEncoderConfig(width=16, features=8)


def pictures(count: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        part.name: torch.randint(0, 256, (count, *part.shape), dtype=torch.uint8, generator=generator)
        for part in (WRIST, TOP)
    }


def test_a_keypoint_is_where_its_map_is_bright() -> None:
    softmax = SpatialSoftmax(2, 2)
    torch.nn.init.dirac_(softmax.maps.weight)
    maps = torch.zeros(1, 2, 3, 5)
    maps[0, 0, 0, 4] = maps[0, 1, 2, 0] = 100

    torch.testing.assert_close(softmax(maps), torch.tensor([[1.0, -1.0, -1.0, 1.0]]))


@given(top=st.floats(0, 1), left=st.floats(0, 1))
def test_a_crop_is_a_piece_of_its_picture(top: float, left: float) -> None:
    given_pictures = torch.arange(2 * 6 * 8 * 3).view(2, 6, 8, 3)
    found = cropped(given_pictures, (4, 5), torch.tensor([[top, left], [0.5, 1.0]]))

    assert found.shape == (2, 4, 5, 3)
    for index, (row, column) in enumerate(((min(int(top * 3), 2), min(int(left * 4), 3)), (1, 3))):
        expected = given_pictures[index, row : row + 4, column : column + 5]
        assert torch.equal(found[index], expected)


def test_the_middle_is_cropped_in_use() -> None:
    given_pictures = torch.arange(6 * 8 * 3).view(1, 6, 8, 3)
    assert torch.equal(cropped(given_pictures, (4, 4)), given_pictures[:, 1:5, 2:6])


@pytest.mark.parametrize("shared", [False, True])
def test_cameras_have_an_encoder_each_or_share_one(shared: bool) -> None:
    encoders = ImageEncoders((WRIST, TOP), ImageEncoderConfig(width=16, features=8, shared=shared)).eval()
    features = encoders(pictures())

    assert features.shape == (2, 16)
    assert len(encoders.encoders) == (1 if shared else 2)
    wrist = cropped(pictures()["wrist"], (42, 56))
    torch.testing.assert_close(features[:, :8], encoders.encoder("wrist")(wrist))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wrist": torch.zeros(2, 48, 64, 3)}, "pictures of wrist must be uint8, got float32"),
        (
            {"wrist": torch.zeros(2, 64, 48, 3, dtype=torch.uint8)},
            r"pictures of wrist must be \(B, 48, 64, 3\), got \(2, 64, 48, 3\)",
        ),
        (
            {"type": torch.zeros(1, 40, 40, 3, dtype=torch.uint8)},
            "pictures of type are 1, those of wrist are 2",
        ),
        ({"rear": torch.zeros(1)}, "pictures are of wrist, type, rear, needed of wrist, type"),
    ],
)
def test_pictures_that_do_not_fit_are_refused_by_name(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageEncoders((WRIST, TOP), SMALL).check({**pictures(), **change})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 24}, "image_encoder.width must be a multiple of 16, got 24"),
        ({"features": 3}, "image_encoder.features must be a multiple of 2, got 3"),
        ({"crop": 1.5}, "image_encoder.crop must be in 0.1 … 1, got 1.5"),
        ({"shared": 1}, "image_encoder.shared must be true or false, got 1"),
    ],
)
def test_encoders_that_cannot_be_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageEncoderConfig(**options)  # type: ignore[arg-type]
