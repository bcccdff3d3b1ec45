"""Files without an image: skipped, listed, and too many of them refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_pl.data import decode, pixel_stats, store
from alexnet_pl.prepare import preview
from tests.helpers.sources import PART, SIZE, Files, draw_source, random_image, write_folders
from tests.helpers.stores import cells, check_statistics, contents, pack, refusal

BAD = {0: b"", 3: b"<html>", 9: random_image(np.random.default_rng(3), "PNG")[:200], 20: None}
"""Which files of train are damaged, and how; None: 41 times as long as wide"""


def with_damage(chosen: dict[int, bytes | None] = BAD) -> tuple[Files, list[int]]:
    expected = draw_source(train=60)
    long = io.BytesIO()
    Image.new("RGB", (410, 10)).save(long, "PNG")
    for i, data in chosen.items():
        expected["train"][i] = expected["train"][i]._replace(data=long.getvalue() if data is None else data)
    return expected, [i for i in range(60) if i not in chosen]


def test_what_is_skipped_is_listed_and_the_others_stay_aligned(tmp_path: Path):
    expected, sound = with_damage()
    said = pack(write_folders(tmp_path / "source", expected), tmp_path / "store", max_skipped=0.06)
    assert said.endswith("3 classes, 56 train, 11 val, 4 skipped (skipped.csv)\n")
    done = store.require(tmp_path / "store")
    assert done.skipped == {"train": 4, "val": 0}
    assert done.images == {"train": 56, "val": 11}
    names = [file.name for file in expected["train"]]
    assert (tmp_path / "store/skipped.csv").read_text().splitlines() == [
        "split,name,label,reason",
        f"train,{names[0]},0,an empty file",
        f"train,{names[3]},0,not an image of a format that is read (it begins with b'<html>')",
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


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_how_many_images_are_summed_at_once_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, images: int
):
    """Even where none of them gave an image, as the first three."""
    chosen = BAD | {1: b"none", 2: b"none"}
    source = write_folders(tmp_path / "source", with_damage(chosen)[0])
    pack(source, tmp_path / "whole parts", form=form, max_skipped=0.1)
    monkeypatch.setattr(pixel_stats, "BLOCK", images * SIZE**2)
    pack(source, tmp_path / "store", form=form, max_skipped=0.1)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole parts")
    check_statistics(store.require(tmp_path / "store"))


@pytest.mark.parametrize("workers", [1, 4])
def test_too_many_skipped_and_then_more_allowed(tmp_path: Path, workers: int):
    source, root = write_folders(tmp_path / "source", with_damage()[0]), tmp_path / "store"
    said = refusal(source, root, max_skipped=0.04, workers=workers)  # of 71 files two
    found = [row for row in (root / "skipped.csv").read_text().splitlines() if row.startswith("train,")]
    assert len(found) in (3, 4)
    assert said == (
        f"{len(found)} files gave no image, more than the 2 that --max-skipped allows; which and why stands in "
        f"{root / 'skipped.csv'}: mend the source and run the same command again, or allow more"
    )
    assert not (root / "store.json").exists()
    assert not list(root.rglob("*.tmp"))
    refusal(source, root, max_skipped=0.04)
    pack(source, root, max_skipped=0.06)
    pack(source, tmp_path / "through", max_skipped=0.06)
    assert contents(root) == contents(tmp_path / "through")


def test_too_many_skipped_and_then_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Files that are not among those that tell one source from another."""
    monkeypatch.setattr(preview, "TRIED", 2)
    expected, _ = with_damage(dict.fromkeys(range(20, 30), b"damaged"))
    source, root = write_folders(tmp_path / "source", expected), tmp_path / "store"
    assert "10 files gave no image" in refusal(source, root, workers=1, max_skipped=0.12)
    write_folders(source, draw_source(train=60))
    pack(source, root, max_skipped=0.12)
    pack(source, tmp_path / "through")
    assert contents(root) == contents(tmp_path / "through")


def test_a_split_without_a_image(tmp_path: Path):
    expected = draw_source(train=60, val=3)
    expected["val"] = [file._replace(data=b"none") for file in expected["val"]]
    said = refusal(write_folders(tmp_path / "source", expected), tmp_path / "store", max_skipped=0.5)
    assert said.startswith(f"no file of val gave an image, see {tmp_path / 'store/skipped.csv'}: mend the source")
    assert (tmp_path / "store/skipped.csv").read_text().count("val,") == 3
    assert not (tmp_path / "store/store.json").exists()
