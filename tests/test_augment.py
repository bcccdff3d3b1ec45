"""Batched augmentation against one picture at a time."""

from __future__ import annotations

import numpy as np
import torch

from alexnet_pl import augment


def numbered(n: int, size: int = 32) -> torch.Tensor:
    """Pictures in which every pixel tells its picture, row and column."""
    picture, row, column = torch.meshgrid(torch.arange(n), torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([picture, row, column], -1).to(torch.int32)


def test_every_crop_is_a_square_of_its_own_picture_and_offsets_are_uniform():
    n, size = 8100, 24
    crops = augment.random_crop(numbered(n), size, augment.stream(1, 2, 3))
    assert crops.shape == (n, size, size, 3)
    corner = crops[:, :1, :1]
    inside = numbered(1, size)[0]
    assert torch.equal(crops[..., 0], torch.arange(n)[:, None, None].expand(n, size, size))
    assert torch.equal(crops[..., 1:] - corner[..., 1:], inside[..., 1:].expand(n, size, size, 2))
    counts = np.zeros((9, 9))
    np.add.at(counts, (corner[:, 0, 0, 1].numpy(), corner[:, 0, 0, 2].numpy()), 1)
    assert counts.sum() == n  # offsets 0..8 inclusive in both directions
    chi_squared = ((counts - 100) ** 2 / 100).sum()
    assert 40 < chi_squared < 135  # 80 degrees of freedom, p about 1e-4 on both sides


def test_centre_crop():
    assert augment.centre_crop(numbered(2), 24)[1, 0, 0].tolist() == [1, 4, 4]
    assert augment.centre_crop(numbered(1)[0], 32).shape == (32, 32, 3)


def test_flips_half_of_the_pictures_and_only_left_to_right():
    n = 4000
    images = numbered(n, 8)
    out = augment.random_flip(images, augment.stream(5))
    mirrored = (out == images.flip(2)).flatten(1).all(1)
    same = (out == images).flatten(1).all(1)
    assert torch.equal(mirrored, ~same)
    assert abs(mirrored.sum().item() - n / 2) < 4 * np.sqrt(n / 4)


def test_input_is_centred_then_scaled():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    mean = rng.uniform(0, 255, (32, 32, 3))
    for scale in (1.0, 64.0):
        ours = augment.to_input(torch.tensor(images), torch.tensor(mean).float(), scale)
        reference = ((images.astype(np.float64) - mean) / scale).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(ours.numpy(), reference, rtol=1e-5, atol=2e-5)
        assert ours.dtype == torch.float32
        assert ours.is_contiguous(memory_format=torch.channels_last)


def test_streams_depend_on_every_number_and_on_nothing_else():
    def draw(*numbers: int) -> float:
        return torch.rand(1, generator=augment.stream(*numbers)).item()

    torch.manual_seed(0)
    first = draw(1, 2, 3)
    torch.manual_seed(1)
    assert draw(1, 2, 3) == first
    assert len({first, draw(1, 2, 4), draw(1, 3, 3), draw(2, 2, 3), draw(3, 2, 1), draw(1, 2)}) == 6


def test_resize_is_bilinear_about_pixel_centres():
    """Enlarging uint8 pictures, against the formula in float64; also a mean image in float, and no size change."""
    images = torch.randint(256, (3, 32, 32, 3), generator=augment.stream(5), dtype=torch.uint8)
    size = 56
    centres = ((np.arange(size) + 0.5) * 32 / size - 0.5).clip(0, 31)
    low = np.floor(centres).astype(int).clip(0, 30)
    weight = np.zeros((size, 32))
    weight[np.arange(size), low] = 1 - (centres - low)
    weight[np.arange(size), low + 1] = centres - low
    expected = np.einsum("yh,xw,nhwc->nyxc", weight, weight, images.numpy().astype(np.float64))
    enlarged = augment.resize(images, size)
    assert enlarged.dtype == torch.uint8
    assert np.abs(enlarged.numpy() - expected).max() < 1.01, "rounded once or twice"
    np.testing.assert_allclose(augment.resize(images.float(), size).numpy(), expected, atol=1e-3)
    assert augment.resize(images, 32) is images
