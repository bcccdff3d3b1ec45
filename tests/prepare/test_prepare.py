"""Packing a source into a store: what stands in it, stops of every kind at every moment, and every kind of refusal."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console
from torch import Tensor

from alexnet_pl import ROOT, console
from alexnet_pl.data import decode, sources, store
from alexnet_pl.errors import UserError
from alexnet_pl.prepare import cli, preview
from alexnet_pl.prepare.cli import Packing
from tests.helpers.prepare_command import Commands
from tests.helpers.processes import wait_until
from tests.helpers.sources import PART, SIZE, File, Made, image, made, put, put_hub
from tests.helpers.stores import (
    SMALL,
    cells,
    check_statistics,
    contents,
    packed,
    refused,
    squares,
    stop_before_the_end,
    times,
)

SHARED = ROOT / "../shared/data"


# ----------------------------------------------------------------------------------------- sources


# ----------------------------------------------------------------------------------------- packing, here


# ----------------------------------------------------------------------------------------- what stands in a store


@pytest.mark.parametrize("form", ["raw", "jpeg"])
@pytest.mark.parametrize("layout", [put, put_hub])
def test_a_store_holds_its_source(tmp_path: Path, form: str, layout: Callable[[Path, Made], Path]):
    expected = made(folder=layout is put)
    said = packed(layout(tmp_path / "source", expected), tmp_path / "store", form=form, quality=80)
    done = store.require(tmp_path / "store")
    assert done.classes == (["n00", "n01", "n02"] if layout is put else ["tench", "goldfish", "great white shark"])
    assert done.images == {"train": 30, "val": 11}
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
            square = decode.centre_square(decode.decode_image(file.data), SIZE).contiguous()
            assert cell == (square.numpy().tobytes() if form == "raw" else decode.encode_jpeg(square, 80))
        sizes = [
            sum(index["bytes"].to_numpy()[index["part"].to_numpy() == part])
            for part in range(index["part"][-1].as_py() + 1)
        ]
        assert sizes == [part.bytes for part in done.parts[split]], "no byte lies between images"
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
    done = store.require(tmp_path / "store")
    assert done.images == {"train": 30}
    assert not (done.root / "val.parquet").exists()


def test_hold_out(tmp_path: Path):
    source = put(tmp_path / "source", made(val=0)) / "train"
    packed(source, tmp_path / "store", hold_out=0.2)
    done = store.require(tmp_path / "store")
    assert done.images == {"train": 24, "val": 6}
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


@pytest.mark.slow
def test_names_of_all_kinds(tmp_path: Path, commands: Commands):
    """A comma, quotes, a line break, letters of other scripts, brackets that rich would take for markup."""
    names = ["a,b.png", 'say "a".png', "two\nlines.png", "ümlaut и 猫.png", "[red]x[/].png"]
    expected = made(val=0)
    expected["train"] += [File(f"n01/{name}", 1, b"none") for name in names]
    root = tmp_path / "[bold]store[/nothing] :cat:"
    code, said, complained = commands.run(put(tmp_path / "[/x]", expected), root, "--size", SIZE, "--max-skipped", 0.5)
    assert (code, complained) == (0, "")
    assert f"done: {root}: " in said
    with (root / "skipped.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert {row[1] for row in rows[1:]} == {f"n01/{name}" for name in names}


def test_the_photographs(tmp_path: Path):
    """43 classes with a image each; the smallest photograph has to be enlarged."""
    if not (SHARED / "ilsvrc-samples").is_dir():
        pytest.skip("needs the folder of sample photographs ../shared/data/ilsvrc-samples")
    packed(SHARED / "ilsvrc-samples", tmp_path / "store", size=256, form="raw")
    done = store.require(tmp_path / "store")
    folders = sorted(folder.name for folder in (SHARED / "ilsvrc-samples").iterdir())
    assert done.classes == folders
    assert done.images == {"train": 43}
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
    """2,000 training and 500 validation images of the hub's files, with parts as large as they are."""
    if not (SHARED / "tiny-imagenet-100").is_dir():
        pytest.skip("needs the Parquet files of Tiny ImageNet in ../shared/data/tiny-imagenet-100")
    monkeypatch.setattr(store, "FILES_PER_SHARD", 4096)
    source, rows = tmp_path / "source", {}
    source.mkdir()
    for name, count in (("train-00000-of-00002", 2000), ("val-00000-of-00001", 500)):
        with pq.ParquetFile(SHARED / "tiny-imagenet-100" / f"{name}.parquet") as shard:
            table = pa.Table.from_batches([next(shard.iter_batches(count))])
        split = name.partition("-")[0]
        pq.write_table(table, source / f"{split}-00000-of-00001.parquet", row_group_size=100)
        rows[split] = table
    packed(source, tmp_path / "store", size=64, form="raw")
    done = store.require(tmp_path / "store")
    assert done.images == {"train": 2000, "val": 500}
    assert len(done.classes) == 100
    assert done.classes[0].startswith("n0")
    check_statistics(done)
    for split, table in rows.items():
        assert done.index(split)["label"].equals(table["label"])
        for cell, square in zip(table["image"].to_pylist()[::50], squares(done, split)[::50], strict=True):
            image = np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB"))
            np.testing.assert_array_equal(square, image)  # 64 pixels already


