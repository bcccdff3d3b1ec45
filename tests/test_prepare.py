"""Packing a source into a store: what stands in it, stops of every kind at every moment, and every kind of refusal."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console

from alexnet_pl import ROOT, files, pictures, prepare, sources, store
from alexnet_pl.errors import ConfigError, UserError
from alexnet_pl.prepare import Packing, meter, trial
from alexnet_pl.prepare.trial import Options

PART = 8
"""Files in a part"""
SIZE = 24
SMALL = Options(size=SIZE, workers=2)
SHARED = ROOT / "../shared/data"


class File(NamedTuple):
    """A file of a source, as the store should know it."""

    name: str
    label: int
    data: bytes


Made = dict[str, list[File]]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PART", PART)


# ----------------------------------------------------------------------------------------- sources


def picture(rng: np.random.Generator, kind: str) -> bytes:
    """A random picture of 20 to 60 pixels: a coarse pattern, enlarged."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize(tuple(rng.integers(20, 61, 2).tolist()), Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def made(train: int = 30, val: int = 11, seed: int = 0, folder: bool = True) -> Made:
    """The files of a source of three classes; half are JPEG, half PNG."""
    rng, found = np.random.default_rng(seed), {}
    for split, count in (("train", train), ("val", val)):
        files = [
            File(f"n0{i % 3}/{i:03d}.JPEG", i % 3, picture(rng, ("JPEG", "PNG")[i // 3 % 2])) for i in range(count)
        ]
        found[split] = sorted(files) if folder else files
    return {split: files for split, files in found.items() if files}


def put(folder: Path, made: Made) -> Path:
    """train/<class>/* and val/<class>/*."""
    for split, files in made.items():
        for file in files:
            path = folder / split / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.data)
    return folder


def put_hub(folder: Path, made: Made) -> Path:
    """Parquet shards as the hub serves them: two of train, one of validation."""
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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return put(tmp_path / "source", made())


# ----------------------------------------------------------------------------------------- packing, here


def packed(source: Path, root: Path, dry_run: bool = False, **options) -> str:
    """What the command says as it packs here."""
    said = io.StringIO()
    console = Console(file=said, highlight=False, markup=False, soft_wrap=True)
    prepare.prepare(source, root, replace(SMALL, **options), console, dry_run)
    return said.getvalue()


def refused(source: Path, root: Path, kind: type[UserError] = ConfigError, **options) -> str:
    """The one sentence with which packing ends."""
    with pytest.raises(kind) as error:
        packed(source, root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder in a folder, hidden ones too."""
    paths = sorted(folder.rglob("*")) if folder.exists() else []
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def cells(done: store.Store, split: str) -> list[bytes]:
    """The pictures of a split, from the places that its index names."""
    parts = [(done.root / part.file).read_bytes() for part in done.parts[split]]
    return [parts[row["part"]][row["offset"] :][: row["bytes"]] for row in done.index(split).to_pylist()]


def squares(done: store.Store, split: str) -> np.ndarray:
    """Its pictures as training sees them."""
    plan = done.plan
    return np.stack([pictures.stored(bytearray(cell), plan.size, plan.form).numpy() for cell in cells(done, split)])


def stop_before_the_end(monkeypatch: pytest.MonkeyPatch, source: Path, root: Path, **options) -> None:
    """All parts are packed, and nothing more."""

    def stop(self: Packing, advance: object) -> None:
        raise UserError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(Packing, "finish", stop)
        assert refused(source, root, UserError, **options) == "stopped"


def check_statistics(done: store.Store) -> None:
    """The mean image and the colours, against NumPy in float64 over the pictures as they are stored."""
    images = squares(done, "train").astype(np.float64)
    np.testing.assert_allclose(done.mean(), images.mean(0), rtol=1e-12)
    assert done.mean().dtype == np.float64
    pixels = images.reshape(-1, 3)
    covariance = np.cov(pixels, rowvar=False, bias=True)
    vectors, std = np.array(done.colors["vectors"]), np.array(done.colors["std"])
    np.testing.assert_allclose(std, np.sqrt(np.linalg.eigvalsh(covariance)[::-1]), rtol=1e-9)
    np.testing.assert_allclose(vectors.T @ np.diag(std**2) @ vectors, covariance, rtol=1e-9)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-12)
    assert (np.take_along_axis(vectors, np.abs(vectors).argmax(1)[:, None], 1) > 0).all()


# ----------------------------------------------------------------------------------------- what stands in a store


@pytest.mark.parametrize("form", ["raw", "jpeg"])
@pytest.mark.parametrize("layout", [put, put_hub])
def test_a_store_holds_its_source(tmp_path: Path, form: str, layout: Callable[[Path, Made], Path]):
    expected = made(folder=layout is put)
    said = packed(layout(tmp_path / "source", expected), tmp_path / "store", form=form, quality=80)
    done = store.need(tmp_path / "store")
    assert done.classes == (["n00", "n01", "n02"] if layout is put else ["tench", "goldfish", "great white shark"])
    assert done.pictures == {"train": 30, "val": 11}
    assert done.skipped == {"train": 0, "val": 0}
    assert said.endswith(f"done: {done.root}: 24x24 {form}, 3 classes, 30 train, 11 val\n")
    assert [len(parts) for parts in done.parts.values()] == [4, 2], "parts of 8 files"
    for split, files in expected.items():
        index = done.index(split)
        assert index.column_names == ["name", "label", "part", "offset", "bytes"]
        assert index["name"].to_pylist() == [file.name for file in files]
        assert index["label"].to_pylist() == [file.label for file in files]
        assert index["part"].to_pylist() == [i // PART for i in range(len(files))]
        for file, cell in zip(files, cells(done, split), strict=True):
            square = pictures.fit(pictures.decode(file.data), SIZE).contiguous()
            assert cell == (square.numpy().tobytes() if form == "raw" else pictures.encode_jpeg(square, 80))
        sizes = [
            sum(index["bytes"].to_numpy()[index["part"].to_numpy() == part])
            for part in range(index["part"][-1].as_py() + 1)
        ]
        assert sizes == [part.bytes for part in done.parts[split]], "no byte lies between pictures"
    check_statistics(done)
    assert (done.root / "skipped.csv").read_text() == "split,name,label,reason\n"


def test_what_lies_in_a_store(tmp_path: Path, source: Path):
    packed(source, tmp_path / "store", form="jpeg")
    parts = [f"train-0000{i}.jpegs" for i in range(4)] + [f"val-0000{i}.jpegs" for i in range(2)]
    tables = ["train.parquet", "val.parquet", "mean.npy", "skipped.csv", "plan.json", "store.json", ".lock"]
    assert set(contents(tmp_path / "store")) == {*parts, *tables}


def test_a_source_without_val(tmp_path: Path):
    source = put(tmp_path / "source", made(val=0)) / "train"
    packed(source, tmp_path / "store")
    done = store.need(tmp_path / "store")
    assert done.pictures == {"train": 30}
    assert not (done.root / "val.parquet").exists()


def test_hold_out(tmp_path: Path):
    source = put(tmp_path / "source", made(val=0)) / "train"
    packed(source, tmp_path / "store", hold_out=0.2)
    done = store.need(tmp_path / "store")
    assert done.pictures == {"train": 24, "val": 6}
    names = {split: done.index(split)["name"].to_pylist() for split in ("train", "val")}
    assert names["val"] == sources.find(source, 0.2).splits["val"].names
    assert sorted(names["train"] + names["val"]) == sorted(
        str(file.relative_to(source)) for file in source.rglob("*.*")
    )
    said = refused(source, tmp_path / "store", hold_out=0.3)
    assert "24 train, 6 val and is now image folder, 3 classes, 21 train, 9 val" in said


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_the_number_of_threads_changes_no_byte(tmp_path: Path, source: Path, form: str, workers: int):
    packed(source, tmp_path / "one", form=form, workers=3)
    packed(source, tmp_path / "other", form=form, workers=workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_names_of_all_kinds(tmp_path: Path):
    """A comma, quotes, a line break, letters of other scripts, brackets that rich would take for markup."""
    names = ["a,b.png", 'say "a".png', "two\nlines.png", "ümlaut и 猫.png", "[red]x[/].png"]
    expected = made(val=0)
    expected["train"] += [File(f"n01/{name}", 1, b"none") for name in names]
    root = tmp_path / "[bold]store[/nothing] :cat:"
    packed(put(tmp_path / "[/x]", expected), root, max_skipped=0.5)
    with (root / "skipped.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert {row[1] for row in rows[1:]} == {f"n01/{name}" for name in names}


def test_the_photographs(tmp_path: Path):
    """43 classes with a picture each; the smallest photograph has to be enlarged."""
    if not (SHARED / "ilsvrc-samples").is_dir():
        pytest.skip("needs the folder of sample photographs ../shared/data/ilsvrc-samples")
    packed(SHARED / "ilsvrc-samples", tmp_path / "store", size=256, form="raw")
    done = store.need(tmp_path / "store")
    folders = sorted(folder.name for folder in (SHARED / "ilsvrc-samples").iterdir())
    assert done.classes == folders
    assert done.pictures == {"train": 43}
    assert done.index("train")["label"].to_pylist() == list(range(43))
    check_statistics(done)
    for name, square in zip(done.index("train")["name"].to_pylist(), squares(done, "train"), strict=True):
        with Image.open(SHARED / "ilsvrc-samples" / name) as image:
            width, height = image.size
            scale = 256 / min(width, height)
            whole = image.convert("RGB").resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
        left, top = (whole.width - 256) // 2, (whole.height - 256) // 2
        beside = np.asarray(whole.crop((left, top, left + 256, top + 256)), np.float64)
        assert np.square(beside - square).mean() < 1, name


def test_tiny_imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """2,000 training and 500 validation pictures of the hub's files, with parts as large as they are."""
    if not (SHARED / "tiny-imagenet-100").is_dir():
        pytest.skip("needs the Parquet files of Tiny ImageNet in ../shared/data/tiny-imagenet-100")
    monkeypatch.setattr(store, "PART", 4096)
    source, rows = tmp_path / "source", {}
    source.mkdir()
    for name, count in (("train-00000-of-00002", 2000), ("val-00000-of-00001", 500)):
        with pq.ParquetFile(SHARED / "tiny-imagenet-100" / f"{name}.parquet") as shard:
            table = pa.Table.from_batches([next(shard.iter_batches(count))])
        split = name.partition("-")[0]
        pq.write_table(table, source / f"{split}-00000-of-00001.parquet", row_group_size=100)
        rows[split] = table
    packed(source, tmp_path / "store", size=64, form="raw")
    done = store.need(tmp_path / "store")
    assert done.pictures == {"train": 2000, "val": 500}
    assert len(done.classes) == 100
    assert done.classes[0].startswith("n0")
    check_statistics(done)
    for split, table in rows.items():
        assert done.index(split)["label"].equals(table["label"])
        for cell, square in zip(table["image"].to_pylist()[::50], squares(done, split)[::50], strict=True):
            image = np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB"))
            np.testing.assert_array_equal(square, image)  # 64 pixels already


# ----------------------------------------------------------------------------------------- stops of all kinds

COMMAND = """
import json, os, resource, signal, sys, time
from alexnet_pl import pictures, prepare, store
from alexnet_pl.prepare import trial

def die_at(steps):
    def count(event, args):
        nonlocal steps
        writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            steps -= 1
            if not steps:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)

def slow(function, seconds):
    return lambda *args: (time.sleep(seconds), function(*args))[1]

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        for stream in (1, 2):
            os.dup2(os.open(asked["streams"][stream - 1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.argv = ["prepare", *asked["arguments"]]
        store.PART, trial.TRIED = asked["part"], 4
        pictures.decode = slow(pictures.decode, asked["pause"])
        pictures.stored = slow(pictures.stored, asked["pause"])
        if asked["largest"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest"], asked["largest"]))
        if asked["die_at"]:
            die_at(asked["die_at"])
        prepare.main()
        sys.exit()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""The command in a process of its own, without a start of several seconds for each: one imports, and forks the others"""


class Commands:
    """python -m alexnet_pl.prepare, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.streams = [folder / "stdout", folder / "stderr"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, *arguments: object, pause: float = 0, die_at: int = 0, largest: int = 0) -> int:
        """Start one; returns its process.

        Args:
            pause: seconds for which each picture takes longer.
            die_at: kill it before it does so many things to files.
            largest: bytes that a file may have.
        """
        asked = {
            "arguments": [str(argument) for argument in arguments],
            "streams": [str(path) for path in self.streams],
        }
        asked |= {"part": PART, "pause": pause, "die_at": die_at, "largest": largest}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def end(self) -> tuple[int, str, str]:
        """Wait for it; exit code (or minus the signal), what it said and what it complained of."""
        code = int(self.process.stdout.readline())
        said, complained = (path.read_text() for path in self.streams)
        return code, said, complained

    def run(self, *arguments: object, **how) -> tuple[int, str, str]:
        self.start(*arguments, **how)
        return self.end()


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    started = Commands(tmp_path_factory.mktemp("commands"))
    yield started
    started.process.stdin.close()
    assert started.process.wait(20) == 0


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_killed_before_each_thing_it_does_to_files(tmp_path: Path, commands: Commands, form: str):
    """From the first folder to the last clearing up; then the same command makes what one that ran through made."""
    source, options = put(tmp_path / "source", made(14, 5)), ["--size", 16, "--form", form, "--workers", 1]
    assert commands.run(source, tmp_path / "through", *options)[0] == 0
    expected = contents(tmp_path / "through")
    codes = []
    while 0 not in codes:
        root = tmp_path / f"store{len(codes)}"
        codes.append(commands.run(source, root, *options, die_at=len(codes) + 1)[0])
        code, _, complained = commands.run(source, root, *options)
        assert (code, complained) == (0, ""), f"after a stop before step {len(codes)}"
        assert contents(root) == expected, f"after a stop before step {len(codes)}"
    assert set(codes[:-1]) == {-signal.SIGKILL}
    assert len(codes) > 30


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_random_moments(tmp_path: Path, commands: Commands, seed: int):
    """Twice each: some time after it began to pack, and some time after a part more was finished."""
    chance = random.Random(seed)
    source, options = put(tmp_path / "source", made(60, 20, seed)), ["--size", SIZE, "--form", "jpeg"]
    packed(source, tmp_path / "through", form="jpeg")
    root = tmp_path / "store"
    for begun in (
        (root / "plan.json").exists,
        lambda: len(list(root.glob("journal/*.parquet"))) > chance.randrange(10),
    ):
        child = commands.start(source, root, *options, pause=0.002)
        wait_for(begun)
        time.sleep(chance.uniform(0, 0.15))
        os.kill(child, signal.SIGKILL)
        assert commands.end()[0] == -signal.SIGKILL
    code, said, complained = commands.run(source, root, *options)
    assert (code, complained) == (0, "")
    assert "done: " in said
    assert contents(root) == contents(tmp_path / "through")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal(tmp_path: Path, commands: Commands, source: Path, number: signal.Signals):
    packed(source, tmp_path / "through", form="jpeg")
    root, options = tmp_path / "store", ["--size", SIZE, "--form", "jpeg"]
    child = commands.start(source, root, *options, pause=0.01)
    wait_for(lambda: list(root.glob("journal/*.parquet")))
    os.kill(child, number)
    code, said, complained = commands.end()
    assert code == 128 + number
    assert (
        complained == f"error: stopped by {number.name}; what is packed is kept: the same command continues from it\n"
    )
    assert "done" not in said
    assert not list(root.rglob("*.tmp"))
    kept = times(root / "journal")
    assert len(kept) > 1
    os.kill(commands.start(source, root, *options, pause=0.01), number)  # at once, wherever it is
    assert commands.end()[0] == 128 + number
    assert commands.run(source, root, *options)[0] == 0
    assert contents(root) == contents(tmp_path / "through")
