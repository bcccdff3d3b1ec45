"""Read Parquet shards as the Hugging Face hub serves them: train-*.parquet, and validation-*.parquet or val-*.parquet.

An image's name is the path in its cell, if the paths of a split are complete and unique. Else it is the file and row,
"train-00000-of-00002.parquet:17". The order is that of the sorted files' rows. A row without an image reads as b"".
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alexnet_pl.data.sources.base import Source, Split, Unreadable, check_size, reading
from alexnet_pl.data.sources.folders import WORDS
from alexnet_pl.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

BATCH = 64  # rows in memory at a time
NAMED = re.compile(rf"({'|'.join(WORDS)})-.*\.parquet", re.IGNORECASE)
AVERAGE = 2**25
"""Most bytes of a row group's images on average, so that a batch of them fits into memory"""


class Group(NamedTuple):
    """A row group, which is read at once."""

    file: Path
    number: int
    column: str
    start: int  # its first row, counted over the whole split


def parquet_shards(root: Path) -> Source | None:
    """Return the source of all shards that lie directly in root; None if there are none."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(root.glob("*-*.parquet")):
        if match := NAMED.fullmatch(file.name):
            found[WORDS[match[1].lower()]].append(file)
    if not found.keys() & {"train", "val"}:
        return None
    if "train" not in found:
        raise ConfigError(
            f"{root} holds {found['val'][0].name} but no train-*.parquet: the training images are missing"
        )
    splits = {split: in_shards(files) for split, files in found.items() if split != "test"}
    notes: list[str] = []
    if "test" in found:
        test = None if "val" in splits else in_shards(found["test"], labelled=False)
        if test and len(test) and test.labels.min() >= 0:
            splits["val"] = test
            notes = ["the test shards are taken for val, as there are none of it"]
        else:
            notes = ["the test shards are not used"]
    top = max(int(split.labels.max(initial=-1)) for split in splits.values())
    if top >= len(splits["train"]) > 0:
        count = len(splits["train"])
        raise ConfigError(f"{root} has label {top}, and {count:,} training images: each class up to it must have some")
    classes = _class_names(found["train"][0]) or [str(label) for label in range(top + 1)]
    if top >= len(classes):
        raise ConfigError(f"{root} has label {top}, but its files name {len(classes)} classes")
    return Source("Parquet shards", classes, splits, tuple(notes))


def check_shards(files: Sequence[Path]) -> None:
    """Check that each of a split's files is there once, by the numbers in their names.

    Raises:
        ConfigError: one is missing or is no file, or they are of several downloads.
    """
    for file in files:
        if not file.is_file():
            raise ConfigError(f"{file} is no file that can be read: remove it, or download it again")
    root, split = files[0].parent, files[0].name.partition("-")[0]
    numbers = [match.groups() for file in files if (match := re.search(r"-(\d+)-of-(\d+)", file.name))]
    totals = {total for _, total in numbers}
    if len(totals) > 1 or len(set(numbers)) < len(numbers):
        raise ConfigError(f"{root} holds {split} shards of more than one download, {files[0].name} first: keep one set")
    for total in totals:
        there = {int(shard) for shard, _ in numbers}
        lacking = int(total) - sum(shard < int(total) for shard in there)
        if lacking:  # a name may claim any number of shards
            missing = islice((shard for shard in range(int(total)) if shard not in there), 3)
            names = [f"{split}-{shard:0{len(total)}}-of-{total}.parquet" for shard in missing]
            more = f" and {lacking - 3} more" if lacking > 3 else ""
            raise ConfigError(f"{root} lacks {', '.join(names)}{more} of {int(total)} shards: download them")


def _class_names(file: Path) -> list[str]:
    """Return the label's names in Hugging Face's metadata; none if there is no such metadata."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_schema

    with reading(file, ArrowException):
        found = json.loads((read_schema(file).metadata or {}).get(b"huggingface", b"{}"))
    for key in ("info", "features", "label", "names"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, list) and all(isinstance(name, str) for name in found) else []


