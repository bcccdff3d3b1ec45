"""Predict on files that are no plain photographs, and on odd files of labels: a sentence for each, and no formula."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from alexnet_pl.data.sources import base
from alexnet_pl.errors import ConfigError, visible
from alexnet_pl.predict.outputs import to_csv
from alexnet_pl.predict.predictions import Prediction, read_labels
from tests.helpers.fuzz import STRANGE, untouched
from tests.helpers.images import encode, smooth_image
from tests.helpers.nets import CLASSES

Predict = Callable[..., tuple[int, str, str]]
PLAIN = smooth_image(60, 50)
JPEG = encode(PLAIN)
FRAMES = [Image.fromarray(np.roll(PLAIN, 9 * n, 0)) for n in range(3)]
DEEP = encode(PLAIN[..., 0].astype(np.uint16), "PNG")
WRITTEN: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "an empty file"),
    "text.jpg": (b"no image at all", "not an image of a format that is read"),
    "page.png": (b"<!DOCTYPE html><html></html>", "not an image of a format that is read"),
    "vector.jpg": (encode(PLAIN, "EPS"), "not an image of a format that is read"),
    "truncated.jpg": (JPEG[:-40], "the file ends before the image does"),
    "16bit.png": (DEEP, "PNG of mode I;16, which has more than 8 bits"),
    "long.png": (encode(smooth_image(500, 10), "PNG"), "500x10 pixels, more than 40 times as long as wide"),
    "\x1b[31mred\n.jpg": (b"\x1b[2J", "not an image of a format that is read (it begins with b'\\x1b[2J')"),
}
GOOD = {
    "animated.gif": encode(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    "animated.webp": encode(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]),
    "cmyk.jpg": encode(Image.fromarray(PLAIN).convert("CMYK")),
    "grey.png": encode(PLAIN[..., 0], "PNG"),
    "palette.png": encode(Image.fromarray(PLAIN).convert("P"), "PNG"),
    "named.txt": JPEG,
}


def test_each_file_that_is_no_image_has_a_sentence_and_the_others_go_on(run: str, predict: Predict, tmp_path: Path):
    folder = tmp_path / "odd"
    folder.mkdir()
    files = {name: data for name, (data, _) in WRITTEN.items()} | GOOD
    for name, data in files.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link.jpg").symlink_to("gone")
    (folder / "device.jpg").symlink_to("/dev/zero")
    reasons = {name: reason for name, (_, reason) in WRITTEN.items()} | {
        "pipe.jpg": "no file: a folder, pipe, socket or device",
        "device.jpg": "no file: a folder, pipe, socket or device",
        "link.jpg": "a link to nothing",
    }
    code, out, err = predict(run, f"{folder}/*", "--csv", tmp_path / "out.csv")
    assert code == 1
    said = err.splitlines()
    assert len(said) == len(reasons)
    for name, reason in reasons.items():
        assert any(line.startswith(f"{folder}/{visible(name)} gives no image: {reason}") for line in said), name
    seen = {row["image"] for row in csv.DictReader((tmp_path / "out.csv").open())}
    assert seen == {str(folder / name) for name in GOOD}
    assert "\x1b" not in out + err


def test_words_that_are_no_image(run: str, predict: Predict, tmp_path: Path):
    """A pipe by its name, a user that is not there, a name that is too long."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.jpg").write_bytes(JPEG)
    code, _, err = predict(run, tmp_path / "pipe", "~nobody-of-that-name/x.jpg", "x" * 300, tmp_path / "a.jpg")
    assert code == 1
    assert [line.partition(" ")[0] for line in err.splitlines()] == ["there"] * 3


def test_standard_input_is_bounded(run: str, predict: Predict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base, "LARGEST", 1000)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(bytes(5000))))
    code, _, err = predict(run, "-")
    assert code == 1
    assert "standard input gives no image: 1,001 bytes, and an image file may have 1,000" in err


def test_a_name_that_is_no_utf8_is_printed_and_written(run: str, predict: Predict, tmp_path: Path):
    name = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.jpg")
    Path(name).write_bytes(JPEG)
    code, out, _ = predict(run, name, "--csv", tmp_path / "a.csv", "--json", tmp_path / "a.json")
    assert code == 0
    assert "caf\\udce9.jpg" in out
    assert "caf\\udce9.jpg" in (tmp_path / "a.csv").read_text()
    assert json.loads((tmp_path / "a.json").read_text())["images"][0]["image"] == name


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\tx"])
def test_no_cell_is_a_formula_and_a_label_is_read_as_it_was(text: str, tmp_path: Path):
    one = Prediction(text, None, [(text, 1.0)], text, 1)
    table = tmp_path / "a.csv"
    table.write_text(to_csv([one]))
    (row,) = csv.DictReader(table.open())
    assert [row[key] for key in ("image", "class", "guess")] == [f"'{text}"] * 3
    assert read_labels(table, [text]) == {text: text}


