"""What a source is: splits of images that are read by number, and the classes of their labels."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_pl.errors import ConfigError, first_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
DAMAGE: tuple[type[Exception], ...] = (OSError, ValueError, LookupError, EOFError)
DAMAGE += (tarfile.TarError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Split:
    """Images in a fixed order; only their names, labels and places are held.

    Attributes:
        names: what each image is called, unique within the split.
        labels: int64 (N,), indices into the source's classes.
        places: (N, ...), where each image is, in terms that `fetch` knows.
        fetch: yields the bytes at some of the places, in their order; safe to call from many threads at once.
    """

    names: Sequence[str]
    labels: np.ndarray
    places: np.ndarray
    fetch: Callable[[np.ndarray], Iterator[bytes]]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the files' bytes of images start to stop - 1, one at a time, from any thread.

        Raises:
            ConfigError: the file that holds an image cannot be read; it is named.
        """
        return self.fetch(self.places[start:stop])

    def part(self, chosen: np.ndarray) -> Split:
        """Return the split of some of its images, by their numbers."""
        return Split([self.names[i] for i in chosen], self.labels[chosen], self.places[chosen], self.fetch)


@dataclass(frozen=True)
class Source:
    """Where images come from.

    Attributes:
        kind: the layout's name.
        classes: the classes' names in label order.
        splits: "train" always, "val" where there is one.
    """

    kind: str
    classes: list[str]
    splits: dict[str, Split]

    def describe(self) -> str:
        """Return what was found, in one line."""
        counts = [f"{len(split):,} {name}" for name, split in self.splits.items()]
        if "val" not in self.splits:
            counts.append("no val")
        return ", ".join([f"found: {self.kind}", f"{len(self.classes)} classes", *counts])


def is_image_name(name: str) -> bool:
    """Return whether a file's name, without folders, is that of an image: by its suffix, and not hidden."""
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def object_array(items: Sequence[str]) -> np.ndarray:
    """Return strings as an array that can be indexed by numbers: object (N,)."""
    return np.array(items, dtype=object)


def labels_of(words: Iterable[str], classes: list[str], where: Path) -> np.ndarray:
    """Return the label of each class name, int64 (N,); raise ConfigError for a name that is no class."""
    index = {name: label for label, name in enumerate(classes)}
    try:
        return np.array([index[word] for word in words], dtype=np.int64)
    except KeyError as error:
        raise ConfigError(
            f"{where} has class {error.args[0]}, which the training images lack: "
            f"add it to them or remove it; their classes are {_few(classes)}"
        ) from error


def match_classes(names: Sequence[str], truth: dict[str, str], where: Path) -> list[str]:
    """Return the class name of each image, by a table that must hold these images and no others.

    Raises:
        ConfigError: it lacks one of them, or holds another.
    """
    if odd := sorted(set(names) ^ truth.keys()):
        lack = f"{where} does not give the class of" if odd[0] in names else f"{where} gives the class of a missing"
        more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        raise ConfigError(f"{lack} image {odd[0]}{more}: both must be whole, and of the same set")
    return [truth[name] for name in names]


def first_names(folder: Path) -> str:
    """Return the first visible names in a folder, for an error."""
    with reading(folder):
        return _few(sorted(name for name in os.listdir(folder) if not name.startswith(".")))


def _few(names: list[str]) -> str:
    more = ["…"] if len(names) > 5 else []
    return ", ".join(names[:5] + more) or "nothing"


@contextmanager
def reading(path: Path | str, *more: type[Exception]) -> Iterator[None]:
    """Raise a ConfigError that names a file which cannot be opened, is damaged or cut short.

    Args:
        more: errors of a reader, besides DAMAGE.
    """
    try:
        yield
    except (*DAMAGE, *more) as error:
        path = Path(path)
        if isinstance(error, OSError) and error.strerror:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        reason = first_line(error)[:160]
        raise ConfigError(f"{path} is damaged or cut short ({reason}): copy or download it again") from error
