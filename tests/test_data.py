"""The small sets: mean image, order, resuming in the middle of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alexnet_pl import config, data
from alexnet_pl.shapes import CLASSES, shapes


def module(**changes: object) -> data.SmallSet:
    cfg = config.Config(name="x", seed=7, window=100, subset=50)
    cfg.data = config.Data(name=config.DataSet.shapes, num_classes=10)
    for key, value in changes.items():
        setattr(cfg.data, key, value)
    out = data.SmallSet(cfg)
    out.setup("fit")
    return out


@pytest.fixture(scope="module")
def whole() -> data.SmallSet:
    return module()


def test_shapes_are_balanced_and_the_same_every_time():
    images, labels = shapes(205, seed=4)
    assert images.shape == (205, 32, 32, 3)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    counts = labels.bincount(minlength=10)
    assert len(CLASSES) == len(counts) == 10
    assert counts.max() - counts.min() <= 1
    torch.manual_seed(99)
    again, labels_again = shapes(205, seed=4)
    assert torch.equal(images, again)
    assert torch.equal(labels, labels_again)
    assert not torch.equal(images, shapes(205, seed=5)[0])


def test_shapes_need_more_than_colour():
    """A class mean tells something, but far from all: the set is neither noise nor trivial."""
    train, labels = shapes(3000, seed=1)
    test, truth = shapes(1000, seed=2)
    means = torch.stack([train[labels == c].float().mean(0) for c in range(10)]).flatten(1)
    error = (torch.cdist(test.float().flatten(1), means).argmin(1) != truth).double().mean()
    assert 0.3 < error < 0.87


def test_mean_image_is_exact(whole: data.SmallSet):
    reference = whole.train[0].numpy().astype(np.float64).mean(0)
    np.testing.assert_allclose(whole.mean.numpy(), reference, rtol=1e-6)


def test_an_epoch_holds_every_picture_once_in_an_order_of_its_own(whole: data.SmallSet):
    batches = list(whole.train_dataloader())
    assert [len(y) for _, y in batches] == [128] * 78 + [16], "10,000 pictures end in a batch of 16, as in 2012"
    labels = torch.cat([y for _, y in batches])
    assert torch.equal(labels.bincount(), whole.train[1].bincount())
    assert not torch.equal(labels, whole.train[1])
    inputs = torch.cat([x for x, _ in batches])
    total = inputs.double().sum(0)
    assert total.abs().max() < 1.0, "centred: every pixel sums to nothing over the epoch"


def test_a_resumed_epoch_goes_on_with_the_next_batch(whole: data.SmallSet):
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


def test_an_evaluation_left_early_starts_anew(whole: data.SmallSet):
    val, subset = whole.val_dataloader()
    next(iter(val))
    assert sum(len(y) for _, y in val) == 2000
    (batch,) = list(subset)
    assert torch.equal(batch[1], whole.train[1][:50])


def test_crop_and_flip_reach_the_net_and_evaluation_sees_the_centre():
    cropped = module(crop=24, flip=True)
    assert cropped.image_size == 24
    x, _ = next(iter(cropped.train_dataloader()))
    assert x.shape == (128, 3, 24, 24)
    again, _ = next(iter(cropped.train_dataloader()))
    assert torch.equal(x, again), "the same (seed, epoch, step) gives the same crops"
    val, _ = next(iter(cropped.val_dataloader()[0]))
    centre = cropped.val[0][:1, 4:28, 4:28].float() - cropped.mean
    assert torch.equal(val[:1], centre.permute(0, 3, 1, 2))
    assert torch.equal(cropped.mean, module().mean[4:28, 4:28]), "the mean image's central part, whatever the crop"


def test_pictures_are_enlarged_to_what_the_net_was_made_for():
    large = module(crop=48)
    assert (large.picture_size, large.image_size) == (48, 48)
    images, _ = next(iter(large.train_dataloader()))
    assert images.shape == (128, 3, 48, 48)
    assert large.mean.shape == (48, 48, 3)
    cropped = module(resize=56, crop=48)
    a, b = (next(iter(m.val_dataloader()[0]))[0] for m in (cropped, module(resize=56)))
    torch.testing.assert_close(a, b[..., 4:52, 4:52], msg="the centre of the enlarged picture and of its mean")
