"""What the command says: its plan, its progress, its hints."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from alexnet_pl import console
from alexnet_pl.data import store
from alexnet_pl.prepare import preview
from alexnet_pl.prepare.prepare import prepare
from tests.helpers.sources import SIZE
from tests.helpers.stores import SMALL, pack, stop_before_the_end


def memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let this machine have so many bytes."""
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": size}.__getitem__)


def test_auto_is_raw_where_half_of_the_memory_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    needed = 41 * SIZE * SIZE * 3
    for name, size, form in (("small", 2 * needed, "jpeg"), ("large", 2 * needed + 2, "raw")):
        memory(monkeypatch, size)
        pack(source, tmp_path / name, form="auto")
        assert store.require(tmp_path / name).plan.form == form


@pytest.mark.parametrize(("then", "form"), [(10**3, "raw"), (10**12, "jpeg")])
def test_auto_goes_on_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path, then: int, form: str):
    memory(monkeypatch, 10**15 // then)
    stop_before_the_end(monkeypatch, source, tmp_path / "store", form="auto")
    memory(monkeypatch, then)
    for _ in range(2):
        pack(source, tmp_path / "store", form="auto")
        assert store.require(tmp_path / "store").plan.form == form


def test_the_plan_that_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(0, 0, 5 * 10**9))
    found, raw, took = pack(source, tmp_path / "store", True, form="raw", workers=3).splitlines()
    assert found == "found: image folder, 3 classes, 30 train, 11 val"
    assert raw.startswith("store: 24x24 pixels, raw, about 70.8 kB (--form jpeg: ")
    assert raw.endswith(f"; 5 GB are free in {tmp_path}")
    assert took.startswith("time:  about 0:00:0")
    assert took.endswith(" on 3 cores, by 41 images that were tried")
    jpeg = pack(source, tmp_path / "store", True, form="jpeg", quality=75).splitlines()[1]
    assert jpeg.startswith("store: 24x24 pixels, JPEG of quality 75, about ")
    assert "(--form raw: 70.8 kB)" in jpeg
    pack(source, tmp_path / "store", form="jpeg", quality=75)
    really = sum(path.stat().st_size for path in (tmp_path / "store").glob("*.jpegs"))
    assert preview.format_bytes(really) in jpeg, "as all were tried"


def test_a_hint_for_small_images(tmp_path: Path, source: Path):
    assert "hint:" not in pack(source, tmp_path / "store", True, size=48)
    (hint,) = [line for line in pack(source, tmp_path / "store", True, size=256).splitlines() if "hint:" in line]
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
    assert preview.format_bytes(number) == said


def test_long_work_shows_in_a_log_how_long_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path):
    assert "left" not in pack(source, tmp_path / "quick")
    monkeypatch.setattr(console, "EVERY", 0)
    said = pack(source, tmp_path / "store", workers=1).splitlines()
    assert "  packing: 41 of 41, 0:00:00 left" in said
    assert [line for line in said if line.startswith("  packing: 17 of 41, 0:00:0")]
    assert [line for line in said if line.startswith("  checking: 16 of 41, 0:00:0")]


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
    prepare(source, tmp_path / "store", SMALL, Console(file=said, force_terminal=True, width=120))
    assert "packing" in said.getvalue()
    assert "41/41" in said.getvalue()
    assert "  packing: " not in said.getvalue()
