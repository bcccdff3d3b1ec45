"""The data module: mean image, order, augmentation, resuming in the middle of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alexnet_pl.config.choices import ColorNoise
from alexnet_pl.config.schema import Config, Data
from alexnet_pl.data import augment, datasets
from alexnet_pl.data.datamodule import ImageDataModule
from alexnet_pl.data.datasets import SHAPES_CLASSES as CLASSES
from alexnet_pl.data.loader import Replica
from alexnet_pl.data.shapes import draw_shapes

FEW = {"train": (1000, 1), "val": (100, 2)}


def module(**changes: object) -> ImageDataModule:
    cfg = Config(name="x", seed=7, train_error_window=100, train_eval_images=50)
    cfg.data = Data(kind="shapes", name="shapes", num_classes=10)
    for key, value in changes.items():
        setattr(cfg.data, key, value)
    out = ImageDataModule(cfg)
    out.setup("fit")
    return out


def first_input(images: ImageDataModule) -> torch.Tensor:
    """The first four images of the set, as those of the first batch."""
    return images.train_input(images.train.images[:4], images.train_draws(0, Replica().slice_of(4)))


@pytest.fixture(scope="module")
def whole() -> ImageDataModule:
    return module()


def test_shapes_are_balanced_and_the_same_every_time():
    images, labels = draw_shapes(CLASSES, 205, seed=4)
    assert images.shape == (205, 32, 32, 3)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    counts = labels.bincount(minlength=10)
    assert len(CLASSES) == len(counts) == 10
    assert counts.max() - counts.min() <= 1
    torch.manual_seed(99)
    again, labels_again = draw_shapes(CLASSES, 205, seed=4)
    assert torch.equal(images, again)
    assert torch.equal(labels, labels_again)
    assert not torch.equal(images, draw_shapes(CLASSES, 205, seed=5)[0])


def test_shapes_need_more_than_colour():
    """A class mean tells something, but far from all: the set is neither noise nor trivial."""
    train, labels = draw_shapes(CLASSES, 3000, seed=1)
    test, truth = draw_shapes(CLASSES, 1000, seed=2)
    means = torch.stack([train[labels == c].float().mean(0) for c in range(10)]).flatten(1)
    error = (torch.cdist(test.float().flatten(1), means).argmin(1) != truth).double().mean()
    assert 0.3 < error < 0.87


def test_mean_image_is_exact(whole: ImageDataModule):
    reference = whole.train.images.numpy().astype(np.float64).mean(0)
    np.testing.assert_allclose(whole.mean.numpy(), reference, rtol=1e-6)


def test_an_epoch_holds_every_image_once_in_an_order_of_its_own(whole: ImageDataModule):
    batches = list(whole.train_dataloader())
    assert [len(y) for _, y, _ in batches] == [128] * 78 + [16], "10,000 images end in a batch of 16, as in 2012"
    labels = torch.cat([y for _, y, _ in batches])
    assert torch.equal(labels.bincount(), whole.train.labels.bincount())
    assert not torch.equal(labels, whole.train.labels)
    inputs = torch.cat([x for x, _, _ in batches])
    total = inputs.double().sum(0)
    assert total.abs().max() < 1.0, "centred: every pixel sums to nothing over the epoch"


def test_a_resumed_epoch_goes_on_with_the_next_batch(whole: ImageDataModule):
    first = whole.train_dataloader()
    batches = []
    for batch in first:
        batches.append(batch)
        if len(batches) == 5:
            state = first.state_dict()
    second = whole.train_dataloader()
    second.load_state_dict(state)
    rest = list(second)
    assert len(rest) == len(batches) - 5
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(batches[5:], rest, strict=True))
    assert len(list(second)) == len(batches), "the epoch after it is whole"
    assert first.state_dict() == {"done": 0}, "a finished epoch resumes at the start of the next"


def test_an_evaluation_left_early_starts_anew(whole: ImageDataModule):
    val, subset = whole.val_dataloader()
    next(iter(val))
    assert sum(len(y) for _, y, _ in val) == 2000
    (batch,) = list(subset)
    assert torch.equal(batch[1], whole.train.labels[:50])


def test_crop_and_flip_reach_the_net_and_evaluation_sees_the_centre(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets, "SHAPES_SPLITS", FEW)
    cropped = module(crop_size=24, random_flip=True)
    assert cropped.input_size == 24
    x, *_ = next(iter(cropped.train_dataloader()))
    assert x.shape == (128, 3, 24, 24)
    again, *_ = next(iter(cropped.train_dataloader()))
    assert torch.equal(x, again), "the same (seed, epoch, step) gives the same crops"
    val, *_ = next(iter(cropped.val_dataloader()[0]))
    centre = cropped.val.images[:1, 4:28, 4:28].float() - cropped.mean
    assert torch.equal(val[:1], centre.permute(0, 3, 1, 2))
    assert torch.equal(cropped.mean, module().mean[4:28, 4:28]), "the mean image's central part, whatever the crop"


def test_images_are_enlarged_to_what_the_net_was_made_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets, "SHAPES_SPLITS", FEW)
    large = module(crop_size=48)
    assert (large.cfg.data.resized_size, large.input_size) == (48, 48)
    images, *_ = next(iter(large.train_dataloader()))
    assert images.shape == (128, 3, 48, 48)
    assert large.mean.shape == (48, 48, 3)
    cropped = module(resize=56, crop_size=48)
    a, b = (next(iter(m.val_dataloader()[0]))[0] for m in (cropped, module(resize=56)))
    n = min(len(a), len(b))  # a batch of larger images has fewer
    torch.testing.assert_close(a[:n], b[:n, :, 4:52, 4:52], msg="the centre of the enlarged image and of its mean")


def test_training_input_equals_a_image_by_image_reference():
    """All that is switched on at once, in float64: place, mirror, central mean image, colours, scale."""
    noisy = module(crop_size=24, random_flip=True, color_noise=ColorNoise.released_2012, pixel_scale=2.0)
    x, labels, _ = next(iter(noisy.train_dataloader()))
    rows = torch.randperm(10_000, generator=augment.stream(7, 0))[:128]
    random = augment.stream(7, 0, 1)
    place = augment.draw_crops(128, 8, True, random)
    alphas = 0.1 * torch.randn(128, 3, generator=random, dtype=torch.float64).numpy()
    pixels = noisy.train.images.numpy().astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(pixels.reshape(-1, 3).T, bias=True))
    mean = pixels.mean(0)[4:28, 4:28]
    for i in (0, 1, 50, 127):
        t, left = place.top[i], place.left[i]
        square = pixels[rows[i], t : t + 24, left : left + 24]
        square = square[:, ::-1] if place.mirrored[i] else square
        signs = np.sign(vectors[np.abs(vectors).argmax(0), range(3)])
        noise = sum(vectors[:, k] * signs[k] * np.sqrt(values[k]) * alphas[i, 2 - k] for k in range(3))
        expected = (square - mean + noise) / 1.1 / 2
        np.testing.assert_allclose(x[i].permute(1, 2, 0), expected, atol=1e-4)
    assert torch.equal(labels, noisy.train.labels[rows])


def test_colour_noise_ends_after_its_epochs():
    noisy = module(color_noise=ColorNoise.paper, color_noise_until=1)
    plain = module()
    assert not torch.equal(first_input(noisy), first_input(plain))
    later = type("Later", (ImageDataModule,), {"epoch": 1})(noisy.cfg)
    later.setup("fit")
    assert torch.equal(first_input(later), first_input(plain))


def test_without_crops_training_sees_the_centre():
    still = module(crop_size=24, random_crop=False)
    assert torch.equal(first_input(still), still.centre_input(still.train.images[:4]))


def test_without_shuffling_all_epochs_have_one_order():
    for shuffle, same in ((False, True), (True, False)):
        first = module(shuffle=shuffle)
        orders = []
        for epoch in (0, 3):
            at = type("At", (ImageDataModule,), {"epoch": epoch})(first.cfg)
            at.setup("fit")
            orders.append(next(iter(at.train_dataloader()))[1])
        assert torch.equal(*orders) is same


def test_ten_views_stand_side_by_side():
    viewed = module(crop_size=24)
    viewed.cfg.test_views = 10
    inputs, labels, _ = next(iter(viewed.test_dataloader()))
    assert len(inputs) == 10 * len(labels)
    image = viewed.val.images[1].float()
    corner = image[:24, 8:] - viewed.mean
    assert torch.equal(inputs[10 + 1], corner.permute(2, 0, 1))
    assert torch.equal(inputs[10 + 4], viewed.centre_input(viewed.val.images[1:2])[0])
    mirrored = image[:24, 8:].flip(1) - viewed.mean
    assert torch.equal(inputs[10 + 6], mirrored.permute(2, 0, 1)), "the mean image is not mirrored"
