"""Training of a policy that sees: encoders and U-Net as one network, and pictures read ahead of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policy import PolicyConfig, Task
from policy.networks.image_encoder import ImageEncoder, ImageEncoders
from policy.networks.resnet import load_published_weights
from policy.networks.unet import ConditionalUnet1D

BATCHES_AHEAD = 4


class ReadPictures(Protocol):
    """Something that pictures are read from, such as `Pictures`."""

    def read(self, steps: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pictures (n, height, width, 3) of steps (n,)."""


class SeeingNetwork(nn.Module):
    """Noise predictor whose condition is made of vectors and pictures, trained end to end.

    Under autocast the ResNets alone are computed in low precision. They are most of the work, and the U-Net's input
    must tell px.
    """

    def __init__(self, unet: ConditionalUnet1D, encoders: ImageEncoders) -> None:
        super().__init__()
        self.unet, self.encoders = unet, encoders

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        vectors: Tensor,
        *,
        pictures: Mapping[str, Tensor],
        places: Mapping[str, Tensor],
    ) -> Tensor:
        """The noise (B, H, A).

        Args:
            sample, timestep: see `ConditionalUnet1D`.
            vectors: (B, O·D), the normalised vectors of O observations.
            pictures: (b, O, height, width, 3) uint8, by the part's name. Where B is a multiple of b they repeat.
            places: (b·O, 2) of their crops, see `ImageEncoders`.
        """
        flat = {name: each.flatten(0, 1) for name, each in pictures.items()}
        shown, observations = next(iter(pictures.values())).shape[:2]
        features = self.encoders(flat, places).view(shown, observations, -1)
        features = features.repeat(len(sample) // shown, 1, 1)
        rows = torch.cat((vectors.view(len(sample), observations, -1), features), -1)
        with torch.autocast(sample.device.type, enabled=False):
            predicted: Tensor = self.unet(sample, timestep, rows.flatten(1))
        return predicted


class PictureBatches:
    """The pictures of each optimiser step's batch, read by a thread while the network computes.

    Args:
        pictures: of all steps of the demonstrations, by the part's name.
        steps: optimiser step → steps (B, O) of the demonstrations that its batch shows.
        device: where batches are wanted.
    """

    def __init__(
        self,
        pictures: Mapping[str, ReadPictures],
        steps: Callable[[int], NDArray[np.int64]],
        device: torch.device,
    ) -> None:
        self._pictures, self._steps, self._device = pictures, steps, device
        self._reader = ThreadPoolExecutor(1, "pictures")
        self._ahead: dict[int, Future[dict[str, Tensor]]] = {}
        self._waited = 0.0
        self._since = time.monotonic()

    def batch(self, step: int) -> dict[str, Tensor]:
        """Pictures (B, O, height, width, 3) of an optimiser step. Those of the next ones are read meanwhile."""
        for ahead in range(step, step + BATCHES_AHEAD):
            if ahead not in self._ahead:
                self._ahead[ahead] = self._reader.submit(self._read, ahead)
        started = time.monotonic()
        pictures = self._ahead.pop(step).result()
        self._waited += time.monotonic() - started
        return {name: each.to(self._device, non_blocking=True) for name, each in pictures.items()}

    def share_waited(self) -> float:
        """Share of the time since the last call that was spent waiting for pictures."""
        now = time.monotonic()
        share = self._waited / max(now - self._since, 1e-9)
        self._waited, self._since = 0.0, now
        return share

    def close(self) -> None:
        self._reader.shutdown(cancel_futures=True)

    def _read(self, step: int) -> dict[str, Tensor]:
        wanted = self._steps(step)
        read = {name: each.read(wanted.reshape(-1)) for name, each in self._pictures.items()}
        return {
            name: torch.from_numpy(each).view(*wanted.shape, *each.shape[1:]) for name, each in read.items()
        }


def showing(
    network: nn.Module,
    pictures: Mapping[str, Tensor],
    *,
    generator: torch.Generator,
    batch_size: int,
    share: slice,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A `SeeingNetwork` as losses call networks, (sample, timestep, vectors) → prediction, shown these pictures.

    Args:
        pictures: (b, O, height, width, 3) of this worker's rows.
        generator: source of the crops' places, drawn for the whole batch when the network is called.
        batch_size: over all workers.
        share: this worker's rows.
    """

    def predict(sample: Tensor, timestep: Tensor, vectors: Tensor) -> Tensor:
        places = {
            name: torch.rand((batch_size, each.shape[1], 2), generator=generator, device=generator.device)
            for name, each in pictures.items()
        }
        places = {name: each[share].flatten(0, 1) for name, each in places.items()}
        predicted: Tensor = network(sample, timestep, vectors, pictures=pictures, places=places)
        return predicted

    return predict


def trained_network(config: PolicyConfig, task: Task, weights: str | None = None) -> nn.Module:
    """What a training trains: the U-Net, and the encoders of a task with pictures.

    Args:
        weights: safetensors file with which ResNets begin, in torchvision's names; None for random ones.

    Raises:
        ValueError: for widths that networks cannot be built with, or weights for a task without pictures.
        CheckpointError: for weights of another network.
    """
    unet = config.build_network(task)
    encoders = config.build_encoders(task)
    if encoders is None:
        if weights is not None:
            raise ValueError(f"image_encoder_weights is for pictures, task {task.name!r} has none")
        return unet
    if weights is not None:
        for encoder in encoders.encoders.values():
            assert isinstance(encoder, ImageEncoder)
            load_published_weights(encoder.resnet, weights)
    return SeeingNetwork(unet, encoders)


def unet_and_encoders(network: nn.Module) -> tuple[ConditionalUnet1D, ImageEncoders | None]:
    """The parts of a trained network."""
    if isinstance(network, SeeingNetwork):
        return network.unet, network.encoders
    assert isinstance(network, ConditionalUnet1D)
    return network, None
