"""Photographs to measure with, drawn: as large as ImageNet's usual ones, 500x375, and about as detailed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def draw(folder: Path, count: int) -> None:
    """So many JPEG files in two classes, `drawn` and `other`."""
    random = np.random.default_rng(1)
    (folder / "drawn").mkdir(parents=True)
    (folder / "other").mkdir()
    for i in range(count):
        image = np.zeros((375, 500, 3))
        for octave in range(1, 8):  # noise of all scales, as in nature
            size = 2**octave
            coarse = Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8))
            image += (np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)) - 127.5) / 1.5**octave
        image += random.normal(0, 6, image.shape)
        place = folder / ("drawn" if i % 2 else "other") / f"{i}.jpg"
        Image.fromarray((127.5 + image).clip(0, 255).astype(np.uint8)).save(place, quality=92, subsampling=0)
