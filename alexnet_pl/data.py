"""The data sets as LightningDataModules.

A small set is one uint8 tensor on the device of the net; there is no DataLoader and there are no workers: a batch is
gathered, augmented and centred where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from alexnet_pl import augment, cifar10, config
from alexnet_pl.errors import ConfigError
from alexnet_pl.shapes import shapes

# seeds of the generated set: the same pictures for every run, whatever its seed
SHAPES = {"train": (10_000, 1), "test": (2_000, 2)}


class SmallSet(pl.LightningDataModule):
    """A data set that fits on the device: generated shapes, CIFAR-10."""

    def __init__(self, cfg: config.Config) -> None:
        super().__init__()
        self.cfg = cfg

    def setup(self, stage: str) -> None:
        """Load both splits and the mean image.

        Raises:
            ConfigError: the files are missing or damaged, a split is empty, or labels are out of range.
        """
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        self.train = self._load("train")
        self.val = self._load("test")
        # float64: float32 would lose digits over 50,000 pictures
        self.mean = self.train[0].double().mean(0).float()
        self.train, self.val = _to(self.train, device), _to(self.val, device)
        self.mean = augment.centre_crop(augment.resize(self.mean[None], self.picture_size)[0], self.image_size)
        self.mean = self.mean.to(device)

    def _load(self, split: str) -> tuple[Tensor, Tensor]:
        d = self.cfg.data
        if d.name is config.DataSet.shapes:
            images, labels = shapes(*SHAPES[split])
        else:
            images, labels = cifar10.load(Path(d.root or ".").expanduser(), split, d.download)
        if not len(images):
            raise ConfigError(f"the {split} split of data={d.name.name} is empty")
        if labels.min() < 0 or labels.max() >= d.num_classes:
            raise ConfigError(
                f"the {split} split has labels from {labels.min()} to {labels.max()}, "
                f"but data.num_classes={d.num_classes}"
            )
        return images, labels

    @property
    def image_size(self) -> int:
        return self.cfg.data.image_size

    @property
    def picture_size(self) -> int:
        return self.cfg.data.picture_size

    @property
    def pictures_per_epoch(self) -> int:
        return len(self.train[0])

    @property
    def epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0

    def train_dataloader(self) -> Batches:
        seed, flip = self.cfg.seed, self.cfg.data.flip
        crop = self.image_size if self.image_size < self.picture_size else None

        def transform(images: Tensor, step: int) -> Tensor:
            images = augment.resize(images, self.picture_size)
            if crop or flip:
                random = augment.stream(seed, self.epoch, 1 + step)  # the order has the stream of 0
                images = augment.random_crop(images, crop, random) if crop else images
                images = augment.random_flip(images, random) if flip else images
            return augment.to_input(images, self.mean, self.cfg.data.scale)

        def order() -> Tensor:
            return torch.randperm(self.pictures_per_epoch, generator=augment.stream(seed, self.epoch))

        return Batches(*self.train, self.cfg.data.batch_size, transform, order)

    def val_dataloader(self) -> list[Batches]:
        """The validation set, then the fixed training subset: the first pictures of the training set, not augmented."""

        def transform(images: Tensor, step: int) -> Tensor:
            images = augment.centre_crop(augment.resize(images, self.picture_size), self.image_size)
            return augment.to_input(images, self.mean, self.cfg.data.scale)

        sets = [self.val]
        if self.cfg.subset:
            sets.append((self.train[0][: self.cfg.subset], self.train[1][: self.cfg.subset]))
        batch_size = min(1000, 1 + 2**23 // self.image_size**2)  # about the same memory whatever the size
        return [Batches(images, labels, batch_size, transform) for images, labels in sets]


class Batches:
    """Batches of a set that lies on the device, in the order given anew for each epoch.

    Stateful in Lightning's sense: a checkpoint in the middle of an epoch records how many batches were handed out,
    and the resumed epoch goes on with the next one.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        transform: Callable[[Tensor, int], Tensor],
        order: Callable[[], Tensor] | None = None,
    ) -> None:
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.transform, self.order = transform, order
        self.done = 0  # batches handed out in this epoch
        self._start = 0  # where the next epoch begins: 0, or in the middle after load_state_dict

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields float (n, 3, H, W) and int64 (n,); the last batch of an epoch may be smaller, as in 2012."""
        order = self.order().to(self.images.device) if self.order else None
        start, self._start = self._start, 0
        for step in range(start, len(self)):
            rows: Any = slice(step * self.batch_size, (step + 1) * self.batch_size)
            rows = rows if order is None else order[rows]
            self.done = step + 1
            yield self.transform(self.images[rows], step), self.labels[rows]

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._start = self.done = state["done"]


def _to(split: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    return split[0].to(device), split[1].to(device)
