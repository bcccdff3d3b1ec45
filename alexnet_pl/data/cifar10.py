"""Read CIFAR-10 from disk: Parquet files of the Hugging Face hub, the original pickles, or torchvision's download."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alexnet_pl.errors import ConfigError, first_line


def load(root: Path, split: str, download: bool = False) -> tuple[Tensor, Tensor]:
    """Read one split as tensors.

    Args:
        root: folder with `train-*.parquet` and `test-*.parquet` (directly or one folder down), or with
            `cifar-10-batches-py/`.
        split: train (50,000 images) or test (10,000).
        download: let torchvision fetch the pickles into root where nothing is there yet.
    Returns:
        uint8 (N, 32, 32, 3) and int64 (N,).
    Raises:
        ConfigError: root holds nothing to read, or a damaged file, which is named.
    """
    files = sorted(root.glob(f"{split}-*.parquet")) or sorted(root.glob(f"*/{split}-*.parquet"))
    if files:
        parts = [_read_parquet(file) for file in files]
        return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])
    if (root / "cifar-10-batches-py").is_dir() or download:
        return _read_pickles(root, split, download)
    found = ", ".join(sorted(p.name for p in root.iterdir())[:5]) or "nothing"
    raise ConfigError(
        f"data.root={root} holds no CIFAR-10 {split} set: looked for {split}-*.parquet and cifar-10-batches-py/, "
        f"found {found}"
    )


def _read_parquet(file: Path) -> tuple[Tensor, Tensor]:
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{file} cannot be read as Parquet ({first_line(error)[:160]}): copy it again") from error
    missing = {"img", "label"} - set(table.column_names)
    if missing:
        raise ConfigError(f"{file} has columns {table.column_names}, but CIFAR-10 needs img and label")
    if not len(table):
        raise ConfigError(f"{file} holds no images")
    images = np.empty((len(table), 32, 32, 3), dtype=np.uint8)
    for row, cell in enumerate(table["img"].combine_chunks().field("bytes")):
        try:
            image = np.asarray(Image.open(io.BytesIO(cell.as_py() or b"")).convert("RGB"))
        except OSError as error:
            raise ConfigError(f"{file}, row {row}: the image does not decode ({first_line(error)[:160]})") from error
        if image.shape != (32, 32, 3):
            raise ConfigError(f"{file}, row {row}: an image of {image.shape}, expected (32, 32, 3)")
        images[row] = image
    return torch.from_numpy(images), torch.from_numpy(table["label"].to_numpy().astype(np.int64))


def _read_pickles(root: Path, split: str, download: bool) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import CIFAR10

    try:
        data = CIFAR10(root, train=split == "train", download=download)
    except (RuntimeError, EOFError, OSError) as error:
        raise ConfigError(
            f"CIFAR-10's pickles in {root} cannot be read or downloaded ({first_line(error)[:160]})"
        ) from error
    return torch.from_numpy(data.data), torch.tensor(data.targets)
