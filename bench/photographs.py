"""Photographs to measure with, drawn: as large as ImageNet's usual ones, or Tiny ImageNet's, and about as detailed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SMALL, CANVAS, CLASSES = 64, 2048, 100
"""Pixels along a side of a small photograph, and of what they are cut from; their classes"""


def draw(folder: Path, count: int) -> None:
    """So many JPEG files of 500x375 pixels in two classes, `drawn` and `other`."""
    random = np.random.default_rng(1)
    (folder / "drawn").mkdir(parents=True)
    (folder / "other").mkdir()
    for i in range(count):
        image = noise(random, 500, 375, 2)
        image += random.normal(0, 6, image.shape)
        place = folder / ("drawn" if i % 2 else "other") / f"{i}.jpg"
        as_image(image).save(place, quality=92, subsampling=0)


def draw_small(folder: Path, count: int) -> None:
    """So many JPEG files of 64x64 pixels and some 2 kB in a hundred classes: cut from one picture, to be quick."""
    random = np.random.default_rng(1)
    canvas = as_image(noise(random, CANVAS, CANVAS, CANVAS // SMALL))
    for i in range(CLASSES):
        (folder / f"{i:02d}").mkdir(parents=True)
    for i, (left, top) in enumerate(random.integers(0, CANVAS - SMALL, (count, 2)).tolist()):
        place = folder / f"{i % CLASSES:02d}" / f"{i}.jpg"
        canvas.crop((left, top, left + SMALL, top + SMALL)).save(place, quality=90)


def noise(random: np.random.Generator, width: int, height: int, coarsest: int) -> np.ndarray:
    """Noise of seven scales, as in nature, around 0; the coarsest has so many waves to a side."""
    image = np.zeros((height, width, 3))
    for octave in range(7):
        size = coarsest * 2**octave
        coarse = Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8))
        scaled = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        image += (scaled - 127.5) / 1.5 ** (octave + 1)
    return image


def as_image(image: np.ndarray) -> Image.Image:
    return Image.fromarray((127.5 + image).clip(0, 255).astype(np.uint8))
