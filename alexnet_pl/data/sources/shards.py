"""Read Parquet shards as the Hugging Face hub serves them: train-*.parquet, and validation-*.parquet or val-*.parquet.

An image is called by the path in its cell where a split's paths are all there and unique, else by its file and row:
"train-00000-of-00002.parquet:17". Order is that of the sorted files' rows. A row without an image reads as b"".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alexnet_pl.data.sources.base import Source, Split, reading
from alexnet_pl.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow

BATCH = 64  # rows in memory at a time


class Group(NamedTuple):
    """A row group: what is read at once."""

    file: Path
    number: int
    column: str
    start: int  # its first row, counted over the whole split


def parquet_shards(root: Path) -> Source | None:
    """Return the source of all shards that lie directly in root; None where there are none."""
    train = _files(root, "train")
    val = _files(root, "validation") or _files(root, "val")
    if not train and not val:
        return None
    if not train:
        raise ConfigError(f"{root} holds {val[0].name} but no train-*.parquet: the training images are missing")
    splits = {"train": _split(train)} | ({"val": _split(val)} if val else {})
    top = max(int(split.labels.max(initial=-1)) for split in splits.values())
    classes = _class_names(train[0]) or [str(label) for label in range(top + 1)]
    if top >= len(classes):
        raise ConfigError(f"{root} has label {top}, but its files name {len(classes)} classes")
    return Source("Parquet shards", classes, splits)


def _files(root: Path, split: str) -> list[Path]:
    """Return the files of a split, sorted; by the numbers in their names each is there, and there once.

    Raises:
        ConfigError: one is missing, or they are of several downloads.
    """
    files = sorted(root.glob(f"{split}-*.parquet"))
    numbers = [match.groups() for file in files if (match := re.search(r"-(\d+)-of-(\d+)", file.name))]
    totals = {total for _, total in numbers}
    if len(totals) > 1 or len(set(numbers)) < len(numbers):
        raise ConfigError(f"{root} holds {split} shards of more than one download, {files[0].name} first: keep one set")
    for total in totals:
        there = {int(shard) for shard, _ in numbers}
        if missing := sorted(set(range(int(total))) - there):
            names = [f"{split}-{shard:0{len(total)}}-of-{total}.parquet" for shard in missing]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ConfigError(f"{root} lacks {', '.join(names[:3])}{more} of {int(total)} shards: download them")
    return files


def _class_names(file: Path) -> list[str]:
    """Return the label's names in Hugging Face's metadata; none where there is no such thing."""
    from pyarrow.parquet import read_schema

    with reading(file):
        info = json.loads((read_schema(file).metadata or {}).get(b"huggingface", b"{}"))
    return info.get("info", {}).get("features", {}).get("label", {}).get("names", [])


def _split(files: list[Path]) -> Split:
    """Return the split of all rows: labels and paths, and of the images only where they are."""
    from pyarrow.parquet import ParquetFile

    groups: list[Group] = []
    rows: list[str] = []
    paths: list[str] = []  # None where there is none
    labels: list[np.ndarray] = []
    for file in files:
        with reading(file), ParquetFile(file) as shard:
            column = _image_column(file, shard.schema_arrow)
            table = shard.read(columns=[f"{column}.path", "label"]).flatten()
            start = len(rows)
            for number in range(shard.num_row_groups):
                groups.append(Group(file, number, column, start))
                start += shard.metadata.row_group(number).num_rows
        rows += [f"{file.name}:{row}" for row in range(len(table))]
        paths += table[f"{column}.path"].to_pylist()
        labels.append(table["label"].cast("int64").fill_null(-1).to_numpy())
        if (unknown := np.flatnonzero(labels[-1] < 0)).size:
            raise ConfigError(f"{file}, row {unknown[0]}: no label, so it is no set to train or validate on")
    names = paths if all(paths) and len(set(paths)) == len(paths) else rows
    return Split(names, np.concatenate(labels), np.arange(len(names)), partial(_fetch, groups))


def _image_column(file: Path, schema: pyarrow.Schema) -> str:
    """Return the column of images, image or img: a struct of bytes and path, beside an integer label.

    Raises:
        ConfigError: there is none.
    """
    from pyarrow import types

    for name in [name for name in ("image", "img") if name in schema.names]:
        kind = schema.field(name).type
        cell = {field.name for field in kind} if types.is_struct(kind) else set()
        if {"bytes", "path"} <= cell and "label" in schema.names and types.is_integer(schema.field("label").type):
            return name
    columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
    raise ConfigError(f"{file} has columns {columns}; needed are image: struct<bytes, path> and label: an integer")


def _fetch(groups: list[Group], rows: np.ndarray) -> Iterator[bytes]:
    """Yield the images of ascending rows, from the row groups they are in; each call opens the files for itself."""
    from pyarrow.parquet import ParquetFile

    starts = [group.start for group in groups]
    holder = np.searchsorted(starts, rows, side="right") - 1
    for index in np.unique(holder):
        group, wanted = groups[index], rows[holder == index] - starts[index]
        with reading(group.file), ParquetFile(group.file, memory_map=True) as shard:
            at = 0
            for batch in shard.iter_batches(BATCH, row_groups=[group.number], columns=[f"{group.column}.bytes"]):
                here = wanted[(wanted >= at) & (wanted < at + len(batch))] - at
                for cell in batch.column(0).flatten()[0].take(here):
                    yield cell.as_py() or b""
                at += len(batch)
                if at > wanted[-1]:
                    break
