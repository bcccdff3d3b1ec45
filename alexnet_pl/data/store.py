"""A packed dataset (store): images decoded, scaled and cropped once, in a few large files.

    STORE/
        plan.json          the source, and how to pack it; written first
        train-00000.raw    the images of the source's first 4,096 files, one after the other; or .jpegs
        train.parquet      for each image: name, label, part, offset, bytes
        val-00000.raw, val.parquet
        mean.npy           the mean image of train, float64 (size, size, 3), RGB of 0..255
        skipped.csv        the files that gave no image, and why
        store.json         the done mark: counts, class names, checksums, the colours' principal components
        journal/           only while packing: the contents of each finished part

`prepare/` writes it, and `loader.py` reads its images. This file imports no torch, so that a configuration can be
checked against a store quickly.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_pl import files
from alexnet_pl.config.choices import Squares
from alexnet_pl.config.schema import LEAST_PIXELS, MOST_PIXELS
from alexnet_pl.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

FILES_PER_SHARD = 4096
"""Files of the source in a part. Parts are few enough to keep all open, and small enough to lose little by a stop."""
VERSION = 2
INDEX = {"name": "string", "label": "int64", "part": "int64", "offset": "int64", "bytes": "int64"}
"""Columns of `split`.parquet, which has a row for each image"""


@dataclass
class Plan:
    """The source, and how to pack it. Only the same plan continues a stopped packing."""

    name: str
    """name of the dataset"""
    source: str
    """layout and counts of the source, in one line"""
    fingerprint: str
    """checksum of the source's classes, names, labels, and some of its images"""
    size: int
    """side of the stored squares, in pixels"""
    form: str
    """raw: uint8 (size, size, 3), without loss; jpeg: about an eighth of the bytes, at a fraction of the speed"""
    quality: int | None
    """quality of the JPEGs"""
    squares: str = "centre"
    """how images became squares: a choice of config/choices.py's Squares"""
    part: int = field(default_factory=lambda: FILES_PER_SHARD)
    """files of the source in a part"""
    version: int = VERSION
    """version of this layout"""

    def check(self) -> None:
        """Raise ValueError if this package would not write such a value."""
        texts = all(type(text) is str for text in (self.name, self.source, self.fingerprint))
        jpeg = self.form == "jpeg" and _is_whole(self.quality, 1, 100)
        form = (jpeg or (self.form, self.quality) == ("raw", None)) and self.squares in Squares.__members__
        if not (texts and form and _is_whole(self.size, LEAST_PIXELS, MOST_PIXELS) and _is_whole(self.part, 1)):
            raise ValueError

    @property
    def identity(self) -> str:
        """A text that identifies this store, wherever it lies."""
        squares = "" if self.squares == "centre" else f"-{self.squares}"
        return f"{self.fingerprint}-{self.size}-{self.form}{self.quality or ''}{squares}"

    def file(self, split: str, number: int) -> str:
        """Return the name of a part."""
        return f"{split}-{number:05d}.{'raw' if self.form == 'raw' else 'jpegs'}"


@dataclass
class Shard:
    """A finished file, as the journal and store.json list it."""

    file: str
    bytes: int
    sha256: str