# ----------------------------------------------------------------------------------------- stops of all kinds


@pytest.mark.slow
def test_killed_before_each_thing_it_does_to_files(tmp_path: Path, commands: Commands):
    """From the first folder to the last clearing up; then the same command makes what one that ran through made."""
    source, options = put(tmp_path / "source", made(9, 5)), ["--size", 16, "--form", "jpeg", "--workers", 1]
    assert commands.run(source, tmp_path / "through", *options)[0] == 0
    expected = contents(tmp_path / "through")
    codes: list[int] = []
    while 0 not in codes:
        root = tmp_path / f"store{len(codes)}"
        codes.append(commands.run(source, root, *options, die_at=len(codes) + 1)[0])
        code, _, complained = commands.run(source, root, *options)
        assert (code, complained) == (0, ""), f"after a stop before step {len(codes)}"
        assert contents(root) == expected, f"after a stop before step {len(codes)}"
    assert set(codes[:-1]) == {-signal.SIGKILL}
    assert len(codes) > 30


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_random_moments(tmp_path: Path, commands: Commands, seed: int):
    """Twice each: some time after it began to pack, and some time after a part more was finished."""
    chance = random.Random(seed)
    source, options = put(tmp_path / "source", made(60, 20, seed)), ["--size", SIZE, "--form", "jpeg"]
    assert commands.run(source, tmp_path / "through", *options)[0] == 0
    root, pages = tmp_path / "store", chance.randrange(9)
    for begun in ((root / "plan.json").exists, lambda: len(list(root.glob("journal/*.parquet"))) > pages):
        child = commands.start(source, root, *options, pause=0.004)
        wait_until(begun)
        time.sleep(chance.uniform(0, 0.2))
        with suppress(ProcessLookupError):  # the last moments are these after its end
            os.kill(child, signal.SIGKILL)
        assert commands.end()[0] in (-signal.SIGKILL, 0)
    code, said, complained = commands.run(source, root, *options)
    assert (code, complained) == (0, "")
    assert f"{root}: 24x24" in said or f"{root} is finished already" in said
    assert contents(root) == contents(tmp_path / "through")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal(tmp_path: Path, commands: Commands, source: Path, number: signal.Signals):
    root, options = tmp_path / "store", ["--size", SIZE, "--form", "jpeg"]
    assert commands.run(source, tmp_path / "through", *options)[0] == 0
    child = commands.start(source, root, *options, pause=0.03)
    wait_until(lambda: list(root.glob("journal/*.parquet")))
    os.kill(child, number)
    code, said, complained = commands.end()
    assert code == 128 + number
    assert (
        complained == f"error: stopped by {number.name}; what is packed is kept: the same command continues from it\n"
    )
    assert "done" not in said
    assert not list(root.rglob("*.tmp"))
    kept = times(root / "journal")
    child = commands.start(source, root, *options, pause=0.03)
    wait_until(lambda: "found" in commands.streams[0].read_text())  # and no more than that
    os.kill(child, number)
    assert commands.end()[0] == 128 + number
    assert kept.items() <= times(root / "journal").items()
    assert commands.run(source, root, *options)[0] == 0
    assert contents(root) == contents(tmp_path / "through")


