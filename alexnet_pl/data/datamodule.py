"""The LightningDataModule: load the images, order them, and make them the net's input.

A small dataset is one uint8 tensor on the net's device, and so is a packed store that fits there. Threads read ahead
from others. Either way a batch reaches the device as uint8, with the random choices that `train_draws` made for it.
BatchLoader then calls `train_input`, `centre_input` or `views_input` here, instead of Lightning's
on_after_batch_transfer. They crop, mirror, colour and centre the whole batch at once. There is no
DataLoader.
"""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl
import torch
from torch import Tensor

from alexnet_pl.config.choices import ColorNoise
from alexnet_pl.config.schema import Config
from alexnet_pl.data import augment, store
from alexnet_pl.data.augment import NO_DRAWS, Draws
from alexnet_pl.data.datasets import SMALL_DATASETS
from alexnet_pl.data.loader import BatchLoader, BatchSlice, InMemoryDataset, PackedDataset, Replica
from alexnet_pl.data.on_device import place
from alexnet_pl.data.pixel_stats import ColorPCA, PixelStats
from alexnet_pl.errors import ConfigError
from alexnet_pl.files import expand

EVAL_PIXELS = 2**23
"""Pixels in a batch of an evaluation, so that batches take about the same memory for every image size"""


class ImageDataModule(pl.LightningDataModule):
    """The training and validation images of a run, as its `data` group says.

    Args:
        device: the device for images if there is no trainer; a trainer has its own.
    """

    def __init__(self, cfg: Config, device: torch.device | None = None) -> None:
        super().__init__()
        self.cfg = cfg
        self.ready = False
        self._device = device or torch.device("cpu")

    def prepare_data(self) -> None:
        """Download the dataset, in one process of each machine."""
        if self.cfg.data.download:
            SMALL_DATASETS[self.cfg.data.kind].load(expand(self.cfg.data.root or "."), "val", True)

    def setup(self, stage: str) -> None:
        """Load both splits, or open them, and compute the mean image and the colours' principal components.

        Raises:
            ConfigError: the files are missing or damaged, a split is empty, or labels are out of range.
        """
        if self.ready:  # Lightning asks again before a test
            return
        d = self.cfg.data
        train = self.load("train")
        self.train = place(train, self.device, d.on_device)
        if self.cfg.trainer.limit_val_batches != 0 or self.cfg.test_views:
            self.val = place(self.load("val"), self.device, d.on_device)
        if isinstance(train, PackedDataset):
            mean = torch.from_numpy(train.store.mean())
            colors = train.store.colors
            self.colors = ColorPCA(*(torch.tensor(colors[key], dtype=torch.float64) for key in ColorPCA._fields))
        else:
            sums = PixelStats(train.images.shape[1])
            sums.add(train.images.cpu())  # not every device has float64
            mean = sums.mean_image()
            self.colors = sums.colors()
        if d.mean_color is not None:
            mean = torch.tensor(d.mean_color).expand(mean.shape)
        mean = augment.resize(mean.float()[None], d.resized_size)[0]
        self.mean = augment.centre_crop(mean, d.input_size).to(self.device)
        self.ready = True

    def load(self, split: str) -> InMemoryDataset | PackedDataset:
        """Load only one split, train or val.

        Raises:
            ConfigError: as `setup`.
        """
        d = self.cfg.data
        root = expand(d.root or ".")
        dataset: InMemoryDataset | PackedDataset
        if d.packed:
            dataset = PackedDataset(store.require(root), split, pinned=self.device.type == "cuda", workers=d.workers)
            labels = dataset.labels
        else:
            images, labels = SMALL_DATASETS[d.kind].load(root, split, d.download)
            dataset = InMemoryDataset(images.to(self.device), labels.to(self.device))
        if not len(labels):
            raise ConfigError(f"the {split} split of data.name={d.name} is empty")
        if labels.min() < 0 or labels.max() >= d.num_classes:
            raise ConfigError(
                f"the {split} split has labels from {labels.min()} to {labels.max()}, "
                f"but data.num_classes={d.num_classes}"
            )
        return dataset

    @property
    def device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else self._device

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        d = self.cfg.data
        if d.packed:
            return store.require(expand(d.root or ".")).classes
        return list(SMALL_DATASETS[d.kind].classes)

    @property
    def input_size(self) -> int:
        return self.cfg.data.input_size

    @property
    def images_per_epoch(self) -> int:
        return len(self.train)

    @property
    def epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0

    @property
    def replica(self) -> Replica:
        """Rank and number of the processes that share a batch, by the trainer's strategy."""
        strategy = self.trainer.strategy if self.trainer else None
        sampler = getattr(strategy, "distributed_sampler_kwargs", None)  # a strategy of one device has none
        return Replica(sampler["rank"], sampler["num_replicas"]) if sampler else Replica()

    # -------------------------------------------------------------------------------------------- loaders

    def train_dataloader(self) -> BatchLoader:
        """Return a loader that gives each image once per epoch, augmented at random by (seed, epoch, batch number)."""

        def order() -> Tensor:
            epoch = self.epoch if self.cfg.data.shuffle else 0
            return torch.randperm(len(self.train), generator=augment.stream(self.cfg.seed, epoch))

        size = self.cfg.data.batch_size
        self.train_batches = BatchLoader(
            self.train, order, len(self.train), size, self.train_input, self.device, self.replica, self.train_draws
        )
        return self.train_batches

    def val_dataloader(self) -> list[BatchLoader]:
        """Return loaders of the validation set and of the fixed training subset, both by the centre crop."""
        loaders = [self._evaluation_loader(self.val, len(self.val), self.centre_input)]
        if count := min(self.cfg.train_eval_images, len(self.train)):
            loaders.append(self._evaluation_loader(self.train, count, self.centre_input))
        return loaders

    def test_dataloader(self) -> BatchLoader:
        """Return a loader of the validation set: n * test_views inputs for n images, an image's views side by side."""
        return self._evaluation_loader(self.val, len(self.val), self.views_input, self.cfg.test_views)

    def _evaluation_loader(
        self,
        dataset: InMemoryDataset | PackedDataset,
        count: int,
        transform: Callable[[Tensor, Draws], Tensor],
        views: int = 1,
    ) -> BatchLoader:
        """Return a loader that gives each image once, over all processes that share them, and the same each time."""
        rows = torch.arange(count)
        if self.cfg.data.packed:  # it may be sorted by class, and a part of it must be a fair sample
            rows = torch.randperm(len(dataset), generator=augment.stream(len(dataset)))[:count]
        inputs = min(1000, 1 + EVAL_PIXELS // self.input_size**2)
        return BatchLoader(dataset, lambda: rows, len(rows), -(-inputs // views), transform, self.device, self.replica)

    # -------------------------------------------------------------------------------------------- draws, on the CPU

    def train_draws(self, step: int, part: BatchSlice) -> Draws:
        """Draw what is random about a slice of the training batch of this number; any thread may call it.

        Random numbers are drawn for the whole batch, so they do not depend on how many processes share it.
        """
        d = self.cfg.data
        random = augment.stream(self.cfg.seed, self.epoch, 1 + step)  # the order has the stream of 0
        crops, shift, divisor = None, None, 1.0
        margin = d.resized_size - self.input_size if d.random_crop else 0
        if margin or d.random_flip:
            drawn = augment.draw_crops(part.of, margin, d.random_flip, random, d.crop_chunk)
            crops = augment.CropDraws(*(each[part.first : part.last] for each in drawn))
        noise_is_over = d.color_noise_until is not None and self.epoch >= d.color_noise_until
        if d.color_noise is not ColorNoise.off and not noise_is_over:
            shift, divisor = augment.color_noise(d.color_noise, part.of, self.colors, random)
            shift = shift[part.first : part.last]
        return Draws(crops, shift, divisor)

    # -------------------------------------------------------------------------------------------- on the device

    def train_input(self, images: Tensor, draws: Draws) -> Tensor:
        """Augment uint8 (n, S, S, 3) as `train_draws` says: float32 (n, 3, H, W)."""
        d, size = self.cfg.data, self.input_size
        images = augment.resize(images, d.resized_size)
        if not d.random_crop:
            images = augment.centre_crop(images, size)
        if draws.crops:
            images = augment.crop(images, size, draws.crops)
        return augment.to_input(images, self.mean, d.pixel_scale * draws.divisor, draws.shift)

    def centre_input(self, images: Tensor, draws: Draws = NO_DRAWS) -> Tensor:
        """uint8 (n, S, S, 3) -> input of the net in an evaluation, float32 (n, 3, H, W)."""
        return augment.evaluation_input(images, self.mean, self.cfg.data.resized_size, self.cfg.data.pixel_scale)

    def views_input(self, images: Tensor, draws: Draws = NO_DRAWS) -> Tensor:
        """uint8 (n, S, S, 3) -> input of the net in the test at the end, float32 (n * test_views, 3, H, W)."""
        d = self.cfg.data
        return augment.evaluation_input(images, self.mean, d.resized_size, d.pixel_scale, self.cfg.test_views)
