"""A batch of stored pictures becomes the net's input, on whatever device the batch lies.

Stored pictures are uint8 (N, height, width, 3). Seen as (N, 3, height, width) they are channels-last already, so
nothing is copied to get the fast layout. Every random choice is drawn per picture from a generator that
`stream(seed, epoch, step)` makes: a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional


def seed(*numbers: int) -> int:
    """A seed that depends on all the numbers, such as (seed, epoch, step), and on nothing else."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def stream(*numbers: int) -> torch.Generator:
    """A CPU generator with the seed of these numbers."""
    return torch.Generator().manual_seed(seed(*numbers))


def resize(images: Tensor, size: int) -> Tensor:
    """Scale pictures (N, H, W, C), any dtype, to squares of `size` pixels: bilinear, smoothed where they shrink."""
    if images.shape[1:3] == (size, size):
        return images
    return functional.resize(images.permute(0, 3, 1, 2), [size, size]).permute(0, 2, 3, 1)


def random_crop(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A square of `size` pixels from each picture, its offset uniform over all that fit.

    Args:
        images: (N, H, W, C), any dtype.
    Returns:
        (N, size, size, C), same dtype.
    """
    n, height, width = images.shape[:3]
    top = torch.randint(height - size + 1, (n, 1, 1), generator=generator).to(images.device)
    left = torch.randint(width - size + 1, (n, 1, 1), generator=generator).to(images.device)
    offsets = torch.arange(size, device=images.device)
    picture = torch.arange(n, device=images.device)[:, None, None]
    return images[picture, top + offsets[None, :, None], left + offsets[None, None, :]]


def centre_crop(images: Tensor, size: int) -> Tensor:
    """The centre square of `size` pixels; where the margin is odd, one pixel nearer the top and left."""
    top, left = (images.shape[-3] - size) // 2, (images.shape[-2] - size) // 2
    return images[..., top : top + size, left : left + size, :]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each picture (N, H, W, C) left to right with probability one half."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(2), images)


def to_input(images: Tensor, mean: Tensor, scale: float) -> Tensor:
    """Subtract the mean image and divide by the scale.

    Args:
        images: uint8 (N, H, W, 3).
        mean: float32 (H, W, 3), in 0..255 units: the central part of the mean image, whatever the crop, as in 2012.
        scale: 1 keeps the 2012 range of about -128..128.
    Returns:
        float32 (N, 3, H, W), channels-last in memory.
    """
    centred = images.float() - mean
    return (centred if scale == 1 else centred / scale).permute(0, 3, 1, 2)
