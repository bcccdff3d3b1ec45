"""Read ImageNet as it is stored: each split as the official tar or unpacked, val's classes as folders or as a table.

    training images    train/<class>/*, else ILSVRC2012_img_train.tar
    val images         val/, else ILSVRC2012_img_val.tar, else test/ if it has train's class folders
    val's classes      its folders; without folders, LOC_val_solution.csv (Kaggle), else ILSVRC2012_devkit_t12,
                       as a folder or as .tar.gz

Labels are indices into the sorted class names (WordNet ids), as everywhere except in the devkit.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from pathlib import Path

from alexnet_pl.data.sources import base
from alexnet_pl.data.sources.base import (
    Source,
    Split,
    check_size,
    class_names,
    first_names,
    labels_of,
    match_classes,
    note_left_out,
    read_table,
    reading,
)
from alexnet_pl.data.sources.folders import (
    in_classes,
    in_files,
    list_images,
    names_in_classes,
    notes_of,
    split_folders,
    subfolders,
)
from alexnet_pl.data.sources.tars import in_tar, tar_contents, tar_files
from alexnet_pl.data.sources.tiny import is_unpacked
from alexnet_pl.errors import ConfigError

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SOLUTION = "LOC_val_solution.csv"
MOST_SYNSETS = 10**6
"""Most classes that meta.mat may claim to hold; it has 1,860"""


def ilsvrc(root: Path) -> Source | None:
    """Return the source of training images in folders or in the official tar, with val's; None if there are none."""
    if is_unpacked(root):
        return None  # Tiny ImageNet's train/ and val/
    found = split_folders(root)
    kind, folder, tar = "image folder", found.get("train"), root / TRAIN_TAR
    if folder and (inside := subfolders(folder)):
        names, others = list_images(folder)
        classes, notes = class_names(inside), notes_of(folder, names, others)
        train = in_classes(folder, names, classes)
    elif tar.is_file():
        kind = "ILSVRC2012 tar files"
        inner, places, others = tar_contents(tar)
        if not inner:
            raise ConfigError(f"{tar} holds no tar per class: it is not the official file, download it again")
        places = {name: places[name] for name in names_in_classes(list(places))}
        classes, notes = class_names(inner), note_left_out(others)
        train = in_tar(tar, places, labels_of((name.partition("/")[0] for name in places), classes, tar))
    elif folder and (folder.name == "train" or len(found) > 1):  # else a class may be called so
        raise ConfigError(f"{folder} holds no class folders with images, found {first_names(folder)}")
    elif (root / VAL_TAR).is_file():
        raise ConfigError(f"{root} holds {VAL_TAR} but not the training images: looked for {TRAIN_TAR} and train/")
    else:
        return None
    val, truth, more = _val(root, found, classes)
    if kind == "image folder" and truth and truth.name == SOLUTION:
        kind = "Kaggle's layout"
    return Source(kind, classes, {"train": train} | ({} if val is None else {"val": val}), (*notes, *more))


def _val(root: Path, found: dict[str, Path], classes: list[str]) -> tuple[Split | None, Path | None, list[str]]:
    """Return the val split if there is one, the file with its classes if it has no folders, and notes."""
    folder, test = found.get("val"), found.get("test")
    names, others = list_images(folder) if folder else ([], [])
    tar = root / VAL_TAR
    if not names and tar.is_file():
        _, places, others = tar_contents(tar)
        truth, words = _truth(root, tar, list(places))
        return in_tar(tar, places, labels_of(words, classes, truth)), truth, note_left_out(others)
    if test and folder:
        notes = [f"{test.name}/ is not used"]
    elif test and set(classes) & set(class_names(subfolders(test))):
        folder, notes = test, [f"{test.name}/ is taken for val, as there is none"]
        names, others = list_images(folder)
        names = names_in_classes(names)
    else:
        notes = [f"{test.name}/ is not used: its images are not in folders of these classes"] if test else []
    if not folder:
        return None, None, notes
    notes += note_left_out(others)
    nested = names_in_classes(names)
    if len(nested) == len(names):
        return in_classes(folder, names, classes), None, notes
    if nested:
        astray = next(name for name in names if "/" not in name)
        raise ConfigError(f"{folder} is half sorted into classes: {astray}, for one, is in none of its folders")
    truth, words = _truth(root, folder, names)
    return in_files(folder, names, labels_of(words, classes, truth)), truth, notes


def _truth(root: Path, val: Path, names: list[str]) -> tuple[Path, list[str]]:
    """Return the file with the classes of val images that lie in one folder, and the class name of each."""
    root = root.absolute()
    homes = [root, *(root.parents[:3] if root.name == "CLS-LOC" else [])]  # Kaggle's is beside ILSVRC/Data/CLS-LOC
    for home in homes:
        if (home / SOLUTION).is_file():
            return home / SOLUTION, _solution(home / SOLUTION, names)
    for home in homes:
        if (home / DEVKIT).is_dir():
            return home / DEVKIT, _devkit(home / DEVKIT, names)
        if (home / f"{DEVKIT}.tar.gz").is_file():
            return home / f"{DEVKIT}.tar.gz", _devkit(home / f"{DEVKIT}.tar.gz", names)
    raise ConfigError(
        f"{val} does not give the classes of its images: put {DEVKIT}.tar.gz (official) or {SOLUTION} (Kaggle) "
        f"into {root}, or sort the images into val/<class>/"
    )


def _solution(file: Path, names: list[str]) -> list[str]:
    """Read Kaggle's table: ImageId,PredictionString. The latter begins with the WordNet id."""
    with reading(file, csv.Error):
        _, *rows = csv.reader(io.StringIO(read_table(file).decode("utf-8-sig")))
        truth = {image: prediction.partition(" ")[0] for image, prediction in rows}
    return match_classes([Path(name).stem for name in names], truth, file)


def _devkit(devkit: Path, names: list[str]) -> list[str]:
    """Read the official ground truth: a number per image, in name order. meta.mat has the class of each number."""
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    with reading(devkit, MatReadError, TypeError):
        meta, truth = _devkit_files(devkit)
        claimed = sum(math.prod(shape) for _, shape, _ in whosmat(io.BytesIO(meta)))
        if claimed > MOST_SYNSETS:
            raise ValueError(f"meta.mat claims {claimed:,} synsets")
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        wnids = {row["ILSVRC2012_ID"]: str(row["WNID"]) for row in synsets if row["num_children"] == 0}
        words = [wnids.get(int(number), f"number {int(number)}") for number in truth.split()]
    if len(words) != len(names):
        raise ConfigError(f"{devkit} gives the classes of {len(words):,} val images, but there are {len(names):,}")
    return words


def _devkit_files(devkit: Path) -> tuple[bytes, bytes]:
    """Return meta.mat and the ground truth, from the devkit's folder or its tar.gz."""
    if devkit.is_dir():
        return read_table(devkit / "data/meta.mat"), read_table(devkit / f"data/{TRUTH}")
    with gzip.open(devkit) as packed:
        tar = packed.read(base.LARGEST + 1)  # what is packed tells nothing of what unpacks
    check_size(len(tar))
    places = dict(tar_files(io.BytesIO(tar)))
    if missing := {"meta.mat", TRUTH} - places.keys():
        raise LookupError(f"it holds no {min(missing)}")
    meta, truth = (tar[offset : offset + size] for offset, size in (places["meta.mat"], places[TRUTH]))
    return meta, truth