# ----------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_a_finished_store_is_left_as_it_is(tmp_path: Path, source: Path, form: str):
    root = tmp_path / "store"
    packed(source, root, form=form)
    before = contents(root), times(root)
    for options in ({}, {"dry_run": True}, {"workers": 1}, {"max_skipped": 0.5}):
        said = packed(source, root, form=form, **options)
        assert said.splitlines()[-1] == f"{root} is finished already: 24x24 {form}, 3 classes, 30 train, 11 val"
        assert (contents(root), times(root)) == before


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    root = tmp_path / "store"
    assert "store: 24x24 pixels" in packed(source, root, dry_run=True)
    assert not root.exists()
    stop_before_the_end(monkeypatch, source, root)
    before = contents(root), times(root)
    packed(source, root, dry_run=True)
    assert (contents(root), times(root)) == before


def test_what_is_packed_is_not_packed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    root = tmp_path / "store"
    stop_before_the_end(monkeypatch, source, root)
    before = {path: path.stat().st_mtime_ns for path in root.glob("*.raw")}
    packed(source, root)
    assert {path: path.stat().st_mtime_ns for path in root.glob("*.raw")} == before


PAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda page: b"",
    "half": lambda page: page[: len(page) // 2],
    "zeros, as after a power cut": lambda page: bytes(len(page)),
}


@pytest.mark.parametrize("damage", PAGES.values(), ids=PAGES)
def test_a_damaged_page_of_the_journal_costs_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path, damage: Callable[[bytes], bytes]
):
    root = tmp_path / "store"
    packed(source, tmp_path / "through")
    stop_before_the_end(monkeypatch, source, root)
    page = root / "journal" / "train-00001.parquet"
    page.write_bytes(damage(page.read_bytes()))
    packed(source, root)
    assert contents(root) == contents(tmp_path / "through")


def flip(path: Path, at: float = 0.5) -> None:
    """Change a byte at this share of a file."""
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 0x40
    path.write_bytes(data)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


PARTS: dict[str, Callable[[Path], Any]] = {
    "a byte": flip,
    "its first byte, without which it is no image": lambda path: flip(path, 0),
    "cut short": halve,
    "missing": Path.unlink,
}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["raw", "jpeg"])
@pytest.mark.parametrize("damage", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_part_that_changes_after_it_was_packed_is_packed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path, form: str, damage: Callable[[Path], Any], split: str
):
    """By a bad disk, say, or another program: no store with it is called finished."""
    root = tmp_path / "store"
    packed(source, tmp_path / "through", form=form)
    part = root / store.require(tmp_path / "through").parts[split][-1].file
    finish = Packing.finish

    def damage_and_finish(self: Packing, advance: Callable[[int], None]) -> store.Store:
        damage(part)
        return finish(self, advance)

    with monkeypatch.context() as patch:
        patch.setattr(Packing, "finish", damage_and_finish)
        said = refused(source, root, UserError, form=form)
    assert str(part) in said
    assert "the same command packs it anew" in said
    assert not (root / "store.json").exists()
    packed(source, root, form=form)
    assert contents(root) == contents(tmp_path / "through")


def test_a_store_that_is_only_locked_yet_is_begun(tmp_path: Path, source: Path):
    """What a run leaves that is killed before its plan is written."""
    root = tmp_path / "store"
    root.mkdir()
    (root / ".lock").touch()
    (root / "plan.json.12345.tmp").write_text("{")
    packed(source, root)
    assert "plan.json.12345.tmp" not in contents(root)


