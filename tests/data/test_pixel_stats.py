"""Mean image and colour statistics against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alexnet_pl.data import augment
from alexnet_pl.data.pixel_stats import PixelStats


def coloured(n: int, size: int) -> torch.Tensor:
    """Images whose colours hang together, as in photographs."""
    random = augment.stream(n)
    grey = torch.randint(256, (n, size, size, 1), generator=random)
    own = torch.randint(100, (n, size, size, 3), generator=random)
    return ((2 * grey + own * torch.tensor([1, 2, 3])) // 4).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(("n", "size"), [(150, 16), (150, 32), (5, 200)])
def test_equal_numpy_in_float64(n: int, size: int):
    """Parts that are smaller and larger than a block, and images that are larger than one."""
    images = coloured(n, size)
    sums = PixelStats(size)
    for part in images.split(70):
        sums.add(part)
    pixels = images.numpy().astype(np.float64)
    np.testing.assert_allclose(sums.mean_image(), pixels.mean(0), rtol=1e-14)
    covariance = np.cov(pixels.reshape(-1, 3).T, bias=True)
    np.testing.assert_allclose(sums.covariance(), covariance, rtol=1e-10)
    colors = sums.colors()
    rebuilt = colors.vectors.T.numpy() @ np.diag(colors.std.numpy() ** 2) @ colors.vectors.numpy()
    np.testing.assert_allclose(rebuilt, covariance, rtol=1e-10)
    np.testing.assert_allclose(colors.vectors @ colors.vectors.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(colors.std.numpy() ** 2, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-10)
    assert all(row[row.abs().argmax()] > 0 for row in colors.vectors)


def test_parts_in_any_order_give_the_same_bits():
    images = coloured(200, 32)
    whole, parts = PixelStats(32), PixelStats(32)
    whole.add(images)
    for part in reversed(images.split(33)):
        other = PixelStats(32)
        other.add(part)
        parts += other
    assert torch.equal(whole.mean_image(), parts.mean_image())
    assert torch.equal(whole.colors().vectors, parts.colors().vectors)
    assert torch.equal(whole.colors().std, parts.colors().std)


def test_as_many_white_images_as_imagenet_has_do_not_overflow():
    sums = PixelStats(256)
    white = PixelStats(256)
    white.add(torch.full((64, 256, 256, 3), 255, dtype=torch.uint8))
    for _ in range(15):  # doubled until 2 million images
        sums += white
        white += white
    assert sums.count == 64 * (2**15 - 1)
    assert sums.mean_image().eq(255).all()
    np.testing.assert_allclose(sums.covariance(), 0, atol=1e-6)
