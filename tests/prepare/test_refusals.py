"""Every kind of refusal: one sentence, and nothing is written."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from alexnet_pl.data import decode
from alexnet_pl.prepare import preview
from tests.helpers.prepare_command import Commands
from tests.helpers.processes import wait_until
from tests.helpers.sources import PART, SIZE, draw_source, write_folders, write_shards
from tests.helpers.stores import contents, pack, refusal, stop_before_the_end, times


def other_images(source: Path) -> dict[str, Any]:
    """Names and labels stay."""
    write_folders(source, draw_source(seed=1))
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
        pack(source, root, form="jpeg")
    else:
        stop_before_the_end(monkeypatch, source, root, form="jpeg")
    before = contents(root), times(root)
    sentence = refusal(source, root, **({"form": "jpeg"} | change(source)))
    assert sentence.startswith(f"{root} holds a store of another source or with other options (")
    assert sentence.endswith("): give this one a folder of its own, or remove that one")
    assert said in sentence
    assert (contents(root), times(root)) == before


def test_other_labels_under_the_same_names_are_another_source(tmp_path: Path):
    expected = draw_source(folder=False)
    pack(write_shards(tmp_path / "source", expected), tmp_path / "store")
    first, second, *others = expected["train"]
    swapped = [first._replace(label=second.label), second._replace(label=first.label), *others]
    said = refusal(write_shards(tmp_path / "swapped", expected | {"train": swapped}), tmp_path / "store")
    assert "fingerprint was " in said


def other_files(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/thesis.tmp").write_text("years of work")


def a_users_tmp(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/thesis.tmp").write_text("years of work")


def one_folder_too_many(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "source" / split).rename(tmp_path / "source/images")
        (tmp_path / "source" / split).mkdir()
        (tmp_path / "source/images").rename(tmp_path / "source" / split / "images")


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
    "a user's .tmp": (a_users_tmp, [], "store holds other files: give the store a folder of its own"),
    "one class": (one_folder_too_many, [], "has one class only, images, which is nothing to learn"),
    "a file": (a_file, [], "store is a file: give the store a folder of its own"),
    "no source": (no_source, [], "source does not exist"),
    "no image is one": (no_images, [], "no file that was tried is an image (n00/000.JPEG: not an image of a format"),
    "a name of old": (no_utf8, [], "'n00/caf\\udce9.jpg' is not UTF-8"),
    "half a plan": (plan(), [], "plan.json is damaged: it is not JSON"),
    "a plan of other keys": (plan(edge=24), [], "plan.json is damaged, or of another version of this package: remove"),
    "too small": (str, ["--size", "7"], "--size 7 must lie between 8 and 4096 pixels (2012: 256)"),
    "too large": (str, ["--size", "4097"], "--size 4097 must lie between 8 and 4096 pixels (2012: 256)"),
    "quality": (str, ["--quality", "0"], "--quality 0 must lie between 1 and 100"),
    "quality above": (str, ["--quality", "101"], "--quality 101 must lie between 1 and 100"),
    "hold_out": (str, ["--hold-out", "-0.1"], "--hold-out -0.1 is a share: it must be at least 0 and below 1"),
    "hold_out of no number": (str, ["--hold-out", "nan"], "--hold-out nan is a share"),
    "hold_out of all": (str, ["--hold-out", "1"], "--hold-out 1.0 is a share: it must be at least 0 and below 1"),
    "hold_out beside val": (str, ["--hold-out", "0.1"], "has a val split of 11 images: leave out --hold-out 0.1"),
    "max_skipped": (str, ["--max-skipped", "1.5"], "--max-skipped 1.5 is a share: it must be at least 0 and below 1"),
    "workers": (str, ["--workers", "0"], "--workers 0 must be at least 1"),
}


@pytest.mark.parametrize(("prepared", "options", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named_in_one_sentence_and_nothing_is_written(
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
    "arguments",
    [
        ["source"],
        ["source", "store", "--form", "png"],
        ["source", "store", "--size", "x"],
        [],
        ["source", "store", "--verify", "store"],
        ["source", "--verify", "store"],
    ],
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
    source = write_folders(tmp_path / "source", draw_source(val=0))
    said = refusal(source / "train", source / "train" / "store")
    assert "lies among the classes of" in said
    assert not (source / "train" / "store").exists()
    pack(source, source / "store")
    assert "is finished already" in pack(source, source / "store")


def test_two_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Commands, source: Path):
    monkeypatch.setattr(preview, "TRIED", 4)  # as the other does it
    root = tmp_path / "store"
    child = commands.start(source, root, "--size", SIZE, "--form", "raw", pause=0.03)
    wait_until(lambda: list(root.glob("journal/*.parquet")))
    said = refusal(source, root, form="raw")
    os.kill(child, signal.SIGKILL)
    assert commands.end()[0] == -signal.SIGKILL
    assert said == f"another process is packing into {root}: wait for it, or stop it"
    pack(source, root, form="raw")


def test_a_damaged_done_mark_is_named(tmp_path: Path, source: Path):
    root = tmp_path / "store"
    pack(source, root)
    mark = root / "store.json"
    whole = json.loads(mark.read_text())
    for text, said in (
        ('{"plan', f"{mark} is damaged: it is not JSON"),
        (json.dumps({"plan": 3}), f"{mark} is damaged, or of another version of this package: remove {root} and"),
        (json.dumps(whole | {"more": 1}), f"{mark} is damaged, or of another version of this package"),
        (json.dumps(whole | {"plan": whole["plan"] | {"version": 1}}), f"{root} is a store of version 1, not 2"),
    ):
        mark.write_text(text)
        assert said in refusal(source, root)


def test_too_small_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    full = shutil.disk_usage(tmp_path)._replace(
        free=70_000
    )  # the store needs 41 * 24 * 24 * 3 bytes, and the half fits
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda place: full)
        said = refusal(source, tmp_path / "store", form="raw")
        assert said == f"{tmp_path} has 70 kB free, and the store needs about 70.8 kB: give another disk"
        assert not (tmp_path / "store").exists()
    stop_before_the_end(monkeypatch, source, tmp_path / "store", form="raw")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full._replace(free=10))
    pack(source, tmp_path / "store", form="raw")  # what is there already needs no more room


def test_a_disk_that_fills_up(tmp_path: Path, commands: Commands, source: Path):
    root, options = tmp_path / "store", ["--size", 40, "--form", "raw"]
    code, _, complained = commands.run(source, root, *options, largest=30_000)  # a part has 38,400 bytes
    assert code == 1
    assert re.fullmatch(f"error: {root}/train-0000[0-9].raw: File too large\n", complained)
    assert not list(root.rglob("*.tmp"))
    assert commands.run(source, root, *options)[0] == 0
    assert commands.run(source, tmp_path / "through", *options)[0] == 0
    assert contents(root) == contents(tmp_path / "through")


def test_all_threads_stop_when_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    """The first image of the second part fails; what works at the first part ends it no more."""
    monkeypatch.setattr(preview, "TRIED", 2)
    failed = (source / "train" / draw_source()["train"][PART].name).read_bytes()
    true, after = decode.decode_image, []

    def slow(data: bytes) -> Tensor:
        if data == failed:
            raise OSError(5, "Input/output error", "disk")
        after.append(data)
        time.sleep(0.05)
        return true(data)

    monkeypatch.setattr(decode, "decode_image", slow)
    with pytest.raises(OSError, match="Input/output error"):
        pack(source, tmp_path / "store", workers=2)
    assert len(after) <= 4 + 3, "4 that were tried"
    assert not list((tmp_path / "store").rglob("*.tmp"))