# ----------------------------------------------------------------------------------------- verify


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_verify(tmp_path: Path, commands: Commands, source: Path, form: str):
    root = tmp_path / "store"
    packed(source, root, form=form)
    before = contents(root), times(root)
    code, said, complained = commands.run("--verify", root)
    assert (code, complained) == (0, "")
    assert said == f"{root} is sound: 24x24 {form}, 3 classes, 30 train, 11 val\n"
    assert (contents(root), times(root)) == before
    for name in [f"train-00003.{'raw' if form == 'raw' else 'jpegs'}", "val.parquet", "train.parquet", "mean.npy"]:
        for damage, word in ((flip, "is damaged"), (halve, "bytes instead of"), (Path.unlink, "is missing")):
            whole = (root / name).read_bytes()
            damage(root / name)
            code, said, complained = commands.run("--verify", root)
            (sentence,) = complained.splitlines()
            assert (code, said) == (1, "")
            assert sentence.startswith(f"error: {root / name} {word if damage is not halve else 'has '}")
            assert word in sentence
            assert sentence.endswith("copy the store again, or remove it and prepare it anew")
            (root / name).write_bytes(whole)
    assert commands.run("--verify", root)[0] == 0


def test_verify_of_what_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Commands, source: Path):
    stop_before_the_end(monkeypatch, source, tmp_path / "store")
    for root, said in ((tmp_path / "store", "is not finished"), (source, "is no packed store"), ("no", "is no folder")):
        code, _, complained = commands.run("--verify", root)
        assert code == 1
        assert said in complained
        assert len(complained.splitlines()) == 1


# ----------------------------------------------------------------------------------------- refusals


def other_images(source: Path) -> dict[str, Any]:
    """Names and labels stay."""
    put(source, made(seed=1))
    return {}


def other_classes(source: Path) -> dict[str, Any]:
    for split in ("train", "val"):
        (source / split / "n02").rename(source / split / "n03")
    return {}


def one_more(source: Path) -> dict[str, Any]:
    shutil.copy(source / "train/n00/000.JPEG", source / "train/n00/more.JPEG")
    return {}


def one_less(source: Path) -> dict[str, Any]:
    (source / "val/n00/000.JPEG").unlink()
    return {}


def one_renamed(source: Path) -> dict[str, Any]:
    (source / "val/n00/003.JPEG").rename(source / "val/n00/004.JPEG")
    return {}


def one_moved(source: Path) -> dict[str, Any]:
    (source / "train/n00/000.JPEG").rename(source / "train/n01/000.JPEG")
    return {}


CHANGES: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "other images": (other_images, "fingerprint was "),
    "other classes": (other_classes, "fingerprint was "),
    "a file more": (
        one_more,
        "source was image folder, 3 classes, 30 train, 11 val and is now image folder, 3 classes, 31",
    ),
    "a file less": (one_less, "30 train, 10 val"),
    "a file renamed": (one_renamed, "fingerprint was "),
    "a file in another class": (one_moved, "fingerprint was "),
    "size": (lambda source: {"size": 32}, "size was 24 and is now 32"),
    "form": (lambda source: {"form": "raw"}, "form was jpeg and is now raw"),
    "quality": (lambda source: {"quality": 91}, "quality was 90 and is now 91"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "begun"])
def test_another_store_in_its_place_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    change: Callable[[Path], dict[str, Any]],
    said: str,
    finished: bool,
):
    root = tmp_path / "store"
    if finished:
        packed(source, root, form="jpeg")
    else:
        stop_before_the_end(monkeypatch, source, root, form="jpeg")
    before = contents(root), times(root)
    sentence = refused(source, root, **({"form": "jpeg"} | change(source)))
    assert sentence.startswith(f"{root} holds a store of another source or with other options (")
    assert sentence.endswith("): give this one a folder of its own, or remove that one")
    assert said in sentence
    assert (contents(root), times(root)) == before


