"""What lies among photographs on real disks: links, pipes, thumbnails, other names of splits and of classes."""

from __future__ import annotations

import csv
import os
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alexnet_pl.data import store
from alexnet_pl.data.sources import find
from alexnet_pl.errors import ConfigError
from tests.helpers.images import encode, smooth_image
from tests.helpers.stores import pack, refusal

JPEG = encode(smooth_image(40, 30))
EPS = encode(smooth_image(40, 30), "EPS")


def put(folder: Path, *names: str, data: bytes = JPEG) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    return put(tmp_path / "photographs", *(f"{name}/{n}.jpg" for name in ("cats", "dogs") for n in range(4)))


# ----------------------------------------------------------------------------------------- odd files


def bind(path: Path) -> None:
    folder, here = os.open(path.parent, os.O_RDONLY), os.getcwd()
    os.fchdir(folder)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)
    os.close(folder)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link to nothing": (lambda path: path.symlink_to("gone"), "a link to nothing"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "a pipe": (os.mkfifo, "no file: a folder, pipe, socket or device"),
    "a socket": (bind, "no file: a folder, pipe, socket or device"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "no file: a folder, pipe, socket or device"),
    "an EPS": (lambda path: path.write_bytes(EPS), "not an image of a format that is read (it begins with b'%!PS-Ado"),
    "a terminal's codes": (
        lambda path: path.write_bytes(b"\x1b[2J" * 9),
        "not an image of a format that is read (it begins with b'\\x1b[2J",
    ),
}


@pytest.mark.parametrize(("make", "reason"), ODD.values(), ids=ODD)
def test_what_is_no_image_is_skipped_and_listed(make, reason: str, photographs: Path, tmp_path: Path):
    make(photographs / "cats/5.jpg")
    assert "8 train, 1 skipped" in pack(photographs, tmp_path / "store", max_skipped=0.2).replace("no val, ", "")
    (row,) = csv.DictReader((tmp_path / "store/skipped.csv").open())
    assert (row["split"], row["name"]) == ("train", "cats/5.jpg")
    assert row["reason"].startswith(reason)


