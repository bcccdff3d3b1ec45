"""Augmentation: turn a batch of stored images into the net's input, on whatever device the batch lies.

Stored images are uint8 (N, height, width, 3). Seen as (N, 3, height, width) they are channels-last already, so
nothing is copied to get the fast memory format. Every random choice is drawn per image from a generator that
`stream(seed, epoch, step)` makes: a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alexnet_pl.config.choices import ColorNoise
from alexnet_pl.data.pixel_stats import ColorPCA

COLOR_NOISE_STD = 0.1
"""Standard deviation of the multiples of the principal components (paper, section 4.1)"""
RELEASED_NOISE_DIVISOR = 1.1
"""What the released code divides images by after it has added its colour noise"""


def seed(*numbers: int) -> int:
    """Return a seed that depends on all the numbers, such as (seed, epoch, step), and on nothing else."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def stream(*numbers: int) -> torch.Generator:
    """Return a CPU generator with the seed of these numbers."""
    return torch.Generator().manual_seed(seed(*numbers))


def resize(images: Tensor, size: int) -> Tensor:
    """Scale images (N, H, W, C), any dtype, to squares of `size` pixels: bilinear, smoothed where they shrink."""
    if images.shape[1:3] == (size, size):
        return images
    from torchvision.transforms.v2 import functional  # its import takes a second, and most datasets need no scaling

    return functional.resize(images.permute(0, 3, 1, 2), [size, size]).permute(0, 2, 3, 1)


class CropDraws(NamedTuple):
    """The random choices for the crops of n training images."""

    top: Tensor
    """int64 (n,): first row of the square, in pixels"""
    left: Tensor
    """int64 (n,): first column of the square, in pixels"""
    mirrored: Tensor
    """bool (n,)"""