def test_other_labels_under_the_same_names_are_another_source(tmp_path: Path):
    expected = made(folder=False)
    packed(put_hub(tmp_path / "source", expected), tmp_path / "store")
    first, second, *others = expected["train"]
    swapped = [first._replace(label=second.label), second._replace(label=first.label), *others]
    said = refused(put_hub(tmp_path / "swapped", expected | {"train": swapped}), tmp_path / "store")
    assert "fingerprint was " in said


def other_files(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/thesis.tex").write_text("years of work")


def a_file(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("years of work")


def no_source(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "source")


def no_images(tmp_path: Path) -> None:
    for file in tmp_path.rglob("*.JPEG"):
        file.write_text("404")


def no_utf8(tmp_path: Path) -> None:
    with open(bytes(tmp_path / "source/train/n00") + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"")


def plan(**keys: object) -> Callable[[Path], None]:
    """A plan as a later version might write it."""

    def write(tmp_path: Path) -> None:
        (tmp_path / "store").mkdir()
        (tmp_path / "store/plan.json").write_text(json.dumps(keys) if keys else '{"size": 2')

    return write


MISTAKES: dict[str, tuple[Callable[[Path], Any], list[str], str]] = {
    "other files": (other_files, [], "store holds other files: give the store a folder of its own"),
    "a file": (a_file, [], "store is a file: give the store a folder of its own"),
    "no source": (no_source, [], "source does not exist"),
    "no image is one": (no_images, [], "none of the files that were tried is a image: is this the right folder?"),
    "a name of old": (no_utf8, [], "'n00/caf\\udce9.jpg' is not UTF-8"),
    "half a plan": (plan(), [], "plan.json is not JSON"),
    "a plan of other keys": (plan(edge=24), [], "plan.json is damaged, or of another version of this package: remove"),
    "too small": (str, ["--size", "7"], "--size 7 must lie between 8 and 4096 pixels (2012: 256)"),
    "too large": (str, ["--size", "4097"], "--size 4097 must lie between 8 and 4096 pixels (2012: 256)"),
    "quality": (str, ["--quality", "0"], "--quality 0 must lie between 1 and 100"),
    "quality above": (str, ["--quality", "101"], "--quality 101 must lie between 1 and 100"),
    "hold_out": (str, ["--hold-out", "-0.1"], "--hold-out -0.1 is a share: it must be at least 0 and below 1"),
    "hold_out of no number": (str, ["--hold-out", "nan"], "--hold-out nan is a share"),
    "hold_out of all": (str, ["--hold-out", "1"], "--hold-out 1.0 is a share: it must be at least 0 and below 1"),
    "hold_out beside val": (str, ["--hold-out", "0.1"], "has a val split of 11 images: leave out hold_out=0.1"),
    "max_skipped": (str, ["--max-skipped", "1.5"], "--max-skipped 1.5 is a share: it must be at least 0 and below 1"),
    "workers": (str, ["--workers", "0"], "--workers 0 must be at least 1"),
}


@pytest.mark.parametrize(("prepared", "options", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told_in_one_sentence_and_nothing_is_written(
    tmp_path: Path, commands: Commands, source: Path, prepared: Callable[[Path], Any], options: list[str], said: str
):
    prepared(tmp_path)
    before = contents(tmp_path)
    code, _, complained = commands.run(source, tmp_path / "store", *options)
    (sentence,) = complained.splitlines()
    assert code == 1
    assert sentence.startswith("error: ")
    assert said in sentence
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "arguments", [["source"], ["source", "store", "--form", "png"], ["source", "store", "--size", "x"]]
)
def test_what_is_no_command_is_told_with_the_usage(commands: Commands, arguments: list[str]):
    code, said, complained = commands.run(*arguments)
    assert (code, said) == (2, "")
    assert complained.startswith("usage: python -m alexnet_pl.prepare")
    assert "error: " in complained.splitlines()[-1]


def test_help(commands: Commands):
    code, said, complained = commands.run("--help")
    assert (code, complained) == (0, "")
    assert "--max-skipped" in said


def test_a_store_among_the_classes_is_refused(tmp_path: Path):
    """It would be a class when it is packed on; beside train/ it is none."""
    source = put(tmp_path / "source", made(val=0))
    said = refused(source / "train", source / "train" / "store")
    assert "lies among the classes of" in said
    assert not (source / "train" / "store").exists()
    packed(source, source / "store")
    assert "is finished already" in packed(source, source / "store")


def test_two_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Commands, source: Path):
    monkeypatch.setattr(preview, "TRIED", 4)  # as the other does it
    root = tmp_path / "store"
    child = commands.start(source, root, "--size", SIZE, "--form", "raw", pause=0.03)
    wait_until(lambda: list(root.glob("journal/*.parquet")))
    said = refused(source, root, form="raw")
    os.kill(child, signal.SIGKILL)
    assert commands.end()[0] == -signal.SIGKILL
    assert said == f"another process is packing into {root}: wait for it, or stop it"
    packed(source, root, form="raw")


def test_a_damaged_done_mark_is_told(tmp_path: Path, source: Path):
    root = tmp_path / "store"
    packed(source, root)
    mark = root / "store.json"
    whole = json.loads(mark.read_text())
    for text, said in (
        ('{"plan', f"{mark} is not JSON"),
        (json.dumps({"plan": 3}), f"{mark} is damaged, or of another version of this package: remove {root} and"),
        (json.dumps(whole | {"more": 1}), f"{mark} is damaged, or of another version of this package"),
        (json.dumps(whole | {"plan": whole["plan"] | {"version": 1}}), f"{root} is a store of version 1, not 2"),
    ):
        mark.write_text(text)
        assert said in refused(source, root)


def test_too_small_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    full = shutil.disk_usage(tmp_path)._replace(
        free=70_000
    )  # the store needs 41 * 24 * 24 * 3 bytes, and the half fits
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda place: full)
        said = refused(source, tmp_path / "store", form="raw")
        assert said == f"{tmp_path} has 70 kB free, and the store needs about 70.8 kB: give another disk"
        assert not (tmp_path / "store").exists()
    stop_before_the_end(monkeypatch, source, tmp_path / "store", form="raw")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full._replace(free=10))
    packed(source, tmp_path / "store", form="raw")  # what is there already needs no more room


