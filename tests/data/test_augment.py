"""Batched augmentation against one image at a time, in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from alexnet_pl.config.choices import ColorNoise
from alexnet_pl.data import augment
from alexnet_pl.data.pixel_stats import ColorPCA

IMAGENET = ColorPCA(
    torch.tensor([[0.564, 0.576, 0.592], [-0.713, -0.024, 0.701], [0.418, -0.817, 0.397]], dtype=torch.float64),
    torch.tensor([121.78, 37.09, 19.72], dtype=torch.float64),
)
"""cuda-convnet2's, which its author computed on all of ImageNet"""


def numbered(n: int, size: int = 32) -> Tensor:
    """Images in which every pixel tells its image, row and column."""
    image, row, column = torch.meshgrid(torch.arange(n), torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([image, row, column], -1).to(torch.int32)


def random_images(n: int, size: int) -> Tensor:
    return torch.randint(256, (n, size, size, 3), generator=augment.stream(n, size), dtype=torch.uint8)


def reference(image: np.ndarray, size: int, top: int, left: int, mirrored: bool) -> np.ndarray:
    """One image's square, pixel by pixel."""
    out = np.empty((size, size, 3), image.dtype)
    for y in range(size):
        for x in range(size):
            out[y, x] = image[top + y, left + (size - 1 - x if mirrored else x)]
    return out


@pytest.mark.parametrize("way", [augment.crop, augment._crop_by_copy, augment._crop_by_index])
def test_each_square_is_cut_out_of_its_own_image_and_mirrored_where_it_is_said(way):
    """By copying, as on CPUs, and by gathering, as on GPUs."""
    images, size = numbered(40, 12), 9
    place = augment.draw_crops(40, 3, flip=True, generator=augment.stream(4))
    squares = way(images, size, place)
    assert squares.shape == (40, size, size, 3)
    for image, square, top, left, mirrored in zip(images, squares, *(each.tolist() for each in place), strict=True):
        np.testing.assert_array_equal(square.numpy(), reference(image.numpy(), size, top, left, mirrored))
    assert {tuple(pair) for pair in torch.stack([place.top, place.left], 1).tolist()} > {(0, 0), (3, 3)}


def test_offsets_are_uniform_over_0_to_32_inclusive_and_half_is_mirrored():
    """33 x 33 places, as in the code of 2012 (the paper counts 32 x 32)."""
    n = 33 * 33 * 100
    place = augment.draw_crops(n, 256 - 224, flip=True, generator=augment.stream(1, 2, 3))
    counts = np.zeros((33, 33))
    np.add.at(counts, (place.top.numpy(), place.left.numpy()), 1)
    assert counts.sum() == n
    freedom, chi_squared = 33 * 33 - 1, ((counts - 100) ** 2 / 100).sum()
    assert abs(chi_squared - freedom) < 4 * np.sqrt(2 * freedom)
    assert abs(place.mirrored.sum().item() - n / 2) < 4 * np.sqrt(n / 4)
    assert not augment.draw_crops(n, 32, flip=False, generator=augment.stream(1)).mirrored.any()


def test_a_chunk_shares_its_place_as_in_2012():
    place = augment.draw_crops(150, 32, flip=True, generator=augment.stream(7), chunk=32)
    for each in place:
        assert len(each) == 150
        assert all(len(set(chunk.tolist())) == 1 for chunk in each.split(32))
    assert len({(t, left) for t, left in zip(place.top.tolist(), place.left.tolist(), strict=True)}) == 5


def test_centre_crop():
    assert augment.centre_crop(numbered(2), 24)[1, 0, 0].tolist() == [1, 4, 4]
    assert augment.centre_crop(numbered(1)[0], 32).shape == (32, 32, 3)


def test_ten_views_are_corners_centre_and_their_mirrors():
    images = numbered(3, 256)
    views = augment.ten_views(images, 224)
    assert views.shape == (3, 10, 224, 224, 3)
    places = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    for view, (top, left) in enumerate(places):
        np.testing.assert_array_equal(views[1, view], images[1, top : top + 224, left : left + 224])
        np.testing.assert_array_equal(views[1, 5 + view], views[1, view].flip(1))


def test_nine_views_are_a_grid():
    views = augment.nine_views(numbered(2), 24)
    assert views.shape == (2, 9, 24, 24, 3)
    for view, (top, left) in enumerate(itertools.product((0, 4, 8), repeat=2)):
        np.testing.assert_array_equal(views[1, view], numbered(2)[1, top : top + 24, left : left + 24])
    mean = torch.zeros(24, 24, 3)
    seen = augment.evaluation_input(numbered(2).to(torch.uint8), mean, 32, 1.0, 9)
    assert torch.equal(seen[9:].permute(0, 2, 3, 1), views[1].float())


def test_input_is_centred_then_coloured_then_scaled():
    rng = np.random.default_rng(0)
    images, mean = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), rng.uniform(0, 255, (32, 32, 3))
    shifts = rng.normal(0, 10, (6, 3))
    for scale, shift in ((1.0, None), (64.0, None), (1.1, shifts), (1.0, shifts)):
        given = None if shift is None else torch.tensor(shift).float()
        ours = augment.to_input(torch.tensor(images), torch.tensor(mean).float(), scale, given)
        for i in range(6):
            expected = (images[i].astype(np.float64) - mean + (0 if shift is None else shift[i])) / scale
            np.testing.assert_allclose(ours[i].numpy(), expected.transpose(2, 0, 1), rtol=1e-5, atol=3e-5)
        assert ours.dtype == torch.float32
        assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("kind", "levels", "divisor"),
    [(ColorNoise.released_2012, [12.18, 3.71, 1.97], 1.1), (ColorNoise.paper, [5.82, 0.539, 0.1525], 1.0)],
)
def test_colour_noise_has_the_strength_of_its_kind(kind: ColorNoise, levels: list[float], divisor: float):
    """In grey levels along each component of ImageNet's colours, as the released code and as the paper's formula."""
    n = 200_000
    shift, by = augment.color_noise(kind, n, IMAGENET, augment.stream(3))
    assert by == divisor
    assert shift.shape == (n, 3)
    along = shift.double() @ torch.linalg.inv(IMAGENET.vectors)
    np.testing.assert_allclose(along.std(0), levels, rtol=0.01)
    np.testing.assert_allclose(along.mean(0) / along.std(0), 0, atol=4 / np.sqrt(n))
    correlations = np.corrcoef(along.T.numpy()) - np.eye(3)
    assert np.abs(correlations).max() < 4 / np.sqrt(n), "each component has a chance of its own"


def test_colour_noise_equals_the_sum_over_components():
    """For each image by itself, in float64: sum over k of e_k alpha_k sqrt(eigenvalue_k)."""
    shift, _ = augment.color_noise(ColorNoise.released_2012, 50, IMAGENET, augment.stream(8))
    alphas = 0.1 * torch.randn(50, 3, generator=augment.stream(8), dtype=torch.float64)
    for i in range(50):
        expected = sum(IMAGENET.vectors[k] * IMAGENET.std[k] * alphas[i, k] for k in range(3))
        np.testing.assert_allclose(shift[i], expected, rtol=1e-5, atol=1e-5)


def test_streams_depend_on_every_number_and_on_nothing_else():
    def draw(*numbers: int) -> float:
        return torch.rand(1, generator=augment.stream(*numbers)).item()

    torch.manual_seed(0)
    first = draw(1, 2, 3)
    torch.manual_seed(1)
    assert draw(1, 2, 3) == first
    assert len({first, draw(1, 2, 4), draw(1, 3, 3), draw(2, 2, 3), draw(3, 2, 1), draw(1, 2)}) == 6


def test_resize_is_bilinear_about_pixel_centres():
    """Enlarging uint8 images, against the formula in float64; also a mean image in float, and no size change."""
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
