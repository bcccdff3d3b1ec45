"""Read CIFAR-10 from disk: Parquet files of the Hugging Face hub, the original pickles, or torchvision's download."""

from __future__ import annotations

import io
import struct
import tarfile
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alexnet_pl.data.decoded import decode_once
from alexnet_pl.data.sources.base import DAMAGE, Unreadable
from alexnet_pl.data.sources.shards import in_shards
from alexnet_pl.errors import ConfigError, first_line

BROKEN: tuple[type[Exception], ...] = (
    *DAMAGE,
    SyntaxError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,
    Unreadable,
)
"""What Pillow raises for a damaged image, or for something that is no image"""


def load(root: Path, split: str, download: bool = False) -> tuple[Tensor, Tensor]:
    """Read one split as tensors.

    Args:
        root: folder with `train-*.parquet` and `test-*.parquet` (directly or one folder down), or with
            `cifar-10-batches-py/`.
        split: train (50,000 images) or test (10,000).
        download: whether torchvision may fetch the pickles into root if nothing is there yet.
    Returns:
        uint8 (N, 32, 32, 3) and int64 (N,).
    Raises:
        ConfigError: root holds nothing to read, or a damaged file.
    """
    files = sorted(root.glob(f"{split}-*.parquet")) or sorted(root.glob(f"*/{split}-*.parquet"))
    if files:
        return decode_once(f"cifar10-{split}", files, lambda: _read_shards(files))
    if (root / "cifar-10-batches-py").is_dir() or download:
        return _read_pickles(root, split, download)
    found = ", ".join(sorted(p.name for p in root.iterdir())[:5]) or "nothing"
    raise ConfigError(
        f"data.root={root} holds no CIFAR-10 {split} set: looked for {split}-*.parquet and cifar-10-batches-py/, "
        f"found {found}"
    )


def _read_shards(files: list[Path]) -> tuple[Tensor, Tensor]:
    shards = in_shards(files)
    if not len(shards):
        raise ConfigError(f"{files[0]} holds no images")
    images = []
    for name, data in zip(shards.names, shards.read(0, len(shards)), strict=True):
        try:
            images.append(_decode(data))
        except BROKEN as error:
            reason = first_line(error)[:160]
            raise ConfigError(f"{files[0].parent}, {name}: the image does not decode ({reason})") from error
    return torch.from_numpy(np.stack(images)), torch.from_numpy(shards.labels)


def _decode(data: bytes | Unreadable) -> np.ndarray:
    """Decode an image of 32x32 pixels, in half the time of a general decoder."""
    if isinstance(data, Unreadable):
        raise data
    with Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) as image:
        if image.size != (32, 32):
            raise ValueError(f"an image of {image.width}x{image.height} pixels, expected 32x32")
        return np.asarray(image.convert("RGB"))


def _read_pickles(root: Path, split: str, download: bool) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import CIFAR10

    try:
        data = CIFAR10(root, train=split == "train", download=download)
    except (RuntimeError, EOFError, OSError, HTTPException, tarfile.TarError) as error:
        raise ConfigError(
            f"CIFAR-10's pickles in {root} cannot be read or downloaded ({first_line(error)[:160]})"
        ) from error
    return torch.from_numpy(data.data), torch.tensor(data.targets)