def test_a_disk_that_fills_up(tmp_path: Path, commands: Commands, source: Path):
    root, options = tmp_path / "store", ["--size", 40, "--form", "raw"]
    code, _, complained = commands.run(source, root, *options, largest=30_000)  # a part has 38,400 bytes
    assert code == 1
    assert complained == f"error: {root}: File too large\n"
    assert not list(root.rglob("*.tmp"))
    assert commands.run(source, root, *options)[0] == 0
    assert commands.run(source, tmp_path / "through", *options)[0] == 0
    assert contents(root) == contents(tmp_path / "through")


def test_all_threads_stop_when_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    """The first image of the second part fails; what works at the first part ends it no more."""
    monkeypatch.setattr(preview, "TRIED", 2)
    failed = (source / "train" / made()["train"][PART].name).read_bytes()
    true, after = decode.decode_image, []

    def slow(data: bytes) -> Tensor:
        if data == failed:
            raise OSError(5, "Input/output error", "disk")
        after.append(data)
        time.sleep(0.05)
        return true(data)

    monkeypatch.setattr(decode, "decode_image", slow)
    with pytest.raises(OSError, match="Input/output error"):
        packed(source, tmp_path / "store", workers=2)
    assert len(after) <= 4 + 3, "4 that were tried"
    assert not list((tmp_path / "store").rglob("*.tmp"))


# ----------------------------------------------------------------------------------------- files without a image

BAD = {0: b"", 3: b"<html>", 9: image(np.random.default_rng(3), "PNG")[:200], 20: None}
"""Which files of train are damaged, and how; None: 41 times as long as wide"""