def test_a_locked_file_is_skipped(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By hand: whoever runs the tests may read everything."""
    put(photographs, "cats/locked.jpg")
    true = open

    def locked(path: object, *args: object, **more: object) -> object:
        if str(path).endswith("locked.jpg"):
            raise PermissionError(13, "Permission denied", str(path))
        return true(path, *args, **more)

    monkeypatch.setattr("builtins.open", locked)
    pack(photographs, tmp_path / "store", max_skipped=0.2)
    monkeypatch.undo()
    assert (tmp_path / "store/skipped.csv").read_text().splitlines()[1:] == [
        "train,cats/locked.jpg,0,Permission denied"
    ]


def test_a_locked_folder_is_named(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    true = os.scandir

    def locked(path: object) -> object:
        if str(path).endswith("dogs"):
            raise PermissionError(13, "Permission denied", str(path))
        return true(path)

    monkeypatch.setattr(os, "scandir", locked)
    assert refusal(photographs, tmp_path / "store") == f"{photographs / 'dogs'} cannot be read: Permission denied"
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("target", ["..", "../..", ".", "../dogs/loop"])
def test_a_folder_within_itself_is_refused(target: str, photographs: Path, tmp_path: Path):
    """Through one link, or through two that lead to each other."""
    (photographs / "cats/loop").symlink_to(target)
    if target == "../dogs/loop":
        (photographs / "cats/loop").unlink()
        (photographs / "cats/loop").symlink_to("../dogs")
        (photographs / "dogs/loop").symlink_to("../cats")
    assert "is a link to a folder that holds it: remove the link" in refusal(photographs, tmp_path / "store")


def test_a_folder_that_is_linked_twice_is_no_loop(photographs: Path):
    (photographs / "more").symlink_to("cats")
    assert find(photographs).describe() == "found: image folder, 3 classes, 12 train, no val"


@pytest.mark.parametrize("kind", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("gone")])
def test_a_shard_that_is_no_file_is_named(kind: Callable[[Path], object], tmp_path: Path):
    kind(tmp_path / "train-00000-of-00001.parquet")
    with pytest.raises(ConfigError, match=r"train-00000-of-00001\.parquet is no file that can be read"):
        find(tmp_path)


# ----------------------------------------------------------------------------------------- what counts


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.JFIF", "a.pgm", "a.pbm", "a.pnm", "a.avif", "a.dib", "a.apng"])
def test_every_ending_of_a_format_that_is_read_counts(name: str, photographs: Path):
    put(photographs, f"cats/{name}")
    assert f"cats/{name}" in find(photographs).splits["train"].names


def test_what_is_left_out_is_told(photographs: Path, tmp_path: Path):
    put(photographs, "cats/raw.heic", "cats/noending", "dogs/notes.txt", "beside.jpg", "README.md")
    said = pack(photographs, tmp_path / "store")
    assert (
        "note:  3 files are left out, not named as images: .heic, .txt, no ending; photographs/cats/noending, " in said
    )
    assert "note:  left out beside the class folders of photographs/: 1 image\n" in said


SYSTEM = ["@eaDir", "lost+found", "$RECYCLE.BIN", "__MACOSX", "#recycle", "System Volume Information", ".Trashes"]
SYSTEM += ["#snapshot", "~snapshot", "@Recently-Snapshot", "@tmp", "found.000"]


@pytest.mark.parametrize("name", SYSTEM)
def test_a_systems_own_folders_hold_no_images(name: str, photographs: Path, tmp_path: Path):
    before = find(photographs)
    put(photographs, f"{name}/1.jpg", f"cats/{name}/1.jpg/SYNOPHOTO_THUMB.jpg", "cats/Thumbs.db", "cats/desktop.ini")
    after = find(photographs)
    assert (after.describe(), after.splits["train"].names) == (before.describe(), before.splits["train"].names)
    assert after.notes == ()
    put(tmp_path / "above", f"{name}/x.jpg")
    photographs.rename(tmp_path / "above/photographs")
    assert find(tmp_path / "above").describe() == before.describe()


# ----------------------------------------------------------------------------------------- splits

TRAINS = "2 classes, 2 train, 2 val"
NO_VAL = "2 classes, 2 train, no val"
SPLITS = {
    ("train", "valid", "test"): (TRAINS, "test/ is not used"),
    ("train", "validation"): (TRAINS, ""),
    ("Train", "Test"): (TRAINS, "Test/ is taken for val, as there is none"),
    ("Training", "Testing"): (TRAINS, "Testing/ is taken for val, as there is none"),
    ("TRAIN", "VAL", "TEST"): (TRAINS, "TEST/ is not used"),
    ("training", "validation", "testing"): (TRAINS, "testing/ is not used"),
    ("seg_train", "seg_test", "seg_pred"): (TRAINS, "seg_test/ is taken for val, as there is none"),
    ("seg_train/seg_train", "seg_test/seg_test"): (TRAINS, "seg_test/ is taken for val, as there is none"),
    ("training_set", "test_set"): (TRAINS, "test_set/ is taken for val, as there is none"),
    ("ILSVRC2012_img_train", "ILSVRC2012_img_val"): (TRAINS, ""),
    ("Training",): (NO_VAL, ""),
    ("train", "lost+found"): (NO_VAL, ""),
}


@pytest.mark.parametrize(("folders", "said"), SPLITS.items(), ids=map(str, SPLITS))
def test_splits_by_other_names(folders: tuple[str, ...], said: tuple[str, str], tmp_path: Path):
    for folder in folders:
        put(tmp_path / "set" / folder, "cats/1.jpg", "dogs/1.jpg")
    source = find(tmp_path / "set")
    assert source.describe() == f"found: image folder, {said[0]}"
    assert source.classes == ["cats", "dogs"]
    assert source.notes == ((said[1],) if said[1] else ())


def test_a_test_without_classes_is_told(tmp_path: Path):
    put(tmp_path, "train/cats/1.jpg", "train/dogs/1.jpg", "test/1.jpg")
    assert find(tmp_path).notes == ("test/ is not used: its images are not in folders of these classes",)


@pytest.mark.parametrize("folders", [("fold1", "fold2"), ("A", "B", "C"), ("2020", "2021")])
def test_folders_that_all_hold_the_same_are_no_classes(folders: tuple[str, ...], tmp_path: Path):
    for folder in folders:
        put(tmp_path / "set" / folder, "cats/1.jpg", "dogs/1.jpg")
    said = refusal(tmp_path / "set", tmp_path / "store")
    assert "each with the same folders (cats, dogs): name splits train and val, or put" in said
    (tmp_path / "train").mkdir()
    for folder in folders:
        (tmp_path / "set" / folder).rename(tmp_path / "train" / folder)
    (tmp_path / "set").rmdir()
    assert find(tmp_path).classes == list(folders)


CLASSES = [("valid", "invalid"), ("training", "racing"), ("steam_train", "test tube", "cats"), ("a/images", "b/images")]


@pytest.mark.parametrize("folders", CLASSES, ids=map(str, CLASSES))
def test_classes_that_are_called_like_splits(folders: tuple[str, ...], tmp_path: Path):
    put(tmp_path / "set", *(f"{folder}/1.jpg" for folder in folders))
    assert find(tmp_path / "set").classes == sorted({folder.partition("/")[0] for folder in folders})


def test_two_folders_of_one_split_are_refused(tmp_path: Path):
    put(tmp_path, *(f"{split}/{name}/1.jpg" for split in ("train", "val", "valid") for name in ("cats", "dogs")))
    with pytest.raises(ConfigError, match="holds val and valid, which are both val: keep one of them"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("names", "said", "note"),
    [
        (("train", "valid"), TRAINS, ()),
        (("train", "test"), TRAINS, ("the test shards are taken for val, as there are none of it",)),
        (("train", "validation", "test"), TRAINS, ("the test shards are not used",)),
        (("Train", "Valid"), TRAINS, ()),
    ],
)
def test_shards_by_other_names(names: tuple[str, ...], said: str, note: tuple[str, ...], tmp_path: Path):
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": JPEG, "path": str(n)} for n in range(2)], cell)
    for name in names:
        pq.write_table(pa.table({"image": images, "label": [0, 1]}), tmp_path / f"{name}-00000-of-00001.parquet")
    source = find(tmp_path)
    assert source.describe() == f"found: Parquet shards, {said}"
    assert source.notes == note


# ----------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_an_é_is_an_é(forms: tuple[str, str], tmp_path: Path):
    for split, form in zip(("train", "val"), forms, strict=True):
        put(tmp_path / split, f"{unicodedata.normalize(form, 'café')}/1.jpg", "dogs/1.jpg")
    source = find(tmp_path)
    assert source.classes == ["café", "dogs"]
    assert [list(split.labels) for split in source.splits.values()] == [[0, 1], [0, 1]]


FOREIGN = {"\x1b[31mred": "\\x1b[31mred", "two\nlines": "two\\nlines", "\u202egpj": "\\u202egpj", "\x9b2J": "\\x9b2J"}


@pytest.mark.parametrize(("name", "shown"), FOREIGN.items(), ids=FOREIGN.values())
def test_foreign_names_are_made_visible(name: str, shown: str, photographs: Path, tmp_path: Path):
    """In a refusal, in a note, and in the first reason why nothing is an image; in the store they are as they were."""
    put(tmp_path / "split", "train/cats/1.jpg", "train/dogs/1.jpg", f"val/{name}/1.jpg")
    said = refusal(tmp_path / "split", tmp_path / "store")
    assert f"has class {shown}, which the training images lack" in said
    put(photographs, f"cats/{name}")
    assert f"not named as images: no ending; photographs/cats/{shown}, for one" in pack(photographs, tmp_path / "store")
    put(tmp_path / "none", f"a{name}/1.jpg", f"b{name}/1.jpg", data=b"none")
    assert f"(a{shown}/1.jpg: not an image" in refusal(tmp_path / "none", tmp_path / "other")
    put(photographs, f"{name}/1.jpg")
    pack(photographs, tmp_path / "third")
    assert store.require(tmp_path / "third").classes == sorted(["cats", "dogs", name])


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_a_name_is_no_formula_in_the_list_of_what_is_skipped(start: str, photographs: Path, tmp_path: Path):
    put(photographs, f"{start}cmd/1.jpg")
    put(photographs, f"{start}cmd/2.jpg", data=b"none")
    pack(photographs, tmp_path / "store", max_skipped=0.2)
    (row,) = csv.DictReader((tmp_path / "store/skipped.csv").open())
    assert row["name"] == f"'{start}cmd/2.jpg"