# ------------------------------------------------------------------------------------------------ labels

RIGHT = {"1.jpg": "cats", "2.jpg": "dogs"}
TABLES = {
    "plain": "1.jpg,cats\n2.jpg,1\n",
    "a byte-order mark": "\ufeff1.jpg,cats\n2.jpg,dogs\n",
    "a header": "image,class\n1.jpg,cats\n2.jpg,dogs\n",
    "a header of other words": "\ufeffFilename,Label\n1.jpg,0\n2.jpg,1\n",
    "more columns": "id,file,label\n7,1.jpg,cats\n8,2.jpg,dogs\n",
    "predict's own": "image,class,rank,guess\n1.jpg,cats,1,gnus\n1.jpg,cats,2,cats\n2.jpg,dogs,1,a\n3.jpg,,1,a\n",
    "empty lines and spaces": "\n1.jpg, cats\r\n\r\n2.jpg ,dogs\n\n",
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_labels_as_people_keep_them(text: str, tmp_path: Path):
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / "labels.csv", CLASSES) == RIGHT


WRONG = {
    "no UTF-8": (b"1.jpg,caf\xe9\n", "labels.csv is damaged: it is no UTF-8 text"),
    "a class that is none": (b"1.jpg,cat\n", "cat is no class of this net"),
    "a number that is none": (b"1.jpg,10\n", "10 is no class of this net"),
    "a number without an end": (b"1.jpg," + b"9" * 5000 + b"\n", "is no class of this net"),
    "one column": (b"1.jpg\n", "has the line '1.jpg': each must be image,class"),
    "two classes": (b"1.jpg,cats\n1.jpg,dogs\n", "says that 1.jpg is cats, and that it is dogs"),
    "a terminal's codes": (b"1.jpg,\x1b[31m\n", "\\x1b[31m is no class of this net"),
    "a word that is no header": (b"picture,animal\n1.jpg,cats\n", "animal is no class of this net"),
}


@pytest.mark.parametrize(("data", "said"), WRONG.values(), ids=WRONG)
def test_labels_that_are_wrong_are_one_sentence(data: bytes, said: str, tmp_path: Path):
    (tmp_path / "labels.csv").write_bytes(data)
    with pytest.raises(ConfigError) as error:
        read_labels(tmp_path / "labels.csv", CLASSES)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_lines_that_match_no_image_are_told(run: str, predict: Predict, tmp_path: Path):
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / "labels.csv").write_text(f"1.jpg,cats\n{tmp_path}/2.jpg,cats\naway/3.jpg,cats\n4.jpg,dogs\n")
    code, out, err = predict(run, tmp_path, "--labels", tmp_path / "labels.csv")
    assert code == 0
    assert err == f"{tmp_path}/labels.csv names 2 of 4 images that are not among these, as away/3.jpg\n"
    assert "of 2 whose class is known" in out


# ------------------------------------------------------------------------------------------------ outputs

OVERWRITING = [
    ["a.png", "--figure", "a.png"],
    ["a.png", "--figure", "folder/../a.png"],
    ["folder", "--figure", "folder/b.png"],
    ["*.png", "--csv", "a.png"],
    ["a.png", "--labels", "right.csv", "--csv", "right.csv"],
    ["a.png", "--neighbours", "folder", "--json", "folder/b.png"],
    ["a.png", "--csv", "net.ckpt"],
    ["a.png", "--csv", "new", "--json", "new"],
]


@pytest.mark.parametrize("words", OVERWRITING, ids=" ".join)
def test_no_output_takes_the_place_of_what_is_read(
    words: list[str], run: str, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("a.png", "folder/b.png"):
        Path(name).write_bytes(JPEG)
    Path("right.csv").write_text("a.png,cats\n")
    with untouched(tmp_path):
        code, out, err = predict(run, *words)
    assert (code, out) == (1, "")
    assert err == f"error: {words[-1]} is read or written already by this command: give the output another name\n"


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_an_output_without_a_name_is_a_sentence(option: str, run: str, predict: Predict, tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(JPEG)
    code, out, err = predict(run, tmp_path / "a.jpg", option, "")
    assert (code, out) == (1, "")
    assert err == "error: --csv, --json and --figure take the name of a file, and one is empty\n"


@pytest.mark.parametrize("kind", ["pipe", "huge", "folder", "link to nothing", "zero bytes"])
def test_labels_that_are_no_table_end_at_once(kind: str, tmp_path: Path):
    STRANGE[kind](tmp_path / "labels.csv")
    with pytest.raises(ConfigError, match=r"labels\.csv is damaged: .*; give lines of image,class"):
        read_labels(tmp_path / "labels.csv", CLASSES)