@dataclass
class Store:
    """A finished store."""

    root: Path
    plan: Plan
    classes: list[str]
    """names in the order of the labels"""
    images: dict[str, int]
    """split -> number of images"""
    skipped: dict[str, int]
    """split -> number of files that gave no image"""
    parts: dict[str, list[Shard]]
    """split -> its parts"""
    others: list[Shard]
    """mean.npy and the indices"""
    colors: dict[str, list[Any]]
    """vectors (3, 3), a row each, and std (3), of train, as in pixel_stats.ColorPCA"""

    def summary(self) -> str:
        """Return size, form and counts in one line."""
        parts = [f"{self.plan.size}x{self.plan.size} {self.plan.form}", f"{len(self.classes)} classes"]
        parts += [f"{count:,} {split}" for split, count in self.images.items()]
        if skipped := sum(self.skipped.values()):
            parts.append(f"{skipped:,} skipped (skipped.csv)")
        return ", ".join(parts)

    def check(self) -> None:
        """Raise ValueError if this package would not write such a value, or if it does not fit the others."""
        cells = {split: sum(part.bytes for part in parts) for split, parts in self.parts.items()}
        least = 3 * self.plan.size**2 if self.plan.form == "raw" else 1  # bytes of an image
        colors = [*self.colors["vectors"], self.colors["std"]]
        if not (
            type(self.classes) is list
            and all(type(name) is str for name in self.classes)
            and self.images.keys() == self.skipped.keys() == self.parts.keys() in ({"train"}, {"train", "val"})
            and all(map(_is_whole, [*self.images.values(), *self.skipped.values(), *cells.values()]))
            and all(count * least <= cells[split] for split, count in self.images.items())
            and all(part.file == self.plan.file(s, n) for s in self.parts for n, part in enumerate(self.parts[s]))
            and [part.file for part in self.others] == ["mean.npy", *(f"{split}.parquet" for split in self.parts)]
            and [len(row) for row in colors] == [3, 3, 3, 3]
            and all(math.isfinite(x) for row in colors for x in row)
        ):
            raise ValueError

    def index(self, split: str) -> pa.Table:
        """Return for each image its name, label, part, offset and bytes.

        Raises:
            ConfigError: the index is damaged, or lists bytes that the parts do not have.
        """
        import numpy as np
        import pyarrow.parquet

        path = self.root / f"{split}.parquet"
        with _sound(path):
            if pyarrow.parquet.read_metadata(path).num_rows != self.images[split]:
                raise ValueError
            table = pyarrow.parquet.read_table(path)
            label, part, offset, length = (table[name].to_numpy() for name in ("label", "part", "offset", "bytes"))
            ends = np.array([part.bytes for part in self.parts[split]])[part] - length  # a wrong part is an IndexError
            if not (
                {field.name: str(field.type) for field in table.schema} == INDEX
                and all(column.null_count == 0 for column in table.columns)
                and np.all((label >= 0) & (label < len(self.classes)) & (part >= 0))
                and np.all((offset >= 0) & (length > 0) & (offset <= ends))
                and (self.plan.form != "raw" or np.all(length == 3 * self.plan.size**2))
            ):
                raise ValueError
        return table

    def mean(self) -> np.ndarray:
        """Return the mean image, float64 (size, size, 3).

        Raises:
            ConfigError: it is damaged.
        """
        import numpy as np

        with _sound(self.root / "mean.npy"):
            mean = np.load(self.root / "mean.npy", mmap_mode="r")  # so that a header cannot claim memory
            if (mean.shape, mean.dtype) != ((self.plan.size, self.plan.size, 3), np.float64):
                raise ValueError
            return np.array(mean)

    def write(self) -> None:
        """Write the done mark."""
        plain = asdict(self)
        del plain["root"]
        files.write(self.root / "store.json", json.dumps(plain, indent=1))

    def check_files(self, split: str) -> None:
        """Raise ConfigError if a part is missing or cut short, or an index or the mean image is damaged.

        `prepare --verify` also checks the contents of the parts.
        """
        if split not in self.parts:
            raise ConfigError(
                f"{self.root} holds no {split} images: prepare a store with some, for val by --hold-out 0.1"
            )
        for part in self.parts[split]:
            self.check_size(part)
        for part in self.others:
            self.compare(part)

    def check_size(self, part: Shard) -> None:
        """Raise ConfigError if a file is missing or cut short."""
        path = self.root / part.file
        found = path.stat().st_size if path.is_file() else -1
        if found != part.bytes:
            what = "is missing" if found < 0 else f"has {found:,} bytes instead of {part.bytes:,}"
            raise ConfigError(f"{path} {what}: copy the store again, or remove it and prepare it anew")

    def compare(self, part: Shard) -> None:
        """Raise ConfigError if the size or the checksum of a file is not that of the file that was written."""
        self.check_size(part)
        if measure_shard(self.root / part.file) != part:
            path = self.root / part.file
            raise ConfigError(f"{path} is damaged: copy the store again, or remove it and prepare it anew")


def read_plan(root: Path) -> Plan | None:
    """Return the plan of a store, finished or not; None if there is none.

    Raises:
        ConfigError: plan.json is damaged, or of another version of this package.
    """
    path = root / "plan.json"
    if not path.is_file():
        return None
    with _sound(path):
        plan = Plan(**files.read_json(path))
        plan.check()
    return plan


def read(root: Path) -> Store | None:
    """Return the finished store in a folder; None if there is none.

    Raises:
        ConfigError: store.json is damaged, or of another version of this package.
    """
    path = root / "store.json"
    if not path.is_file():
        return None
    with _sound(path):
        plain = files.read_json(path)
        if (version := plain["plan"]["version"]) != VERSION:
            raise ConfigError(f"{root} is a store of version {version}, not {VERSION}: prepare it anew")
        plain["plan"] = Plan(**plain["plan"])
        plain["parts"] = {split: [Shard(**part) for part in parts] for split, parts in plain["parts"].items()}
        plain["others"] = [Shard(**part) for part in plain["others"]]
        store = Store(root, **plain)
        store.plan.check()
        store.check()
    return store


def _is_whole(value: object, least: int = 0, most: int = 2**63) -> bool:
    """Return whether a value is a whole number between two others, or one of them."""
    return type(value) is int and least <= value <= most


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Raise ConfigError if a file of a store holds something that this package does not write."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, EOFError, RuntimeError, MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.strerror:  # of the file system, not of a reader
            raise
        raise ConfigError(
            f"{path} is damaged, or of another version of this package: remove {path.parent} and prepare it anew"
        ) from error


def require(root: Path, key: str = "") -> Store:
    """Return the finished store in a folder, which must be there. Messages put `key` before its name.

    Raises:
        ConfigError: there is none, or it is not finished.
    """
    store = read(root)
    if store:
        return store
    if (root / "plan.json").is_file():
        raise ConfigError(f"the store in {key}{root} is not finished: run its prepare command again to continue")
    found = "is no folder" if not root.is_dir() else "is no packed store"
    raise ConfigError(f"{key}{root} {found}: make one, once, with python -m alexnet_pl.prepare SOURCE {root}")


def measure_shard(path: Path) -> Shard:
    """Return a finished file with its size and checksum."""
    with path.open("rb") as file:
        return Shard(path.name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def read_at(descriptor: int, offset: int, buffer: memoryview) -> None:
    """Fill a buffer from an open file, from any thread.

    Raises:
        OSError: the file ends too early.
    """
    if os.preadv(descriptor, [buffer], offset) != len(buffer):
        raise OSError(f"it ends before byte {offset + len(buffer):,}")
