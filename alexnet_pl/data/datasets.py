"""The small datasets, which fit into memory. To add one, add its loader, an entry here, and a file in conf/data/.

This file imports no torch, so that a configuration is checked quickly. A loader imports what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SHAPES_SPLITS = {"train": (10_000, 1), "val": (2_000, 2)}
"""Images and seed of each generated split: the same images for every run, whatever its seed"""
SHAPES_CLASSES = ("disc", "ring", "square", "triangle", "cross", "flower", "bars", "checker", "crescent", "pair")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class SmallDataset:
    """A dataset that is loaded whole."""

    load: Callable[[Path, str, bool], tuple[Tensor, Tensor]]
    """(root, train or val, whether to download) -> uint8 (N, size, size, 3) and int64 (N,)"""
    train_images: int
    classes: tuple[str, ...]
    """names in the order of the labels"""
    size: int = 32
    """side of its images in pixels"""
    generated: bool = False
    """whether it is generated: it has no files, so data.root means nothing"""
    downloads: bool = False
    """whether data.download can fetch it"""


def _load_shapes(root: Path, split: str, download: bool) -> tuple[Tensor, Tensor]:
    from alexnet_pl.data import shapes

    return shapes.draw_shapes(SHAPES_CLASSES, *SHAPES_SPLITS[split])


def _load_cifar10(root: Path, split: str, download: bool) -> tuple[Tensor, Tensor]:
    from alexnet_pl.data import cifar10

    return cifar10.load(root, "test" if split == "val" else split, download)


SMALL_DATASETS = {
    "shapes": SmallDataset(_load_shapes, SHAPES_SPLITS["train"][0], SHAPES_CLASSES, generated=True),
    "cifar10": SmallDataset(_load_cifar10, 50_000, CIFAR10_CLASSES, downloads=True),
}
"""data.kind -> the dataset; the only other kind is `packed`, a store that `alexnet_pl.prepare` makes"""
