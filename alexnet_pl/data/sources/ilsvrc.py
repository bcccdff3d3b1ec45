"""Read ImageNet as it is stored: each split as the official tar or unpacked, val's classes as folders or as a table.

    training images    train/<class>/*, else ILSVRC2012_img_train.tar
    val images         val/ or validation/, else ILSVRC2012_img_val.tar, else test/ if it has train's class folders
    val's classes        its folders; where it is flat, LOC_val_solution.csv (Kaggle), else ILSVRC2012_devkit_t12,
                         as a folder or as .tar.gz

Labels are indices into the sorted class names (WordNet ids), as everywhere but in the devkit.
"""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

from alexnet_pl.data.sources.base import Source, Split, first_names, labels_of, match_classes, reading
from alexnet_pl.data.sources.folders import image_names, in_classes, in_files, names_in_classes, read, subfolders
from alexnet_pl.data.sources.tars import in_tar, tar_contents
from alexnet_pl.data.sources.tiny import is_unpacked
from alexnet_pl.errors import ConfigError

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SOLUTION = "LOC_val_solution.csv"


def ilsvrc(root: Path) -> Source | None:
    """Return the source of training images in folders or in the official tar, with val's; None where there are none."""
    if is_unpacked(root):
        return None  # Tiny ImageNet's train/ and val/
    kind, folder, tar = "image folder", root / "train", root / TRAIN_TAR
    if classes := subfolders(folder):
        train = in_classes(folder, names_in_classes(image_names(folder)), classes)
    elif tar.is_file():
        kind = "ILSVRC2012 tar files"
        classes, places = tar_contents(tar)
        if not classes:
            raise ConfigError(f"{tar} holds no tar per class: it is not the official file, download it again")
        places = {name: places[name] for name in names_in_classes(list(places))}
        train = in_tar(tar, places, labels_of((name.partition("/")[0] for name in places), classes, tar))
    elif folder.is_dir():
        raise ConfigError(f"{folder} holds no class folders with images, found {first_names(folder)}")
    elif (root / VAL_TAR).is_file():
        raise ConfigError(f"{root} holds {VAL_TAR} but not the training images: looked for {TRAIN_TAR} and train/")
    else:
        return None
    val, truth = _val(root, classes)
    if kind == "image folder" and truth and truth.name == SOLUTION:
        kind = "Kaggle's layout"
    return Source(kind, classes, {"train": train} | ({} if val is None else {"val": val}))


def _val(root: Path, classes: list[str]) -> tuple[Split | None, Path | None]:
    """Return the val split if there is one, and the file with its classes where it is flat."""
    folder = next((root / name for name in ("val", "validation") if (root / name).is_dir()), None)
    names = image_names(folder) if folder else []
    tar = root / VAL_TAR
    if not names and tar.is_file():
        _, places = tar_contents(tar)
        truth, words = _truth(root, tar, list(places))
        return in_tar(tar, places, labels_of(words, classes, truth)), truth
    if not folder and set(classes) & set(subfolders(root / "test")):
        folder = root / "test"
        names = names_in_classes(image_names(folder))
    if not folder:
        return None, None
    nested = names_in_classes(names)
    if len(nested) == len(names):
        return in_classes(folder, names, classes), None
    if nested:
        astray = next(name for name in names if "/" not in name)
        raise ConfigError(f"{folder} is half sorted into classes: {astray}, for one, is in none of its folders")
    truth, words = _truth(root, folder, names)
    return in_files(folder, names, labels_of(words, classes, truth)), truth


def _truth(root: Path, val: Path, names: list[str]) -> tuple[Path, list[str]]:
    """Return the file with the classes of flat val images, and the class name of each."""
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
    """Read Kaggle's table: ImageId,PredictionString, which opens with the WordNet id."""
    with reading(file):
        _, *rows = csv.reader(io.StringIO(file.read_text()))
        truth = {image: prediction.partition(" ")[0] for image, prediction in rows}
    return match_classes([Path(name).stem for name in names], truth, file)


def _devkit(devkit: Path, names: list[str]) -> list[str]:
    """Read the official ground truth: a number per image, in name order; meta.mat has the class of each number."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if devkit.is_dir():
        meta, truth = read(devkit, "data/meta.mat"), read(devkit, f"data/{TRUTH}")
    else:
        with reading(devkit), tarfile.open(devkit) as tar:
            parts = (tar.extractfile(f"{DEVKIT}/data/{name}") for name in ("meta.mat", TRUTH))
            meta, truth = (part.read() for part in parts if part)
    with reading(devkit, MatReadError):
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        wnids = {row["ILSVRC2012_ID"]: str(row["WNID"]) for row in synsets if row["num_children"] == 0}
        words = [wnids.get(int(number), f"number {int(number)}") for number in truth.split()]
    if len(words) != len(names):
        raise ConfigError(f"{devkit} gives the classes of {len(words):,} val images, but there are {len(names):,}")
    return words
