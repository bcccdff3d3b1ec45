"""The mean image and the colours' covariance of a set of images, from exact sums.

The same images give the same bits, in any order and in any number of parts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 2**15
"""Pixels, of whole images, to convert to float64 at a time: few enough to stay in a core's cache"""


class ColorPCA(NamedTuple):
    """The principal components of the colours of all pixels, in units of 0..255 (section 4.1)."""

    vectors: Tensor
    """float64 (3, 3): a row for each component, its direction in R, G, B, of length 1, its largest entry positive"""
    std: Tensor
    """float64 (3,): the standard deviation along each, falling; squared, these are the covariance's eigenvalues"""


class PixelStats:
    """Sums over uint8 images (N, S, S, 3): of each pixel, and of the products of two colours in one pixel."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.block = max(1, BLOCK // size**2)  # images that are best added at a time
        self.pixels = torch.zeros(size, size, 3, dtype=torch.float64)  # whole numbers, too
        self.products = torch.zeros(3, 3, dtype=torch.int64)

    def add(self, images: Tensor) -> None:
        """Add uint8 (n, S, S, 3), on the CPU."""
        for block in images.split(self.block):
            pixels, ones = block.reshape(-1, 3).double(), torch.ones(len(block), dtype=torch.float64)
            # Whole numbers are exact in float64 up to 2**53; a block stays below it up to 370,000 pixels a side.
            self.products += (pixels.T @ pixels).to(torch.int64)
            # The sum over images, as a product with ones: it is added in place, where another would need new memory.
            self.pixels.view(-1).addmv_(pixels.view(len(block), self.pixels.numel()).T, ones)
            self.count += len(block)

    def __iadd__(self, other: PixelStats) -> PixelStats:
        """Add the sums over another set of images."""
        self.count += other.count
        self.pixels += other.pixels
        self.products += other.products
        return self

    def mean_image(self) -> Tensor:
        """Return the mean image, float64 (S, S, 3), in 0..255."""
        return self.pixels / self.count

    def covariance(self) -> Tensor:
        """Return the covariance of R, G and B over all pixels of all images, float64 (3, 3)."""
        pixels = self.count * self.pixels[..., 0].numel()
        mean = self.pixels.sum((0, 1)) / pixels
        return self.products.double() / pixels - mean[:, None] * mean

    def colors(self) -> ColorPCA:
        """Return the principal components of that covariance."""
        values, vectors = torch.linalg.eigh(self.covariance())  # rising, a column for each
        vectors = vectors.T.flip(0)
        largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
        return ColorPCA(vectors * largest.sign(), values.flip(0).clamp(min=0).sqrt())
