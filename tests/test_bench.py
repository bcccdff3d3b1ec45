"""Every script in bench/ is named in the README, runs, and prints a ratio."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_pl import ROOT
from tests.conftest import environment

SCRIPTS = sorted((ROOT / "bench").glob("*.py"))
FEW = {"step.py": ["--batch_size", "2"]}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_bench_prints_a_ratio_with_its_range(script: Path, tmp_path: Path):
    assert f"python bench/{script.name}\n" in (ROOT / "README.md").read_text()
    command = [sys.executable, str(script), "--rounds", "1", "--steps", "1", *FEW.get(script.name, [])]
    # Without a compiler on the path: it would take most of the time, and tests/test_lrn.py has what is compiled.
    env = environment(tmp_path) | {"PATH": str(Path(sys.executable).parent), "CXX": ""}
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    assert re.search(r"\d\.\d\d \(\d+\.\d\d to \d+\.\d\d\)", result.stdout)
    assert not list(tmp_path.glob("runs")), "a bench leaves no run behind"
