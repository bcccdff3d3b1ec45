"""Sources of images: recognise the layouts of ImageNet and similar datasets.

    official tars     ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar, ILSVRC2012_devkit_t12.tar.gz
    image folder      train/<class>/* and val/<class>/*, or <class>/*; Training and Validation, seg_train and seg_test
    Kaggle            ILSVRC/Data/CLS-LOC/{train,val} and LOC_val_solution.csv
    Parquet shards    train-*.parquet and validation-*.parquet, or val-*.parquet or valid-*.parquet
    Tiny ImageNet     tiny-imagenet-200.zip, or unpacked

Nothing is unpacked or copied. A source holds names, labels and places, and reads images by number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alexnet_pl.data.sources.base import Source, Split, first_names
from alexnet_pl.data.sources.folders import WORDS, class_folders, subfolders
from alexnet_pl.data.sources.ilsvrc import ilsvrc
from alexnet_pl.data.sources.shards import parquet_shards
from alexnet_pl.data.sources.tiny import tiny_imagenet
from alexnet_pl.errors import ConfigError

__all__ = ["Source", "Split", "find"]

LAYOUTS = (tiny_imagenet, parquet_shards, ilsvrc)
PLACES = ("", "data", "tiny-imagenet-200", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
LOOKED_FOR = (
    "ILSVRC2012_img_train.tar, train/<class>/, train-*.parquet, tiny-imagenet-200.zip, wnids.txt, or at least two "
    "folders <class>/ of images; here, in data/, in ILSVRC/Data/CLS-LOC/, and in the only folder here"
)


def find(root: Path, hold_out: float = 0.0) -> Source:
    """Return the source in a folder (or in Tiny ImageNet's zip file), or in one of PLACES or the only folder below it.

    Args:
        root: the folder.
        hold_out: share of each class's training images that becomes val, for a source without val. A class of n images
            gives k = share * n rounded, but at most n - 1. They are, in name order, the middle images of k equal
            stretches.
    Raises:
        ConfigError: there is nothing to read, or not all of it, or the share does not fit.
    """
    if not 0 <= hold_out < 1:
        raise ConfigError(f"--hold-out {hold_out:g} must be a share of the training images: at least 0 and below 1")
    source = _recognise(root)
    for name, split in source.splits.items():
        if not len(split):
            raise ConfigError(f"{root}: {source.kind}, but its {name} split holds no images")
    train = source.splits["train"]
    empty = np.flatnonzero(np.bincount(train.labels, minlength=len(source.classes)) == 0)
    if empty.size:
        raise ConfigError(
            f"{root}: {source.kind}, but class {source.classes[empty[0]]} has no training images: "
            "add some, or remove the class"
        )
    if len(source.classes) < 2:
        raise ConfigError(
            f"{root}: {source.kind}, but it has one class only, {source.classes[0]}, which is nothing to learn: give "
            f"two or more, or give {source.classes[0]}/ if they lie in it"
        )
    if not hold_out:
        return source
    if "val" in source.splits:
        raise ConfigError(
            f"{root} has a val split of {len(source.splits['val']):,} images: leave out --hold-out {hold_out:g}, "
            f"it is for sources without one"
        )
    held = _hold_out(train, hold_out)
    if not held.any():
        raise ConfigError(f"--hold-out {hold_out:g} is less than one image of every class: give a larger share")
    splits = {"train": train.part(np.flatnonzero(~held)), "val": train.part(np.flatnonzero(held))}
    return Source(source.kind, source.classes, splits, source.notes)


def _recognise(root: Path) -> Source:
    if not root.exists():
        raise ConfigError(f"{root} does not exist: looked for a folder with {LOOKED_FOR}")
    for mark in ("store.json", "plan.json"):
        if (root / mark).exists():
            raise ConfigError(f"{root} is a packed store already, give the source")
    if root.is_file():
        if root.suffix == ".zip" and (source := tiny_imagenet(root)):
            return source
        raise ConfigError(f"{root} is a file: give the folder that holds it")
    inside = subfolders(root)
    places = [
        root / place
        for place in dict.fromkeys([*PLACES, *(inside if len(inside) == 1 and inside[0].lower() not in WORDS else [])])
    ]
    for place in places:
        if sources := [source for layout in LAYOUTS if (source := layout(place))]:
            if len(sources) > 1:
                kinds = " and ".join(source.kind for source in sources)
                raise ConfigError(f"{place} holds {kinds}: give a folder with one of them")
            return sources[0]
    for place in places:
        if source := class_folders(place):
            return source
    raise ConfigError(
        f"{root} holds no images in a layout that is known: found {first_names(root)}; looked for {LOOKED_FOR}"
    )


def _hold_out(train: Split, share: float) -> np.ndarray:
    """Return which images become val, bool (N,), by the rule of `find`."""
    held = np.zeros(len(train), dtype=bool)
    by_name = np.array(sorted(range(len(train)), key=train.names.__getitem__))
    by_class = by_name[np.argsort(train.labels[by_name], kind="stable")]
    for rows in np.split(by_class, np.cumsum(np.bincount(train.labels))[:-1]):
        n = len(rows)
        k = min(int(share * n + 0.5), n - 1)
        held[rows[(2 * np.arange(k) + 1) * n // (2 * max(k, 1))]] = True
    return held