def with_damage(chosen: dict[int, bytes | None] = BAD) -> tuple[Made, list[int]]:
    expected = made(train=60)
    long = io.BytesIO()
    Image.new("RGB", (410, 10)).save(long, "PNG")
    for i, data in chosen.items():
        expected["train"][i] = expected["train"][i]._replace(data=long.getvalue() if data is None else data)
    return expected, [i for i in range(60) if i not in chosen]


def test_what_is_skipped_is_listed_and_the_others_stay_aligned(tmp_path: Path):
    expected, sound = with_damage()
    said = packed(put(tmp_path / "source", expected), tmp_path / "store", max_skipped=0.06)
    assert said.endswith("3 classes, 56 train, 11 val, 4 skipped (skipped.csv)\n")
    done = store.require(tmp_path / "store")
    assert done.skipped == {"train": 4, "val": 0}
    assert done.images == {"train": 56, "val": 11}
    names = [file.name for file in expected["train"]]
    assert (tmp_path / "store/skipped.csv").read_text().splitlines() == [
        "split,name,label,reason",
        f"train,{names[0]},0,an empty file",
        f"train,{names[3]},0,not a image (it begins with b'<html>')",
        f"train,{names[9]},0,image file is truncated",
        f'train,{names[20]},1,"410x10 pixels, more than 40 times as long as wide"',
    ]
    index = done.index("train")
    assert index["name"].to_pylist() == [names[i] for i in sound]
    assert index["label"].to_pylist() == [expected["train"][i].label for i in sound]
    assert index["part"].to_pylist() == [i // PART for i in sound], "parts count the source's files"
    for i, cell in zip(sound, cells(done, "train"), strict=True):
        assert (
            cell
            == decode.centre_square(decode.decode_image(expected["train"][i].data), SIZE).contiguous().numpy().tobytes()
        )
    check_statistics(done)


@pytest.mark.parametrize("workers", [1, 4])
def test_too_many_skipped_and_then_more_allowed(tmp_path: Path, workers: int):
    source, root = put(tmp_path / "source", with_damage()[0]), tmp_path / "store"
    said = refused(source, root, max_skipped=0.04, workers=workers)  # of 71 files two
    found = [row for row in (root / "skipped.csv").read_text().splitlines() if row.startswith("train,")]
    assert len(found) in (3, 4)
    assert said == (
        f"{len(found)} files gave no image, more than the 2 that --max-skipped allows; which and why stands in "
        f"{root / 'skipped.csv'}: mend the source and run the same command again, or allow more"
    )
    assert not (root / "store.json").exists()
    assert not list(root.rglob("*.tmp"))
    refused(source, root, max_skipped=0.04)
    packed(source, root, max_skipped=0.06)
    packed(source, tmp_path / "through", max_skipped=0.06)
    assert contents(root) == contents(tmp_path / "through")


def test_too_many_skipped_and_then_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Files that are not among those that tell one source from another."""
    monkeypatch.setattr(preview, "TRIED", 2)
    expected, _ = with_damage(dict.fromkeys(range(20, 30), b"damaged"))
    source, root = put(tmp_path / "source", expected), tmp_path / "store"
    assert "10 files gave no image" in refused(source, root, workers=1, max_skipped=0.12)
    put(source, made(train=60))
    packed(source, root, max_skipped=0.12)
    packed(source, tmp_path / "through")
    assert contents(root) == contents(tmp_path / "through")


def test_a_split_without_a_image(tmp_path: Path):
    expected = made(train=60, val=3)
    expected["val"] = [file._replace(data=b"none") for file in expected["val"]]
    said = refused(put(tmp_path / "source", expected), tmp_path / "store", max_skipped=0.5)
    assert said.startswith(f"no file of val gave a image, see {tmp_path / 'store/skipped.csv'}: mend the source")
    assert (tmp_path / "store/skipped.csv").read_text().count("val,") == 3
    assert not (tmp_path / "store/store.json").exists()


# ----------------------------------------------------------------------------------------- what is told


def memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let this machine have so many bytes."""
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": size}.__getitem__)


def test_auto_is_raw_where_half_of_the_memory_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    needed = 41 * SIZE * SIZE * 3
    for name, size, form in (("small", 2 * needed, "jpeg"), ("large", 2 * needed + 2, "raw")):
        memory(monkeypatch, size)
        packed(source, tmp_path / name, form="auto")
        assert store.require(tmp_path / name).plan.form == form


@pytest.mark.parametrize(("then", "form"), [(10**3, "raw"), (10**12, "jpeg")])
def test_auto_goes_on_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path, then: int, form: str):
    memory(monkeypatch, 10**15 // then)
    stop_before_the_end(monkeypatch, source, tmp_path / "store", form="auto")
    memory(monkeypatch, then)
    for _ in range(2):
        packed(source, tmp_path / "store", form="auto")
        assert store.require(tmp_path / "store").plan.form == form


def test_the_plan_that_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(0, 0, 5 * 10**9))
    found, raw, took = packed(source, tmp_path / "store", True, form="raw", workers=3).splitlines()
    assert found == "found: image folder, 3 classes, 30 train, 11 val"
    assert raw.startswith("store: 24x24 pixels, raw, about 70.8 kB (--form jpeg: ")
    assert raw.endswith(f"; 5 GB are free in {tmp_path}")
    assert took.startswith("time:  about 0:00:0")
    assert took.endswith(" on 3 cores, by 41 images that were tried")
    jpeg = packed(source, tmp_path / "store", True, form="jpeg", quality=75).splitlines()[1]
    assert jpeg.startswith("store: 24x24 pixels, JPEG of quality 75, about ")
    assert "(--form raw: 70.8 kB)" in jpeg
    packed(source, tmp_path / "store", form="jpeg", quality=75)
    really = sum(path.stat().st_size for path in (tmp_path / "store").glob("*.jpegs"))
    assert preview.size(really) in jpeg, "as all were tried"


