"""Find the images that a command names, and read their squares: from files, standard input, or a packed store.

A gallery has `names`, `labels` and `read(numbers)`, which yields the images that can be read, each with its number.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from alexnet_pl import cpu
from alexnet_pl.config.choices import Squares
from alexnet_pl.data import decode, store
from alexnet_pl.data.loader import PackedDataset
from alexnet_pl.data.sources import base, folders
from alexnet_pl.errors import ConfigError
from alexnet_pl.files import expand

STDIN = "-"
Warn = Callable[[str], None]
"""A function that is called with a sentence about each image that is left out"""


def find_images(words: Sequence[str], warn: Warn) -> list[str]:
    """Return the image files that the words of a command name, in their order, each once.

    A word is a file of any name, or "-" for the bytes of one image on standard input. It may also be a folder, for the
    images in and below it, or a pattern such as "photographs/*/0*.png" (`**` goes into folders).
    """
    found: list[str] = []
    for word in words:
        path = expand(word)  # unlike Path's, os.path's functions do not fail at an odd word
        if word == STDIN or os.path.isfile(path):
            found.append(word if word == STDIN else str(path))
        elif os.path.isdir(path):
            found += _inside(path, warn)
        elif glob.has_magic(word):
            matches = sorted(glob.glob(str(path), recursive=True))
            if not matches:
                warn(f"no file matches {word}")
            for match in matches:
                found += _inside(Path(match), warn) if Path(match).is_dir() else [match]
        else:
            warn(f"there is no image {word}")
    return list(dict.fromkeys(found))


def _inside(folder: Path, warn: Warn) -> list[str]:
    try:
        names, _ = folders.list_images(folder)
    except ConfigError as error:
        warn(str(error))
        return []
    if not names:
        warn(f"{folder} holds no images (files named {', '.join(base.SUFFIXES)})")
    return [str(folder / name) for name in names]


class ImageFiles:
    """Image files; an image's label is the name of its folder.

    Args:
        names: as `find_images` returns them.
        size: side of the squares in pixels.
        warn: called for each file that gives no image.
        squares: how images become squares.
    """

    def __init__(self, names: Sequence[str], size: int, warn: Warn, squares: Squares = Squares.centre) -> None:
        self.names, self.size, self.warn, self.squares = names, size, warn, squares
        self.labels = [base.class_name(Path(name).absolute().parent.name) for name in names]

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield number and uint8 (size, size, 3) of each of these images that can be read."""
        with ThreadPoolExecutor(min(16, cpu.count())) as pool:
            for number, square in zip(numbers, pool.map(self._square, numbers), strict=True):
                if isinstance(square, str):
                    self.warn(square)
                else:
                    yield number, square

    def _square(self, number: int) -> Tensor | str:
        name = self.names[number]
        try:
            data = sys.stdin.buffer.read(base.LARGEST + 1) if name == STDIN else base.read_file(name)
            base.check_size(len(data))
            return decode.centre_square(decode.decode_image(data), self.size, self.squares)
        except base.Unreadable as error:
            return f"{'standard input' if name == STDIN else name} gives no image: {error}"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror or error}"


class StoreImages:
    """The training images of a packed store.

    Raises:
        ConfigError: it is not finished, or damaged.
    """

    def __init__(self, root: Path) -> None:
        found = store.require(root)
        self.images = PackedDataset(found, "train")
        self.names: Sequence[str] = found.index("train")["name"].to_pylist()
        self.labels = [found.classes[label] for label in self.images.labels.tolist()]

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield number and uint8 (S, S, 3) of each of these images, S as they were packed."""
        yield from zip(numbers, self.images.read(torch.tensor(numbers)), strict=True)


def image_batches(gallery: ImageFiles | StoreImages, size: int = 64) -> Iterator[tuple[list[int], Tensor]]:
    """Yield all images of a gallery that can be read: their numbers, and uint8 (n, S, S, 3) with n up to `size`."""
    for start in range(0, len(gallery.names), size):
        read = list(gallery.read(range(start, min(start + size, len(gallery.names)))))
        if read:
            numbers, squares = zip(*read, strict=True)
            yield list(numbers), torch.stack(squares)
