"""Every script in bench/ is named in the README, runs, and prints a ratio."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from alexnet_pl import ROOT
from tests.forked import Process

SHARED = ("ratios.py", "photographs.py")  # by the scripts
SCRIPTS = [file for file in sorted((ROOT / "bench").glob("*.py")) if file.name not in SHARED]
FEW = {"step.py": ["--batch_size", "2"]}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_bench_prints_a_ratio_with_its_range(script: Path, tmp_path: Path):
    assert f"python bench/{script.name}\n" in (ROOT / "README.md").read_text()
    # Without a compiler on the path: it would take most of the time, and tests/test_lrn.py has what is compiled.
    without = {"PATH": str(Path(sys.executable).parent), "CXX": ""}
    bench = Process(tmp_path, script, "--rounds", "1", "--steps", "1", *FEW.get(script.name, []), **without)
    out, err = bench.communicate(timeout=200)
    assert bench.returncode == 0, err
    assert re.search(r"\d\.\d\d \(\d+\.\d\d to \d+\.\d\d\) times as fast: .* / .*\[bar \d", out)
    assert not list(tmp_path.glob("runs")), "a bench leaves no run behind"