def test_a_hint_for_small_images(tmp_path: Path, source: Path):
    assert "hint:" not in packed(source, tmp_path / "store", True, size=48)
    (hint,) = [line for line in packed(source, tmp_path / "store", True, size=256).splitlines() if "hint:" in line]
    sides = sorted(min(Image.open(path).size) for path in source.rglob("*.JPEG"))
    middle = sides[len(sides) // 2]
    assert hint == (
        f"hint:  most images have only {middle} pixels: with --size {middle} the store is "
        f"{(256 / middle) ** 2:.0f} times smaller, and training enlarges them (data.resize)"
    )


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (196608, "197 kB"), (2.5e11, "250 GB"), (1e16, "1e+04 TB")],
)
def test_bytes_as_people_say_them(number: float, said: str):
    assert preview.size(number) == said


def test_long_work_shows_in_a_log_how_long_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    assert "left" not in packed(source, tmp_path / "quick")
    monkeypatch.setattr(console, "EVERY", 0)
    said = packed(source, tmp_path / "store", workers=1).splitlines()
    assert "  packing: 41 of 41, 0:00:00 left" in said
    assert [line for line in said if line.startswith("  packing: 17 of 41, 0:00:0")]
    assert [line for line in said if line.startswith("  checking: 17 of 41, 0:00:0")]


def test_what_was_packed_before_does_not_count_as_speed(monkeypatch: pytest.MonkeyPatch):
    """500 of 1,000 are there already; then four take 20 seconds."""
    said, now = io.StringIO(), [1000.0]
    monkeypatch.setattr(console.time, "perf_counter", lambda: now[0])
    with console.Meter("packing", 1000, Console(file=said)) as counted:
        counted.advance(500)
        for _ in range(4):
            now[0] += 5
            counted.advance(1)
    assert said.getvalue() == "  packing: 503 of 1,000, 0:41:25 left\n"


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    monkeypatch.setattr(console, "EVERY", 0)
    said = io.StringIO()
    cli.prepare(source, tmp_path / "store", SMALL, Console(file=said, force_terminal=True, width=120))
    assert "packing" in said.getvalue()
    assert "41/41" in said.getvalue()
    assert "  packing: " not in said.getvalue()
