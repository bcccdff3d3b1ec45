"""What stands in a packed dataset, and how it is verified."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torchvision.transforms import v2

from alexnet_pl import ROOT
from alexnet_pl.data import decode, sources, store
from tests.helpers.images import encode, smooth_image
from tests.helpers.prepare_command import Commands
from tests.helpers.runs import run_config
from tests.helpers.sources import PART, SIZE, File, Files, draw_source, write_folders, write_shards
from tests.helpers.stores import (
    cells,
    check_statistics,
    contents,
    flip,
    halve,
    pack,
    refusal,
    squares,
    stop_before_the_end,
    times,
)

SHARED = ROOT / "../shared/data"


@pytest.mark.parametrize("form", ["raw", "jpeg"])
@pytest.mark.parametrize("layout", [write_folders, write_shards])
def test_a_store_holds_its_source(tmp_path: Path, form: str, layout: Callable[[Path, Files], Path]):
    expected = draw_source(folder=layout is write_folders)
    said = pack(layout(tmp_path / "source", expected), tmp_path / "store", form=form, quality=80)
    done = store.require(tmp_path / "store")
    assert done.classes == (
        ["n00", "n01", "n02"] if layout is write_folders else ["tench", "goldfish", "great white shark"]
    )
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
    pack(source, tmp_path / "store", form="jpeg")
    parts = [f"train-0000{i}.jpegs" for i in range(4)] + [f"val-0000{i}.jpegs" for i in range(2)]
    tables = ["train.parquet", "val.parquet", "mean.npy", "skipped.csv", "plan.json", "store.json", ".lock"]
    assert set(contents(tmp_path / "store")) == {*parts, *tables}


def test_a_source_without_val(tmp_path: Path):
    source = write_folders(tmp_path / "source", draw_source(val=0)) / "train"
    pack(source, tmp_path / "store")
    done = store.require(tmp_path / "store")
    assert done.images == {"train": 30}
    assert not (done.root / "val.parquet").exists()


def test_a_store_is_named_once(tmp_path: Path):
    """By --name, or the source's folder, whole; both may be left out or renamed later."""
    source = write_folders(tmp_path / "photos.v2", draw_source())
    pack(source, tmp_path / "store")
    pack(source, tmp_path / "named", name="mine")
    source = source.rename(tmp_path / "renamed")
    for root, name in (("store", "photos.v2"), ("named", "mine")):
        assert "is finished already" in pack(source, tmp_path / root)
        assert store.require(tmp_path / root).plan.name == name


def test_hold_out(tmp_path: Path):
    source = write_folders(tmp_path / "source", draw_source(val=0)) / "train"
    pack(source, tmp_path / "store", hold_out=0.2)
    done = store.require(tmp_path / "store")
    assert done.images == {"train": 24, "val": 6}
    names = {split: done.index(split)["name"].to_pylist() for split in ("train", "val")}
    assert names["val"] == sources.find(source, 0.2).splits["val"].names
    assert sorted(names["train"] + names["val"]) == sorted(
        str(file.relative_to(source)) for file in source.rglob("*.*")
    )
    said = refusal(source, tmp_path / "store", hold_out=0.3)
    assert "24 train, 6 val and is now image folder, 3 classes, 21 train, 9 val" in said


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_the_number_of_threads_changes_no_byte(tmp_path: Path, source: Path, form: str, workers: int):
    pack(source, tmp_path / "one", form=form, workers=3)
    pack(source, tmp_path / "other", form=form, workers=workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


@pytest.mark.slow
def test_names_of_all_kinds(tmp_path: Path, commands: Commands):
    """A comma, quotes, a line break, letters of other scripts, brackets that rich would take for markup."""
    names = ["a,b.png", 'say "a".png', "two\nlines.png", "ümlaut и 猫.png", "[red]x[/].png"]
    expected = draw_source(val=0)
    expected["train"] += [File(f"n01/{name}", 1, b"none") for name in names]
    root = tmp_path / "[bold]store[/nothing] :cat:"
    code, said, complained = commands.run(
        write_folders(tmp_path / "[/x]", expected), root, "--size", SIZE, "--max-skipped", 0.5
    )
    assert (code, complained) == (0, "")
    assert f"done: {root}: " in said
    with (root / "skipped.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert {row[1] for row in rows[1:]} == {f"n01/{name}" for name in names}


def test_the_photographs(tmp_path: Path):
    """43 classes with an image each; the smallest photograph has to be enlarged."""
    if not (SHARED / "ilsvrc-samples").is_dir():
        pytest.skip("needs the folder of sample photographs ../shared/data/ilsvrc-samples")
    pack(SHARED / "ilsvrc-samples", tmp_path / "store", size=256, form="raw")
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


@pytest.mark.slow
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
    pack(source, tmp_path / "store", size=64, form="raw")
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


# ---------------------------------------------------------------------------------------- verify


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_verify(tmp_path: Path, commands: Commands, source: Path, form: str):
    root = tmp_path / "store"
    pack(source, root, form=form)
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
        assert "data.root" not in complained  # which is no argument of this command
        assert len(complained.splitlines()) == 1


@pytest.mark.parametrize("resize", ["centre", "torchvision", "warp"])
def test_images_become_squares_as_they_are_asked_to(resize: str, tmp_path: Path):
    """Odd margins, by torchvision's own functions; a run on the store knows how its images were made."""
    source = draw_source(4, 2)
    for number, width in enumerate((72, 78, 74)):  # made 36, 39 and 37 wide: margins of 12, 15 and 13
        data = encode(smooth_image(width, 48, noise=30), "PNG")
        source["train"][number] = source["train"][number]._replace(data=data)
    pack(write_folders(tmp_path / "source", source), tmp_path / "store", form="raw", resize=resize)
    done = store.require(tmp_path / "store")
    for square, file in zip(squares(done, "train"), source["train"], strict=True):
        image = decode.decode_image(file.data)
        if resize == "warp":
            expected = v2.functional.resize(image, [SIZE, SIZE], antialias=True)
        elif resize == "torchvision":
            expected = v2.functional.center_crop(v2.functional.resize(image, [SIZE], antialias=True), [SIZE])
        else:
            expected = decode.centre_square(image, SIZE).permute(2, 0, 1)
        np.testing.assert_array_equal(square, expected.permute(1, 2, 0))
    assert done.plan.squares == resize
    cfg = run_config("model=alexnet", "data=packed", f"data.root={tmp_path / 'store'}", "data.resize=256")
    assert cfg.data.squares.name == resize
    assert cfg.data.store is not None
    assert cfg.data.store.endswith(f"-{resize}") == (resize != "centre")
    if resize == "warp":
        assert "squares was warp and is now centre" in refusal(tmp_path / "source", tmp_path / "store", form="raw")