def draw_crops(n: int, margin: int, flip: bool, generator: torch.Generator, chunk: int = 1) -> CropDraws:
    """Draw squares uniformly from the margin + 1 places in either direction; mirror with probability one half.

    Args:
        margin: pixels by which an image is larger than its square; 32 in 2012, so 33 x 33 places.
        flip: false mirrors none.
        chunk: number of successive images that share one draw; 32 in the released code, 1 in its successors.
    """
    chunk = min(chunk, n)
    count = -(-n // chunk)
    top, left = (torch.randint(margin + 1, (count,), generator=generator) for _ in range(2))
    mirrored = torch.rand(count, generator=generator) < 0.5 if flip else torch.zeros(count, dtype=torch.bool)
    return CropDraws(*(each.repeat_interleave(chunk)[:n] for each in (top, left, mirrored)))


def crop(images: Tensor, size: int, draws: CropDraws) -> Tensor:
    """Cut a square of `size` pixels from each image, and mirror it left to right where `draws` says so.

    Args:
        images: (N, H, W, C), any dtype.
    Returns:
        (N, size, size, C), same dtype and device.
    """
    # on a CPU, copying each image's rows is twenty times as fast as gathering pixels
    return _crop_by_copy(images, size, draws) if images.device.type == "cpu" else _crop_by_index(images, size, draws)


def _crop_by_copy(images: Tensor, size: int, draws: CropDraws) -> Tensor:
    squares = images.new_empty(len(images), size, size, images.shape[3])
    for image, square, top, left, mirrored in zip(images, squares, *(each.tolist() for each in draws), strict=True):
        part = image[top : top + size, left : left + size]
        square.copy_(part.permute(2, 0, 1).flip(2).permute(1, 2, 0) if mirrored else part)
    return squares


def _crop_by_index(images: Tensor, size: int, draws: CropDraws) -> Tensor:
    top, left, mirrored = (each[:, None] for each in draws)
    along = torch.arange(size, device=images.device)
    columns = left + torch.where(mirrored, size - 1 - along, along)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    return images[image, (top + along)[:, :, None], columns[:, None, :]]


def centre_crop(images: Tensor, size: int) -> Tensor:
    """Cut out the centre square of `size` pixels; where the margin is odd, one pixel nearer the top and left."""
    top, left = (images.shape[-3] - size) // 2, (images.shape[-2] - size) // 2
    return images[..., top : top + size, left : left + size, :]


def ten_views(images: Tensor, size: int) -> Tensor:
    """Cut out the four corner squares and the centre one, then mirror them: "10-crop" (paper, section 4.1).

    Args:
        images: (N, H, W, C), any dtype.
    Returns:
        (N, 10, size, size, C), same dtype: top left, top right, bottom left, bottom right, centre; the same mirrored.
    """
    bottom, right = images.shape[1] - size, images.shape[2] - size
    corners = [images[:, top:, left:][:, :size, :size] for top in (0, bottom) for left in (0, right)]
    five = torch.stack([*corners, centre_crop(images, size)], 1)
    return torch.cat([five, five.flip(3)], 1)


def nine_views(images: Tensor, size: int) -> Tensor:
    """Cut out the squares of a 3x3 grid, without mirror images, as the released code tests its nets for CIFAR-10.

    Args:
        images: (N, H, W, C), any dtype.
    Returns:
        (N, 9, size, size, C), same dtype: row by row from the top left.
    """
    places = [((images.shape[side] - size) * step // 2 for step in range(3)) for side in (1, 2)]
    return torch.stack([images[:, top:, left:][:, :size, :size] for top, left in product(*places)], 1)


VIEWS = {1: lambda images, size: centre_crop(images, size)[:, None], 9: nine_views, 10: ten_views}
"""How an image is seen, by the number of its views"""


def color_noise(kind: ColorNoise, n: int, colors: ColorPCA, generator: torch.Generator) -> tuple[Tensor, float]:
    """Draw the colour to add to each of n images; return it with the divisor of the sum (paper, section 4.1).

    With e_k and l_k the eigenvectors and eigenvalues of the colours' covariance, in units of 0..255, and a_k normal of
    standard deviation COLOR_NOISE_STD, drawn for each image and component:

        paper: sum of e_k a_k l_k / 255. Its formula takes the eigenvalues, which makes sense for pixels of 0..1 only:
            for 0..255 the noise would be of 1,500 grey levels. On ImageNet 5.8, 0.5 and 0.15 grey levels.
        released_2012: sum of e_k a_k sqrt(l_k), then all is divided by 1.1. On ImageNet 12, 3.7 and 2.0 grey levels.

    Returns:
        float32 (n, 3) in grey levels, and the divisor.
    """
    multiples = COLOR_NOISE_STD * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    strength = colors.std**2 / 255 if kind is ColorNoise.paper else colors.std
    shift = (multiples * strength) @ colors.vectors
    return shift.float(), 1.0 if kind is ColorNoise.paper else RELEASED_NOISE_DIVISOR


class Draws(NamedTuple):
    """The random choices for n training images: on the CPU, where they are drawn, or on the images' device."""

    crops: CropDraws | None = None
    """None: whole images, or their centres"""
    shift: Tensor | None = None
    """float32 (n, 3): colours to add, in grey levels"""
    divisor: float = 1.0
    """of the sum"""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*(self.crops or ()), *(() if self.shift is None else (self.shift,)))

    def to(self, device: torch.device) -> Draws:
        """Return them on a device; a GPU's own work may come to them later."""
        crops = self.crops and CropDraws(*(each.to(device, non_blocking=True) for each in self.crops))
        shift = None if self.shift is None else self.shift.to(device, non_blocking=True)
        return Draws(crops, shift, self.divisor)


NO_DRAWS = Draws()
"""Of a batch that is evaluated"""


def to_input(images: Tensor, mean: Tensor, scale: float, shift: Tensor | None = None) -> Tensor:
    """Subtract the mean image, add colours, divide by the scale.

    Args:
        images: uint8 (N, H, W, 3).
        mean: float32 (H, W, 3), in 0..255 units: the central part of the mean image, whatever the crop, as in 2012.
        scale: 1 keeps the 2012 range of about -128..128.
        shift: float32 (N, 3), a colour for each image.
    Returns:
        float32 (N, 3, H, W), channels-last in memory.
    """
    n, height, width, _ = images.shape
    x = images.reshape(n, height, width * 3).float()  # rows of pixels: adding threes is slow on CPUs
    x -= mean.reshape(height, width * 3)
    if shift is not None:
        x += shift.repeat(1, width)[:, None]
    if scale != 1:
        x /= scale
    return x.view(n, height, width, 3).permute(0, 3, 1, 2)


def evaluation_input(images: Tensor, mean: Tensor, resized_size: int, scale: float, views: int = 1) -> Tensor:
    """Return images as evaluation sees them: the centre square, or several views side by side (paper, section 4.1).

    Args:
        images: uint8 (N, S, S, 3), scaled to squares of `resized_size` pixels first.
        mean, scale: as `to_input` takes them; the squares are as large as the mean image.
        views: a key of VIEWS.
    Returns:
        float32 (N * views, 3, H, W).
    """
    images = resize(images, resized_size)
    size = mean.shape[0]
    return to_input(VIEWS[views](images, size).flatten(0, 1), mean, scale)
