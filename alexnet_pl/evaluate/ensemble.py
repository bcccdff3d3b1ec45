"""Run nets over the same images: check that they fit together, and return the predictions of each and of all."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from alexnet_pl.config.choices import Squares
from alexnet_pl.data import store
from alexnet_pl.data.datamodule import EVAL_PIXELS, ImageDataModule
from alexnet_pl.data.datasets import SMALL_DATASETS
from alexnet_pl.data.loader import BatchLoader, InMemoryDataset, PackedDataset
from alexnet_pl.errors import ConfigError, UserError
from alexnet_pl.evaluate.predictions import Predictions, average, concatenate, make_predictions
from alexnet_pl.evaluate.settings import Member, Settings
from alexnet_pl.files import expand
from alexnet_pl.runs import trained


def load_models(members: list[Member], settings: Settings, device: torch.device) -> list[trained.TrainedModel]:
    """Return the nets of the members.

    Raises:
        ConfigError: a checkpoint cannot be read, or the nets cannot take the same images in the same way.
    """
    nets = [trained.load(each.word, settings.weights, settings.mean).to(device) for each in members]
    first = nets[0]
    for member, net in zip(members, nets, strict=True):
        d = net.cfg.data
        if settings.views > 1 and d.input_size == d.resized_size:
            raise ConfigError(
                f"--views {settings.views} needs images larger than their crops, but those of {member.word} both have "
                f"{d.input_size} pixels: use --views 1"
            )
        if net.classes != first.classes:
            raise ConfigError(
                f"{member.word} has other classes than {members[0].word}: an ensemble needs nets of the same classes"
            )
        own, others = ((one.cfg.data.kind, one.cfg.data.store) for one in (net, first))
        if own[0] != others[0] or (own != others and not settings.data):
            raise ConfigError(
                f"{member.word} was trained on other data than {members[0].word}: an ensemble needs one set of "
                "images (of packed stores, --data says which)"
            )
    return nets


def _are_imagenets(names: list[str], published: list[str]) -> bool:
    """Return whether a dataset's classes are all of ILSVRC's, as sorted WordNet ids, the order of published nets."""
    return len(names) == len(published) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in names)


class EvalImages:
    """The images of a split, their names, and the classes of their labels.

    Raises:
        ConfigError: there are none, or their classes are not the net's.
    """

    def __init__(self, net: trained.TrainedModel, settings: Settings) -> None:
        d = net.cfg.data
        generated = not d.packed and SMALL_DATASETS[d.kind].generated
        if generated and settings.data:
            raise ConfigError(f"{net.name} was trained on shapes, which are drawn, not read: leave out --data")
        self.root = None if generated else settings.data or expand(d.root or ".")
        if self.root and not self.root.is_dir():
            raise ConfigError(f"the images of data.name={d.name} should be in {self.root}, which is no folder: "
                              "say with --data where they are")  # fmt: skip
        if self.root and d.packed and not store.require(self.root).images.get(settings.split):
            raise ConfigError(f"{self.root} holds no images in its {settings.split} split: use --split train, or "
                              "prepare it with --hold-out 0.1")  # fmt: skip
        cfg = replace(net.cfg, data=replace(d, root=str(self.root) if self.root else None, download=False))
        module = ImageDataModule(cfg, net.device)
        if module.classes != net.classes and not (net.run is None and _are_imagenets(module.classes, net.classes)):
            raise ConfigError(f"the images in {self.root} are of other classes than those {net.name} was trained on")
        self.set: InMemoryDataset | PackedDataset = module.load(settings.split)
        self.classes = net.classes
        self.name = self.set.store.plan.name if settings.data and isinstance(self.set, PackedDataset) else d.name

    def __len__(self) -> int:
        return len(self.set)

    @property
    def store(self) -> str | None:
        """Identity of the packed store; None without a store."""
        return self.set.store.plan.identity if isinstance(self.set, PackedDataset) else None

    def squares_note(self, nets: list[trained.TrainedModel]) -> str:
        """Return a sentence if the images became squares in another way than those of a net; else nothing."""
        here = self.set.store.plan.squares if isinstance(self.set, PackedDataset) else Squares.centre.name
        others = {net.squares.name: net.name for net in nets if net.squares.name != here}
        return "; ".join(
            f"{self.root} was prepared with --resize {here}, and {name} saw squares of --resize {squares}"
            for squares, name in others.items()
        )

    def names(self, split: str) -> list[str]:
        """Return the names of a packed store's files, or numbers for other images."""
        if isinstance(self.set, PackedDataset):
            return self.set.store.index(split)["name"].to_pylist()
        return [str(number) for number in range(len(self))]


def run_models(
    nets: list[trained.TrainedModel],
    dataset: EvalImages,
    settings: Settings,
    advance: Callable[[int], None],
    arrays: Sequence[np.ndarray],
) -> list[Predictions]:
    """Run every net over every image once. Each net makes its own input from the image.

    Args:
        advance: called with the number of images of each finished batch.
        arrays: arrays for each net's logits, (images, views, classes); empty: the logits are not stored.
    Returns:
        The predictions of each net, and last those of the ensemble.
    Raises:
        UserError: a net's outputs are not finite.
    """
    side = max(net.cfg.data.input_size for net in nets)
    inputs = min(1000, 1 + EVAL_PIXELS // side**2)
    size = -(-inputs // settings.views)
    rows = torch.arange(len(dataset))
    batches = BatchLoader(dataset.set, lambda: rows, len(rows), size, lambda images, *_: images, nets[0].device)
    batches_of: list[list[Predictions]] = [[] for _ in range(len(nets) + 1)]
    done = 0
    for images, labels, _ in batches:
        count = len(labels)
        logits = [net.logits(images, settings.views).cpu() for net in nets]
        for net, own in zip(nets, logits, strict=True):
            if not own.isfinite().all():
                raise UserError(f"{net.name} gives outputs that are not finite: its training has diverged")
        for array, own in zip(arrays, logits, strict=False):
            array[done : done + count] = own.numpy()
        for predictions, several in zip(batches_of, [*logits, torch.cat(logits, 1)], strict=True):
            predictions.append(make_predictions(average(several, settings.average), labels))
        done += count
        advance(count)
    return [concatenate(predictions) for predictions in batches_of]
