"""Every script in bench/ is named in docs/performance.md, runs, and prints figures with their range."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet_pl import ROOT, estimate
from alexnet_pl.data import store
from alexnet_pl.model import lrn
from tests.helpers.commands import train_command
from tests.helpers.processes import Process

pytestmark = pytest.mark.slow

sys.path.insert(0, str(ROOT / "bench"))  # the scripts import each other as scripts do
every, ratios = import_module("all"), import_module("ratios")

NO_SCRIPTS = ("ratios.py", "photographs.py")
SCRIPTS = [file for file in sorted((ROOT / "bench").glob("*.py")) if file.name not in NO_SCRIPTS]
FEW = ["--rounds", "1", "--steps", "1"]


def check_rows(out: str, rows: Path) -> None:
    """That what was printed is what bench/all.py gets, and has bars."""
    printed = re.findall(r"^ *\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\) .*: .*\[bar \d.*$", out, re.MULTILINE)
    assert printed
    assert printed == [str(ratios.Row(**row)) for row in json.loads(rows.read_text()) if row["bar"]]


def test_a_script_prints_figures_with_their_range(tmp_path: Path):
    """As a script is started."""
    rows = tmp_path / "rows.json"
    process = Process(tmp_path, ROOT / "bench" / "layouts.py", *FEW, "--json", str(rows))
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    check_rows(out, rows)


def shrink(name: str, script: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have a script measure less than it does by its options; return these."""
    if name == "data":
        monkeypatch.setattr(script, "BATCH", 8)
        monkeypatch.setattr(script.photographs, "CANVAS", 256)
        return ["--small", "100"]
    if name == "lrn":
        monkeypatch.setattr(script, "SHAPES", [(2, *shape[1:]) for shape in script.SHAPES])
    if name == "scale":
        monkeypatch.delitem(script.RUNS, "a quarter of AlexNet, towers")
    if name == "start":
        for what in ("TORCH", "LIGHTNING", "OPTIMIZER"):
            monkeypatch.setattr(script, what, f"pass  # {what}")
    if name == "step":
        build = script.build_net
        monkeypatch.setattr(
            script, "build_net", lambda cfg, *more, **named: build(replace(cfg, width=0.25), *more, **named)
        )
    return ["--batch-size", "2"] if name in ("epoch", "step") else []


@pytest.mark.parametrize("name", ["data", "epoch", "loop", "lrn", "scale", "start", "step"])
def test_another_script_prints_figures_with_their_range(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """In this process, which has imported all that each of theirs would."""

    def here(prepare: Callable[[], Callable[..., Any]], precision: str | None) -> Callable[..., Any]:
        return prepare()

    def train(folder: Path, threads: int, *words: str) -> None:
        if name == "start" and "--help" not in words:  # that it could run: other tests see that it does
            words = (
                *("seed=1" if word.startswith("seed=") else word for word in words if word != "-m"),
                "--cfg",
                "job",
            )
        if name == "scale":  # likewise
            words = tuple(word.replace("trainer=ddp", "trainer=cpu") for word in words)
        result = train_command(folder, monkeypatch)(*words)
        assert result.returncode == 0, result.stderr

    def once(ways: dict[Any, Callable[[], float]], rounds: int) -> dict[Any, list[float]]:
        return {way: [run()] for way, run in ways.items()}

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = import_module(name)
    monkeypatch.setattr(ratios, "Apart", here)
    monkeypatch.setattr(ratios, "train", train)
    monkeypatch.setattr(ratios, "interleaved", once)
    monkeypatch.setattr(estimate, "ENOUGH", 0.0)
    monkeypatch.setattr(lrn, "compiles", lambda *_: False)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # other tests of this process have one
    rows = tmp_path / "rows.json"
    few = [*FEW, *shrink(name, script, monkeypatch)]
    monkeypatch.setattr(sys, "argv", [name, *few, "--json", str(rows)])
    script.main()
    check_rows(capsys.readouterr().out, rows)


def test_a_way_apart_has_the_threads_of_its_program_and_ends_with_the_script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    way = ratios.Apart(partial(partial, os.getenv, "OMP_WAIT_POLICY"), "32-true")
    assert way() == "passive"
    assert "OMP_WAIT_POLICY" not in os.environ
    way.pipe.close()
    way.process.join(30)
    assert way.process.exitcode == 0


def test_the_documents_name_every_script():
    text = (ROOT / "docs" / "performance.md").read_text()
    assert [file.name for file in SCRIPTS if f"python bench/{file.name}\n" not in text] == []


@pytest.mark.parametrize(("median", "bar", "holds"), [(2.0, 2, True), (1.99, 2, False)])
def test_a_figure_below_its_bar_ends_the_whole_with_an_error(
    median: float, bar: float, holds: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    rows = [ratios.Row("ours / theirs", median, 1.0, 9.0, bar=bar), ratios.Row("without a bar", 0.0, 0.0, 0.0)]
    monkeypatch.setattr(every, "run", lambda script, device: rows)
    monkeypatch.setattr(sys, "argv", ["all.py", "--only", "lrn"])
    if holds:
        every.main()
    else:
        with pytest.raises(SystemExit, match=r"below the bar:\n.*FAILS"):
            every.main()
    assert f"| ours / theirs | {median:.2f}" in capsys.readouterr().out


def test_the_day_on_a_gpu_is_one_table_whatever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    day = import_module("gpu_day")

    def late(self: Any) -> Any:
        return [("slept", self.run("-c", "import time; time.sleep(60)"))]

    parts = [
        day.Part("First", 60, lambda self: [("says", self.run("-c", "print('so')").strip())]),
        day.Part("Fails", 60, lambda self: [("says", self.run("-c", "print('no'); raise SystemExit(3)"))]),
        day.Part("Late", 0, late),
        day.Part("Last", 60, lambda self: [("a store", store.require(make(day, self.out / "store")).summary())]),
    ]
    monkeypatch.setattr(day, "PARTS", parts)
    monkeypatch.setattr(sys, "argv", ["gpu_day", "--dry", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="1"):
        day.main()
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out + "\n"
    rows = [line for line in table.splitlines() if line.startswith("|") and "| seconds |" not in line]
    assert rows[2:] == [
        "| First | says | so |",
        "| Fails | FAILED | exit code 3: no |",
        "| Late | FAILED | out of time |",
        "| Last | a store | 72x72 raw, 1000 classes, 128 train, 64 val |",
    ]
    assert "pytorch-lightning" in table.splitlines()[0]
    assert "commit" in table.splitlines()[0]


def make(day: Any, root: Path) -> Path:
    day.make_store(root, 128, 72)
    return root


def test_the_script_of_that_day_is_sound():
    assert subprocess.run(["bash", "-n", ROOT / "bench" / "gpu_day.sh"]).returncode == 0
    assert sum(part.seconds for part in import_module("gpu_day").PARTS) <= 600, "the ten minutes of the documentation"
