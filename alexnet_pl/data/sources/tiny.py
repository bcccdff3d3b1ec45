"""Read Tiny ImageNet, zipped or not.

It consists of wnids.txt, train/<wnid>/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt.

Names are relative to train/ and val/: "n01443537/images/n01443537_0.JPEG", "images/val_0.JPEG".
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from alexnet_pl.data.sources import base
from alexnet_pl.data.sources.base import Source, Split, is_image_name, labels_of, match_classes, object_array, reading
from alexnet_pl.data.sources.folders import list_images, reader
from alexnet_pl.errors import ConfigError

ZIP = "tiny-imagenet-200.zip"


def tiny_imagenet(root: Path) -> Source | None:
    """Return the source in the zip file, in a folder that holds it, or in an unpacked one; None if there is none."""
    if is_unpacked(root):
        return _source(root, list_images(root)[0], reader(root))
    file = root if root.suffix == ".zip" else root / ZIP
    return _zipped(file) if file.is_file() else None


def is_unpacked(root: Path) -> bool:
    """Return whether this folder has the zip file's contents. With val sorted into classes it is an image folder."""
    return (root / "wnids.txt").is_file() and (root / "val/images").is_dir()


def _zipped(file: Path) -> Source:
    with reading(file):
        archive = zipfile.ZipFile(file)  # stays open: one file for all threads, each read has its own position
    members = archive.namelist()
    folder = next((name.removesuffix("wnids.txt") for name in members if os.path.basename(name) == "wnids.txt"), None)
    if folder is None:
        raise ConfigError(f"{file} is not Tiny ImageNet's zip file: it holds no wnids.txt")

    def read_member(name: str) -> bytes:
        member = archive.getinfo(folder + name)
        base.check_size(member.file_size)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a limit
            raise base.Unreadable("an unknown compression")
        if member.flag_bits & 1:
            raise base.Unreadable("encrypted")
        with archive.open(member) as data:
            return data.read(member.file_size)  # never more than it claims

    inside = [name.removeprefix(folder) for name in members if name.startswith(folder)]
    return _source(file, sorted({name for name in inside if is_image_name(os.path.basename(name))}), read_member)


def _source(where: Path, names: list[str], read: Callable[[str], bytes]) -> Source:
    """Return the source, from the names of all images and a function that reads a file by its name."""
    with reading(where / "wnids.txt"):
        classes = sorted(read("wnids.txt").decode().split())
    table = where / "val/val_annotations.txt"
    with reading(table):
        rows = [line.split("\t") for line in read("val/val_annotations.txt").decode().splitlines()]
        truth = {f"images/{image}": wnid for image, wnid, *_ in rows}

    def split(folder: str, words: Callable[[list[str]], list[str]]) -> Split:
        there = [name for name in names if name.startswith(folder)]
        short = [name.removeprefix(folder) for name in there]
        labels = labels_of(words(short), classes, where / folder)
        return Split(short, labels, object_array(there), partial(map, partial(base.fetch, where, read)))

    train = split("train/", lambda short: [name.partition("/")[0] for name in short])
    val = split("val/", lambda short: match_classes(short, truth, table))
    return Source("Tiny ImageNet", classes, {"train": train, "val": val})
