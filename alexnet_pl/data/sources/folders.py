"""Read images from files, with a folder for each class. Folders are listed without opening each file.

Every image in a class folder or below it counts. Hidden files and folders, those that systems create, and images
beside the class folders do not. Links are followed. Names are relative to the split's folder, with "/", in plain
string order.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from alexnet_pl.data.sources import base
from alexnet_pl.data.sources.base import Source, Split, class_names, is_hidden, is_image_name, labels_of, reading
from alexnet_pl.errors import ConfigError

WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
WORDS |= dict.fromkeys(["val", "valid", "validation"], "val")
"""Name of a split's folder, in lower case -> the split"""
NAMED = re.compile(rf"(?:(.*)[ _.-])?({'|'.join(WORDS)})(?:[ _.-](.*))?", re.IGNORECASE)
"""Name of a split's folder: `train`, or with a part that all splits share, as in `seg_train`, `test set`"""


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of train, val and test in a folder; none if their names do not tell them apart.

    Raises:
        ConfigError: two of them are the same split.
    """
    sets: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in subfolders(root):
        if match := NAMED.fullmatch(name):
            before, word, after = (part.lower() for part in match.groups(""))
            sets[before, after][WORDS[word]].append(name)
    plain = sets.pop(("", ""), {})
    shared = [found for found in sets.values() if "train" in found and len(found) > 1]
    chosen = plain or (shared[0] if len(shared) == 1 else {})
    for split, names in chosen.items():
        if len(names) > 1:
            raise ConfigError(f"{root} holds {' and '.join(names)}, which are both {split}: keep one of them")
    return {split: _inner(root / names[0]) for split, names in chosen.items()}


def _inner(folder: Path) -> Path:
    """Return the folder, or the only folder in it if it has the same name, as some archives unpack."""
    return folder / folder.name if subfolders(folder) == [folder.name] else folder


def class_folders(root: Path) -> Source | None:
    """Return the source of `<class>/*` with at least two classes and without val; None if there is none."""
    folders = subfolders(root)
    classes = class_names(folders)
    if len(classes) < 2:
        return None  # one class is nothing to learn, and a folder above a data set looks like that
    for name in folders:
        if WORDS.get(name) and (name in ("val", "validation", "test") or subfolders(root / name)):
            raise ConfigError(f"{root} holds {name}/ but no train/: the training images are missing")
        if "train" in split_folders(root / name):
            raise ConfigError(f"{root} is a folder of data sets: give one of them, as {root / name}")
    names, others = list_images(root)
    inside: dict[str, set[str]] = {name: set() for name in folders}
    for name in names_in_classes(names):
        above, _, below = name.partition("/")
        inside[above].add(below.partition("/")[0] if "/" in below else "")
    first = inside[folders[0]]
    if len(first) > 1 and "" not in first and all(each == first for each in inside.values()):
        raise ConfigError(
            f"{root} holds {', '.join(folders[:3])}, each with the same folders ({', '.join(sorted(first)[:3])}): "
            f"name splits train and val, or put folders that are classes into {root / 'train'}"
        )
    train = in_classes(root, names, classes)
    if len(np.unique(train.labels)) < 2:
        return None
    return Source("image folder", classes, {"train": train}, (*notes_of(root, names, others),))


def subfolders(folder: Path) -> list[str]:
    """Return the names of the visible folders in a folder, sorted; none if there is no such folder."""
    if not folder.is_dir():
        return []
    with reading(folder), os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not is_hidden(entry.name) and _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one. The listing knows, except for links."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself is none
        return False


def list_images(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of all images in and below a folder, and of all other visible files, both sorted.

    Raises:
        ConfigError: a folder cannot be listed, or contains itself.
    """
    images: list[str] = []
    others: list[str] = []
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        above, outer = waiting.pop()
        with reading(folder / above):
            status = os.stat(folder / above)
            with os.scandir(folder / above) as entries:
                found = [entry for entry in entries if not is_hidden(entry.name)]
        this = (status.st_dev, status.st_ino)
        if this in outer:
            raise ConfigError(f"{folder / above} is a link to a folder that holds it: remove the link")
        for entry in found:
            if _is_folder(entry):
                waiting.append((f"{above}{entry.name}/", outer | {this}))
            else:
                (images if is_image_name(entry.name) else others).append(above + entry.name)
    return sorted(images), sorted(others)


def names_in_classes(names: list[str]) -> list[str]:
    """Return the names that lie in a class folder."""
    return [name for name in names if "/" in name]


def notes_of(folder: Path, images: list[str], others: list[str]) -> list[str]:
    """Return sentences about the files that are left out, in the class folders of a split and beside them."""
    notes = base.note_left_out([f"{folder.name}/{name}" for name in names_in_classes(others)])
    if beside := len(images) - len(names_in_classes(images)):
        notes.append(f"left out beside the class folders of {folder.name}/: {beside:,} image{'s' * (beside > 1)}")
    return notes


def in_classes(folder: Path, names: list[str], classes: list[str]) -> Split:
    """Return the images in a folder's subfolders, which are classes."""
    names = names_in_classes(names)
    return in_files(folder, names, labels_of((name.partition("/")[0] for name in names), classes, folder))


def in_files(folder: Path, names: list[str], labels: np.ndarray) -> Split:
    """Return the images of a folder, one per file."""
    return Split(names, labels, base.object_array(names), partial(map, partial(base.fetch, folder, reader(folder))))


def reader(folder: Path) -> partial[bytes]:
    """Return a function that reads a file of a folder by its name, as `base.read_file` does."""
    return partial(_read, folder)


def _read(folder: Path, name: str) -> bytes:
    return base.read_file(os.path.join(folder, name))
