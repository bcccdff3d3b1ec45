"""Packing that is stopped at any moment, and the same command that goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from alexnet_pl.data import store
from alexnet_pl.errors import UserError
from alexnet_pl.prepare.packing import Packing
from tests.helpers.prepare_command import Commands
from tests.helpers.processes import wait_until
from tests.helpers.sources import SIZE, draw_source, write_folders
from tests.helpers.stores import contents, flip, halve, pack, refusal, stop_before_the_end, times


@pytest.mark.slow
def test_killed_before_each_thing_it_does_to_files(tmp_path: Path, commands: Commands):
    """From the first folder to the last clearing up; then the same command makes what one that ran through made."""
    source, options = (
        write_folders(tmp_path / "source", draw_source(9, 5)),
        ["--size", 16, "--form", "jpeg", "--workers", 1],
    )
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
    source, options = write_folders(tmp_path / "source", draw_source(60, 20, seed)), ["--size", SIZE, "--form", "jpeg"]
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


@pytest.mark.slow
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


# ---------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_a_finished_store_is_left_as_it_is(tmp_path: Path, source: Path, form: str):
    root = tmp_path / "store"
    pack(source, root, form=form)
    before = contents(root), times(root)
    for options in ({}, {"dry_run": True}, {"workers": 1}, {"max_skipped": 0.5}):
        said = pack(source, root, form=form, **options)
        assert said.splitlines()[-1] == f"{root} is finished already: 24x24 {form}, 3 classes, 30 train, 11 val"
        assert (contents(root), times(root)) == before


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    root = tmp_path / "store"
    assert "store: 24x24 pixels" in pack(source, root, dry_run=True)
    assert not root.exists()
    stop_before_the_end(monkeypatch, source, root)
    before = contents(root), times(root)
    pack(source, root, dry_run=True)
    assert (contents(root), times(root)) == before


def test_what_is_packed_is_not_packed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    root = tmp_path / "store"
    stop_before_the_end(monkeypatch, source, root)
    before = {path: path.stat().st_mtime_ns for path in root.glob("*.raw")}
    pack(source, root)
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
    pack(source, tmp_path / "through")
    stop_before_the_end(monkeypatch, source, root)
    page = root / "journal" / "train-00001.parquet"
    page.write_bytes(damage(page.read_bytes()))
    pack(source, root)
    assert contents(root) == contents(tmp_path / "through")


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
    pack(source, tmp_path / "through", form=form)
    part = root / store.require(tmp_path / "through").parts[split][-1].file
    finish = Packing.finish

    def damage_and_finish(self: Packing, advance: Callable[[int], None]) -> store.Store:
        damage(part)
        return finish(self, advance)

    with monkeypatch.context() as patch:
        patch.setattr(Packing, "finish", damage_and_finish)
        said = refusal(source, root, UserError, form=form)
    assert str(part) in said
    assert "the same command packs it anew" in said
    assert not (root / "store.json").exists()
    pack(source, root, form=form)
    assert contents(root) == contents(tmp_path / "through")


def test_a_store_that_is_only_locked_yet_is_begun(tmp_path: Path, source: Path):
    """What a run leaves that is killed before its plan is written."""
    root = tmp_path / "store"
    root.mkdir()
    (root / ".lock").touch()
    (root / "plan.json.12345.tmp").write_text("{")
    pack(source, root)
    assert "plan.json.12345.tmp" not in contents(root)


def test_files_of_others_in_a_store_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    root = tmp_path / "store"
    stop_before_the_end(monkeypatch, source, root)
    (root / "notes.tmp").write_text("years of work")
    pack(source, root)
    assert (root / "notes.tmp").read_text() == "years of work"
