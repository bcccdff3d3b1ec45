"""Every file of a packed dataset, damaged in every way: one sentence that names it, wherever it is read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from alexnet_pl.data import store
from alexnet_pl.data.loader import PackedDataset
from alexnet_pl.errors import ConfigError, TrainingError
from alexnet_pl.prepare.prepare import verify
from tests.helpers.commands import train_command
from tests.helpers.fuzz import REFUSED, how_it_ended
from tests.helpers.sources import PART, draw_source, write_folders
from tests.helpers.stores import contents, halve, pack, refusal, stop_before_the_end

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, and the source beside it."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "FILES_PER_SHARD", PART)
        pack(write_folders(folder / "source", draw_source()), folder / "store", form="jpeg")
    return folder / "store"


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "store")
    return tmp_path / "store"


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": halve,
    "a list": lambda path: path.write_text("[1, 2]"),
    "an empty object": lambda path: path.write_text("{}"),
    "a number": lambda path: path.write_text("5"),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00{}" * 9),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("gone")),
}
FILES = ["store.json", "train.parquet", "val.parquet", "mean.npy", "train-00000.jpegs", "val-00000.jpegs"]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_of_a_store_is_named(copy: Path, file: str, damage: Callable[[Path], object]):
    """To train on it, and to verify it."""
    damage(copy / file)
    split = "val" if file.startswith("val") else "train"
    for use in (lambda: PackedDataset(store.require(copy), split), lambda: verify(copy, None)):
        with pytest.raises(ConfigError) as error:
            use()
        assert file in str(error.value) or "is not finished" in str(error.value)
        assert "\n" not in str(error.value)


NO_FILE = ("gone", "a folder", "a pipe", "a link to nothing")
MARKS = [("store.json", name) for name in DAMAGE if name not in NO_FILE] + [("plan.json", name) for name in DAMAGE]


@pytest.mark.parametrize(("file", "damage"), MARKS)
def test_prepare_names_a_damaged_mark_and_writes_nothing(copy: Path, sound: Path, file: str, damage: str):
    """Without plan.json, the folder holds something else."""
    DAMAGE[damage](copy / file)
    whole = {path: path.read_bytes() for path in copy.rglob("*") if path.name != file}
    said = refusal(sound.parent / "source", copy, form="jpeg")
    assert file in said or ("holds other files" in said and damage in NO_FILE)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.name != file} == whole


@pytest.mark.parametrize("damage", ["gone", "a pipe", "a link to nothing"])
def test_without_its_done_mark_a_store_is_packed_anew(copy: Path, sound: Path, damage: str):
    DAMAGE[damage](copy / "store.json")
    pack(sound.parent / "source", copy, form="jpeg")
    assert contents(copy) == contents(sound)


PAGE = "journal/train-00001.parquet"


def rewrite(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], object]:
    return lambda path: pq.write_table(change(pq.read_table(path)), path)


def swap(name: str, rows: Callable[[list], list]) -> Callable[[Path], object]:
    """Change a column of a page."""

    def change(page: pa.Table) -> pa.Table:
        at = page.column_names.index(name)
        return page.set_column(at, page.schema.field(at), pa.array(rows(page[name].to_pylist()), page[name].type))

    return rewrite(change)


PAGES = {name: damage for name, damage in DAMAGE.items() if name != "a folder"} | {
    "another table": lambda path: pq.write_table(pa.table({"a": [1]}), path),
    "no checksum": rewrite(lambda page: page.replace_schema_metadata({"bytes": page.schema.metadata[b"bytes"]})),
    "no metadata": rewrite(lambda page: page.replace_schema_metadata(None)),
    "a row less": rewrite(lambda page: page.slice(1)),
    "other names": swap("name", lambda rows: rows[::-1]),
    "other labels": swap("label", lambda rows: [2 - row for row in rows]),
    "other offsets": swap("offset", lambda rows: [row + 1 for row in rows]),
    "absurd lengths": swap("bytes", lambda rows: [2**62, *rows[1:]]),
    "less than nothing": swap("bytes", lambda rows: [rows[0] + rows[1] + 9, -9, *rows[2:]]),
    "skipped": swap("skipped", lambda rows: ["none", *rows[1:]]),
}


@pytest.mark.parametrize("damage", PAGES.values(), ids=PAGES)
def test_a_damaged_page_of_the_journal_is_packed_anew(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object]
):
    root, source = tmp_path / "store", sound.parent / "source"
    stop_before_the_end(monkeypatch, source, root, form="jpeg")
    damage(root / PAGE)
    pack(source, root, form="jpeg")
    assert contents(root) == contents(sound)


Change = Callable[[dict[str, Any]], object]
LIES: dict[str, Change] = {
    "no classes": lambda s: s.update(classes="abc"),
    "classes that are numbers": lambda s: s.update(classes=[1, 2, 3]),
    "counts that are text": lambda s: s["images"].update(train="30"),
    "more images than bytes": lambda s: s["images"].update(train=10**15),
    "less than no image": lambda s: s["images"].update(train=-1),
    "a size of nothing": lambda s: s["plan"].update(size=0),
    "an absurd size": lambda s: s["plan"].update(size=10**9),
    "a size of text": lambda s: s["plan"].update(size="24"),
    "another form": lambda s: s["plan"].update(form="png"),
    "no parts": lambda s: s["parts"].update(train=None),
    "a part elsewhere": lambda s: s["parts"]["train"][0].update(file="../../etc/passwd"),
    "no index": lambda s: s.update(others=s["others"][:1]),
    "another split": lambda s: [s[key].update(test=s[key]["val"]) for key in ("images", "skipped", "parts")],
    "no train": lambda s: [s[key].pop("train") for key in ("images", "skipped", "parts")],
    "colours of another size": lambda s: s["colors"].update(std=[1.0]),
    "colours of text": lambda s: s["colors"].update(std=["a", "b", "c"]),
    "colours without an end": lambda s: s["colors"].update(std=[1e999, 1.0, 1.0]),
    "more keys": lambda s: s.update(more=1),
    "fewer keys": lambda s: s.pop("skipped"),
}


@pytest.mark.parametrize("change", LIES.values(), ids=LIES)
def test_a_done_mark_that_lies_is_named(copy: Path, change: Change):
    mark = copy / "store.json"
    plain = json.loads(mark.read_text())
    change(plain)
    mark.write_text(json.dumps(plain))
    with pytest.raises(ConfigError, match=r"store\.json is (damaged|not JSON)"):
        store.read(copy)


def forge(root: Path, file: str, write: Callable[[Path], object]) -> None:
    """Write a file of a store, with a checksum that is right."""
    write(root / file)
    mark = root / "store.json"
    plain = json.loads(mark.read_text())
    data = (root / file).read_bytes()
    for shard in [*plain["others"], *plain["parts"]["train"]]:
        if shard["file"] == file:
            shard |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    mark.write_text(json.dumps(plain))


def npy(shape: tuple[int, ...], data: bytes = b"") -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
            file.write(data)

    return write


FORGED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a mean of 8 TB": ("mean.npy", npy((10**6, 10**6))),
    "a mean of another size": ("mean.npy", npy((1, 1, 3), bytes(24))),
    "a mean of objects": ("mean.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True)),
    "an index that is none": ("train.parquet", lambda path: path.write_bytes(b"PAR1 none PAR1")),
    "a row less": ("train.parquet", rewrite(lambda page: page.slice(1))),
    "another column": ("train.parquet", rewrite(lambda page: page.rename_columns(["a", *page.column_names[1:]]))),
    "names that are numbers": ("train.parquet", rewrite(lambda page: page.set_column(0, "name", page["label"]))),
    "an absurd length": ("train.parquet", swap("bytes", lambda rows: [2**62, *rows[1:]])),
    "a place beyond the end": ("train.parquet", swap("offset", lambda rows: [2**62, *rows[1:]])),
    "a place before the start": ("train.parquet", swap("offset", lambda rows: [-1, *rows[1:]])),
    "a part that is not there": ("train.parquet", swap("part", lambda rows: [99, *rows[1:]])),
    "a part before the first": ("train.parquet", swap("part", lambda rows: [-1, *rows[1:]])),
    "a label that is no class": ("train.parquet", swap("label", lambda rows: [3, *rows[1:]])),
    "a label that is nothing": ("train.parquet", swap("label", lambda rows: [None, *rows[1:]])),
}


@pytest.mark.parametrize(("file", "write"), FORGED.values(), ids=FORGED)
def test_a_forged_file_whose_checksum_is_right_is_named(copy: Path, file: str, write: Callable[[Path], object]):
    forge(copy, file, write)
    with pytest.raises(ConfigError, match=f"{file} is damaged"):
        (store.require(copy).mean() if file == "mean.npy" else PackedDataset(store.require(copy), "train"))


def test_images_that_are_none_end_in_one_sentence(copy: Path):
    forge(copy, "train-00000.jpegs", lambda path: path.write_bytes(b"x" * path.stat().st_size))
    images = PackedDataset(store.require(copy), "train")
    with pytest.raises(TrainingError, match=r"train-00000\.jpegs cannot be read"):
        images.read(torch.arange(4))


def test_a_split_that_is_not_there_is_named(sound: Path, tmp_path: Path):
    pack(sound.parent / "source/train", tmp_path / "store")
    with pytest.raises(ConfigError, match=r"holds no val images: prepare a store with some, for val by"):
        PackedDataset(store.require(tmp_path / "store"), "val")


@pytest.mark.parametrize("file", ["store.json", "train.parquet", "mean.npy", "train-00000.jpegs"])
@pytest.mark.parametrize("damage", ["empty", "no UTF-8"])
def test_training_on_a_damaged_store_is_one_sentence(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, damage: str
):
    DAMAGE[damage](copy / file)
    result = train_command(tmp_path, monkeypatch)(
        "experiment=figure1",
        "data=packed",
        "optim.lr=0.01",
        f"data.root={copy}",
        "trainer.max_steps=1",
        "logger=csv",
        "data.batch_size=8",
    )
    assert how_it_ended(result) == REFUSED
    (sentence,) = result.stderr.strip().splitlines()
    assert f"{copy / file} " in sentence
