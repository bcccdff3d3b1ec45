"""The parts of a source: splits of images that are read by number, and the classes of their labels."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_pl.errors import ConfigError, first_line

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".avif",
)  # fmt: skip
SYSTEM = {"@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found", "__macosx", "system volume information"}
SYSTEM |= {"#snapshot", "~snapshot", "@recently-snapshot", "@tmp", "found.000", "thumbs.db", "desktop.ini"}
"""Names that systems create in folders by themselves; @eaDir has thumbnails of all images, #snapshot copies"""
LARGEST = 2**28
"""Most bytes of an image file. Photographs have a hundredth of it, and a larger file would fill the memory."""
DAMAGE: tuple[type[Exception], ...] = (OSError, ValueError, LookupError, EOFError, RuntimeError)
DAMAGE += (OverflowError, MemoryError, tarfile.TarError, zipfile.BadZipFile, zlib.error)
"""Exceptions of readers at a damaged file, also at an encrypted one, or at an impossible size"""


class Unreadable(Exception):
    """A file that gives no image; the text says why in a few words."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images in a fixed order: only their names, labels and places are in memory.

    Attributes:
        names: name of each image, unique within the split.
        labels: int64 (N,), indices into the source's classes.
        places: (N, ...), the place of each image, in a form that `fetch` knows.
        fetch: yields the bytes at some of the places, in their order, or the reason why there are none. Many threads
            may call it at once.
    """

    names: Sequence[str]
    labels: np.ndarray
    places: np.ndarray
    fetch: Callable[[np.ndarray], Iterator[bytes | Unreadable]]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, start: int, stop: int) -> Iterator[bytes | Unreadable]:
        """Yield the bytes of the files of images start to stop - 1, one at a time, from any thread.

        If an image is no file, or is too large, yield the reason instead.

        Raises:
            ConfigError: the file that holds an image cannot be read.
        """
        return self.fetch(self.places[start:stop])

    def part(self, chosen: np.ndarray) -> Split:
        """Return a split of some of the images, by their numbers."""
        return Split([self.names[i] for i in chosen], self.labels[chosen], self.places[chosen], self.fetch)


@dataclass(frozen=True)
class Source:
    """A source of images.

    Attributes:
        kind: the layout's name.
        classes: the classes' names in label order.
        splits: "train" always, "val" if there is one.
        notes: sentences about files that were left out, or that were taken for something else.
    """

    kind: str
    classes: list[str]
    splits: dict[str, Split]
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return layout and counts in one line."""
        counts = [f"{len(split):,} {name}" for name, split in self.splits.items()]
        if "val" not in self.splits:
            counts.append("no val")
        return ", ".join([f"found: {self.kind}", f"{len(self.classes)} classes", *counts])


def is_hidden(name: str) -> bool:
    """Return whether a name without folders is that of a hidden file or folder, or of one that a system created."""
    return name.startswith(".") or name.lower() in SYSTEM


def is_image_name(name: str) -> bool:
    """Return whether a name without folders is that of an image: a known suffix, and not hidden."""
    return not is_hidden(name) and name.lower().endswith(SUFFIXES)


def note_left_out(names: Sequence[str]) -> list[str]:
    """Return a sentence about files that are not named as images, if there are any."""
    if not names:
        return []
    endings = sorted({os.path.splitext(name)[1] or "no ending" for name in names})
    are = "1 file is" if len(names) == 1 else f"{len(names):,} files are"
    return [f"{are} left out, not named as images: {_few(endings)}; {names[0]}, for one"]


def object_array(items: Sequence[str]) -> np.ndarray:
    """Return strings as an array that can be indexed by numbers: object (N,)."""
    return np.array(items, dtype=object)


def class_name(folder: str) -> str:
    """Return the class of a folder's name. Unicode writes an é in two ways; this takes the usual one."""
    return folder if folder.isascii() else unicodedata.normalize("NFC", folder)


def class_names(folders: Iterable[str]) -> list[str]:
    """Return the classes of some folders, sorted."""
    return sorted({class_name(folder) for folder in folders})


def labels_of(words: Iterable[str], classes: list[str], where: Path) -> np.ndarray:
    """Return the label of each class name, int64 (N,). Raise ConfigError for a name that is no class."""
    index = {name: label for label, name in enumerate(classes)}
    try:
        return np.array([index[class_name(word)] for word in words], dtype=np.int64)
    except KeyError as error:
        raise ConfigError(
            f"{where} has class {error.args[0]}, which the training images lack: "
            f"add it to them or remove it; their classes are {_few(classes)}"
        ) from error


def match_classes(names: Sequence[str], truth: dict[str, str], where: Path) -> list[str]:
    """Return the class name of each image from a table, which must hold exactly these images.

    Raises:
        ConfigError: it lacks one of them, or holds another.
    """
    if odd := sorted(set(names) ^ truth.keys()):
        lack = f"{where} does not give the class of" if odd[0] in names else f"{where} gives the class of a missing"
        more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        raise ConfigError(f"{lack} image {odd[0]}{more}: both must be whole, and of the same set")
    return [truth[name] for name in names]


def first_names(folder: Path) -> str:
    """Return the first visible names in a folder, for an error message."""
    with reading(folder):
        return _few(sorted(name for name in os.listdir(folder) if not name.startswith(".")))


def _few(names: list[str]) -> str:
    more = ["…"] if len(names) > 5 else []
    return ", ".join(names[:5] + more) or "nothing"


# ------------------------------------------------------------------------------------------------ reading


def check_size(size: int) -> None:
    """Raise Unreadable for a size, in bytes, that no image file has."""
    if size > LARGEST:
        raise Unreadable(f"{size:,} bytes, and an image file may have {LARGEST:,}")


def read_file(path: str | Path) -> bytes:
    """Return the bytes of a file. Never wait for those of a pipe or a device.

    Raises:
        Unreadable: it is no file, a broken link, locked, or larger than an image may be.
        OSError: the file system fails.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("no file: a folder, pipe, socket or device")
        check_size(status.st_size)
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ELOOP):
            raise Unreadable(os.strerror(error.errno)) from error
        if error.errno == errno.ENOENT and os.path.islink(path):
            raise Unreadable("a link to nothing") from error
        raise


def read_table(path: Path) -> bytes:
    """Return the bytes of a file with labels or classes. Raise ConfigError if it cannot be read."""
    with reading(path):
        return read_file(path)


def fetch(folder: Path, read: Callable[[str], bytes], name: str) -> bytes | Unreadable:
    """Return an image's bytes by its name, or the reason why there are none.

    Raises:
        ConfigError: it cannot be read for a reason that may pass, or the file that holds it is damaged.
    """
    with reading(os.path.join(folder, name)):  # a Path takes as long as to read a small file
        try:
            return read(name)
        except Unreadable as error:
            return error


@contextmanager
def reading(path: Path | str, *more: type[Exception]) -> Iterator[None]:
    """Raise a ConfigError that names the file if it cannot be opened inside, or is damaged or cut short.

    Args:
        more: errors of a reader, besides DAMAGE.
    """
    try:
        yield
    except Unreadable as error:
        raise ConfigError(f"{Path(path)} cannot be read: {error}") from error
    except (*DAMAGE, *more) as error:
        path = Path(path)
        if isinstance(error, OSError) and error.strerror:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        reason = first_line(error)[:160]
        raise ConfigError(f"{path} is damaged or cut short ({reason}): copy or download it again") from error
