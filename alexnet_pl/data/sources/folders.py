"""Read images from files: folders are listed without a look at each file, and a class is a folder.

Every image in a class folder or below it counts; hidden files and folders, and images beside the class folders, do
not. Links are followed. Names are relative to the split's folder, with "/", in plain string order.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np

from alexnet_pl.data.sources.base import Source, Split, is_image_name, labels_of, object_array, reading
from alexnet_pl.errors import ConfigError

SPLITS = {"train", "val", "validation", "test"}


def class_folders(root: Path) -> Source | None:
    """Return the source of `<class>/*` with at least two classes and without val; None where there is none."""
    classes = subfolders(root)
    if len(classes) < 2:
        return None  # one class is nothing to learn, and a folder above a data set looks like that
    for name in classes:
        if name in SPLITS:
            raise ConfigError(f"{root} holds {name}/ but no train/: the training images are missing")
        if (root / name / "train").is_dir():
            raise ConfigError(f"{root} is a folder of data sets: give one of them, as {root / name}")
    names = names_in_classes(image_names(root))
    train = in_classes(root, names, classes)
    return Source("image folder", classes, {"train": train}) if len(np.unique(train.labels)) > 1 else None


def subfolders(folder: Path) -> list[str]:
    """Return the names of the visible folders in a folder, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    with reading(folder), os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def image_names(folder: Path) -> list[str]:
    """Return the names of all images in and below a folder, sorted."""
    names, waiting = [], [""]
    while waiting:
        above = waiting.pop()
        with reading(folder / above), os.scandir(folder / above) as entries:
            for entry in entries:
                if entry.is_dir():  # known from the listing, except for links
                    if not entry.name.startswith("."):
                        waiting.append(f"{above}{entry.name}/")
                elif is_image_name(entry.name):
                    names.append(above + entry.name)
    return sorted(names)


def names_in_classes(names: list[str]) -> list[str]:
    """Return the names that lie in a class folder."""
    return [name for name in names if "/" in name]


def in_classes(folder: Path, names: list[str], classes: list[str]) -> Split:
    """Return the images of a folder whose subfolders are classes."""
    return in_files(folder, names, labels_of((name.partition("/")[0] for name in names), classes, folder))


def in_files(folder: Path, names: list[str], labels: np.ndarray) -> Split:
    """Return the images of a folder, a file each."""
    return Split(names, labels, object_array(names), partial(map, partial(read, folder)))


def read(folder: Path, name: str) -> bytes:
    """Return the bytes of a file; raise ConfigError where they cannot be read."""
    path = os.path.join(folder, name)  # a Path takes as long as to read a small file
    with reading(path), open(path, "rb", buffering=0) as file:
        return file.read()
