"""The LightningDataModule: which images, in which order, and what is done to them on their way into the net.

A small set is one uint8 tensor on the device of the net; of a packed store, threads read ahead. Either way a batch
reaches the device as uint8 and is cropped, mirrored, coloured and centred there, all at once. There is no DataLoader.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from alexnet_pl.config.choices import ColorNoise
from alexnet_pl.config.schema import Config
from alexnet_pl.data import augment, store
from alexnet_pl.data.datasets import SMALL_DATASETS
from alexnet_pl.data.loader import BatchLoader, BatchSlice, InMemoryDataset, PackedDataset
from alexnet_pl.data.pixel_stats import ColorPCA, PixelStats
from alexnet_pl.errors import ConfigError

# pixels in a batch of an evaluation: about the same memory whatever their size
EVAL_PIXELS = 2**23


class ImageDataModule(pl.LightningDataModule):
    """The training and validation images of a run, as its `data` group says.

    Args:
        device: where they go without a trainer, which has a device of its own.
    """

    def __init__(self, cfg: Config, device: torch.device | None = None) -> None:
        super().__init__()
        self.cfg = cfg
        self.ready = False
        self._device = device or torch.device("cpu")

    def prepare_data(self) -> None:
        """Download, in one process of each machine."""
        if self.cfg.data.download:
            SMALL_DATASETS[self.cfg.data.kind].load(Path(self.cfg.data.root or ".").expanduser(), "val", True)

    def setup(self, stage: str) -> None:
        """Load both splits, or open them, and take the mean image and the colours' principal components.

        Raises:
            ConfigError: the files are missing or damaged, a split is empty, or labels are out of range.
        """
        if self.ready:  # Lightning asks again before a test
            return
        d = self.cfg.data
        self.train = self.load("train")
        if self.cfg.trainer.limit_val_batches != 0 or self.cfg.test_views:
            self.val = self.load("val")
        if isinstance(self.train, PackedDataset):
            mean = torch.from_numpy(self.train.store.mean())
            colors = self.train.store.colors
            self.colors = ColorPCA(*(torch.tensor(colors[key], dtype=torch.float64) for key in ColorPCA._fields))
        else:
            sums = PixelStats(self.train.images.shape[1])
            sums.add(self.train.images.cpu())  # not every device has float64
            mean = sums.mean_image()
            self.colors = sums.colors()
        mean = augment.resize(mean.float()[None], d.resized_size)[0]
        self.mean = augment.centre_crop(mean, d.input_size).to(self.device)
        self.ready = True

    def load(self, split: str) -> InMemoryDataset | PackedDataset:
        """One split, train or val, by itself.

        Raises:
            ConfigError: as `setup`.
        """
        d = self.cfg.data
        root = Path(d.root or ".").expanduser()
        dataset: InMemoryDataset | PackedDataset
        if d.packed:
            dataset = PackedDataset(store.require(root), split, pinned=self.device.type == "cuda", workers=d.workers)
            labels = dataset.labels
        else:
            images, labels = SMALL_DATASETS[d.kind].load(root, split, d.download)
            dataset = InMemoryDataset(images.to(self.device), labels.to(self.device))
        if not len(labels):
            raise ConfigError(f"the {split} split of data={d.name} is empty")
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
        """What the labels stand for."""
        d = self.cfg.data
        if d.packed:
            return store.require(Path(d.root or ".").expanduser()).classes
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
    def share(self) -> tuple[int, int]:
        """Number of this process among those that share a batch, and how many these are; a tower group is one."""
        strategy = self.trainer.strategy if self.trainer else None
        of = getattr(strategy, "distributed_sampler_kwargs", None) or {"rank": 0, "num_replicas": 1}
        return of["rank"], of["num_replicas"]

    # -------------------------------------------------------------------------------------------- loaders

    def train_dataloader(self) -> BatchLoader:
        """Each image once an epoch, augmented by what (seed, epoch, number of the batch) draw."""

        def order() -> Tensor:
            epoch = self.epoch if self.cfg.data.shuffle else 0
            return torch.randperm(len(self.train), generator=augment.stream(self.cfg.seed, epoch))

        size = self.cfg.data.batch_size
        self.batches = BatchLoader(self.train, order, len(self.train), size, self.train_input, self.device, self.share)
        return self.batches

    def val_dataloader(self) -> list[BatchLoader]:
        """The validation set, then the fixed training subset, both by the centre crop."""
        loaders = [self._evaluation(self.val, len(self.val), self.centre_input)]
        if subset := min(self.cfg.train_eval_images, len(self.train)):
            loaders.append(self._evaluation(self.train, subset, self.centre_input))
        return loaders

    def test_dataloader(self) -> BatchLoader:
        """The validation set; a batch of n images has n * test_views inputs, the views of a image side by side."""
        return self._evaluation(self.val, len(self.val), self.views_input, self.cfg.test_views)

    def _evaluation(
        self,
        images: InMemoryDataset | PackedDataset,
        count: int,
        transform: Callable[[Tensor, int, BatchSlice], Tensor],
        views: int = 1,
    ) -> BatchLoader:
        """The same images each time, of which each process takes its share: each once, however many processes."""
        rows = torch.arange(count)
        if isinstance(images, PackedDataset):  # it may hold one class after the other, and a part must be a fair sample
            rows = torch.randperm(len(images), generator=augment.stream(len(images)))[:count]
        inputs = min(1000, 1 + EVAL_PIXELS // self.input_size**2)
        return BatchLoader(images, lambda: rows, len(rows), -(-inputs // views), transform, self.device, self.share)

    # -------------------------------------------------------------------------------------------- on the device

    def train_input(self, images: Tensor, step: int, part: BatchSlice | None = None) -> Tensor:
        """uint8 (n, S, S, 3) as training sees it in a batch of this number: float32 (n, 3, H, W).

        Chance draws for the whole batch, of which these images are a part: it does not depend on the layout.
        """
        d, size = self.cfg.data, self.input_size
        first, last, of = part or BatchSlice(0, len(images), len(images))
        random = augment.stream(self.cfg.seed, self.epoch, 1 + step)  # the order has the stream of 0
        images = augment.resize(images, d.resized_size)
        if not d.random_crop:
            images = augment.centre_crop(images, size)
        margin = images.shape[1] - size
        if margin or d.random_flip:
            places = augment.draw_crops(of, margin, d.random_flip, random, d.crop_chunk)
            images = augment.crop(images, size, augment.CropDraws(*(each[first:last] for each in places)))
        shift, divisor = None, 1.0
        if d.color_noise is not ColorNoise.off and self.epoch < (d.color_noise_until or self.epoch + 1):
            shift, divisor = augment.color_noise(d.color_noise, of, self.colors, random)
            shift = shift[first:last]
        return augment.to_input(images, self.mean, d.pixel_scale * divisor, shift)

    def centre_input(self, images: Tensor, step: int, part: BatchSlice | None = None) -> Tensor:
        """uint8 (n, S, S, 3) as evaluation sees it: float32 (n, 3, H, W)."""
        return augment.evaluation_input(images, self.mean, self.cfg.data.resized_size, self.cfg.data.pixel_scale)

    def views_input(self, images: Tensor, step: int, part: BatchSlice | None = None) -> Tensor:
        """uint8 (n, S, S, 3) as the test at the end sees it: float32 (n * test_views, 3, H, W)."""
        d = self.cfg.data
        return augment.evaluation_input(images, self.mean, d.resized_size, d.pixel_scale, self.cfg.test_views)