def in_shards(files: Sequence[Path], labelled: bool = True) -> Split:
    """Return the split of all rows of some files: labels, paths, and the places of the images.

    Args:
        labelled: whether to refuse a row without a label; if not, its label is -1.
    Raises:
        ConfigError: a file is missing, damaged, or without an image and a label in each row.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    check_shards(files)
    groups: list[Group] = []
    rows: list[str] = []
    paths: list[str] = []  # None where there is none
    labels: list[np.ndarray] = []
    for file in files:
        with reading(file, ArrowException), ParquetFile(file) as shard:
            column = _image_column(file, shard.schema_arrow)
            counts = _row_counts(shard, file.stat().st_size)
            table = shard.read(columns=[f"{column}.path", "label"]).flatten()
            if len(table) != sum(counts):
                raise ValueError(f"it claims {sum(counts):,} rows and has {len(table):,}")
            starts = [len(rows) + sum(counts[:number]) for number in range(len(counts))]
            groups += [Group(file, number, column, start) for number, start in enumerate(starts)]
            labels.append(table["label"].cast("int64").fill_null(-1).to_numpy())
            paths += table[f"{column}.path"].to_pylist()
        rows += [f"{file.name}:{row}" for row in range(len(table))]
        if labelled and (unknown := np.flatnonzero(labels[-1] < 0)).size:
            raise ConfigError(f"{file}, row {unknown[0]}: no label, so it is no set to train or validate on")
    names = paths if all(paths) and len(set(paths)) == len(paths) else rows
    return Split(names, np.concatenate(labels), np.arange(len(names)), partial(_fetch, groups))


def _row_counts(shard: ParquetFile, size: int) -> list[int]:
    """Return how many rows each row group claims to have.

    Args:
        size: bytes of the file.
    Raises:
        ValueError: a claim is more than the file can hold, or more than memory should hold.
    """
    groups = [shard.metadata.row_group(number) for number in range(shard.num_row_groups)]
    for group in groups:
        if not 0 <= group.num_rows <= size:
            raise ValueError(f"it claims {group.num_rows:,} rows in {size:,} bytes")
        if group.total_byte_size > max(1, group.num_rows) * AVERAGE:
            raise ValueError(f"it claims {group.total_byte_size:,} bytes of {group.num_rows:,} images")
    return [group.num_rows for group in groups]


def _image_column(file: Path, schema: pyarrow.Schema) -> str:
    """Return the column of images, image or img: a struct of bytes and path, beside an integer label.

    Raises:
        ConfigError: there is none.
    """
    from pyarrow import types

    for name in [name for name in ("image", "img") if name in schema.names]:
        kind = schema.field(name).type
        cell = {field.name: field.type for field in kind} if types.is_struct(kind) else {}
        if {"bytes", "path"} <= cell.keys() and "label" in schema.names:
            binary = types.is_binary(cell["bytes"]) or types.is_large_binary(cell["bytes"])
            text = any(of(cell["path"]) for of in (types.is_string, types.is_large_string, types.is_null))
            if binary and text and types.is_integer(schema.field("label").type):
                return name
    columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
    raise ConfigError(
        f"{file} has columns {columns}; needed are image: struct<bytes: binary, path: string> and label: an integer"
    )


def _fetch(groups: list[Group], rows: np.ndarray) -> Iterator[bytes | Unreadable]:
    """Yield the images of ascending rows from their row groups. Each call opens the files for itself."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    starts = [group.start for group in groups]
    holder = np.searchsorted(starts, rows, side="right") - 1
    for index in np.unique(holder):
        group, wanted = groups[index], rows[holder == index] - starts[index]
        with reading(group.file, ArrowException), ParquetFile(group.file, memory_map=True) as shard:
            at = 0
            for batch in shard.iter_batches(BATCH, row_groups=[group.number], columns=[f"{group.column}.bytes"]):
                here = wanted[(wanted >= at) & (wanted < at + len(batch))] - at
                for cell in batch.column(0).flatten()[0].take(here):
                    yield _image(cell)
                at += len(batch)
                if at > wanted[-1]:
                    break
            else:
                raise EOFError(f"it ends before row {wanted[-1]} of row group {group.number}")


def _image(cell: pyarrow.Scalar) -> bytes | Unreadable:
    try:
        check_size(cell.as_buffer().size if cell.is_valid else 0)
    except Unreadable as error:
        return error
    return cell.as_py() or b""
