"""Images made here, and the files that hold them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Array = np.ndarray


def smooth_image(width: int = 131, height: int = 97, noise: float = 0.0) -> Array:
    """Return an image in which no two parts look alike: uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    colors = np.stack([255 * x, 255 * y, 128 + 100 * np.sin(9 * x + 7 * y)], axis=-1)
    colors += np.random.default_rng(0).normal(0, noise, colors.shape)
    return colors.clip(0, 255).astype(np.uint8)


def encode(image: Image.Image | Array, kind: str = "JPEG", **options) -> bytes:
    """Return a file of this kind, Pillow's name of it, that holds the image."""
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def draw_images(n: int, seed: int = 0) -> tuple[Array, Array]:
    """Return random images, uint8 (n, 32, 32, 3), and their labels, int (n,)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, n)


def write_parquet(file: Path, cells: list[bytes], labels: list[int]) -> None:
    """Write a shard as the hub's uoft-cs/cifar10 has them: img = struct{bytes, path}, label = int."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = pa.array(
        [{"bytes": c, "path": None} for c in cells], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    pq.write_table(pa.table({"img": image, "label": pa.array(labels, pa.int64())}), file)
