"""Sources to prepare: random images of three classes, in folders or in Parquet shards."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PART = 8
"""Files in a part"""
SIZE = 24


class File(NamedTuple):
    """A file of a source, as the store should know it."""

    name: str
    label: int
    data: bytes


Files = dict[str, list[File]]


def random_image(rng: np.random.Generator, kind: str) -> bytes:
    """Return a random image of 20 to 60 pixels: a coarse pattern, enlarged."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize(tuple(rng.integers(20, 61, 2).tolist()), Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def draw_source(train: int = 30, val: int = 11, seed: int = 0, folder: bool = True) -> Files:
    """Return the files of a source of three classes; half are JPEG, half PNG."""
    rng, found = np.random.default_rng(seed), {}
    for split, count in (("train", train), ("val", val)):
        files = [
            File(f"n0{i % 3}/{i:03d}.JPEG", i % 3, random_image(rng, ("JPEG", "PNG")[i // 3 % 2])) for i in range(count)
        ]
        found[split] = sorted(files) if folder else files
    return {split: files for split, files in found.items() if files}


def write_folders(folder: Path, made: Files) -> Path:
    """Write train/<class>/* and val/<class>/*."""
    for split, files in made.items():
        for file in files:
            path = folder / split / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.data)
    return folder


def write_shards(folder: Path, made: Files) -> Path:
    """Write Parquet shards as the hub serves them: two of train, one of validation."""
    folder.mkdir()
    half = len(made["train"]) // 2
    shards = {"train-00000-of-00002": made["train"][:half], "train-00001-of-00002": made["train"][half:]}
    shards |= {"validation-00000-of-00001": made["val"]}
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    label = {"names": ["tench", "goldfish", "great white shark"]}
    meta = {"huggingface": json.dumps({"info": {"features": {"label": label}}})}
    for name, files in shards.items():
        images = pa.array([{"bytes": file.data, "path": file.name} for file in files], cell)
        table = pa.table({"image": images, "label": pa.array([file.label for file in files], pa.int64())})
        pq.write_table(table.replace_schema_metadata(meta), folder / f"{name}.parquet", row_group_size=4)
    return folder
