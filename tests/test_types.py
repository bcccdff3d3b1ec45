"""mypy finds no mistake in the package, and finds those of a file that uses it and its libraries wrongly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_pl import ROOT

WRONG = [
    "import torch, wandb, pytorch_lightning",
    "from alexnet_pl.config.schema import Config",
    "torch.zeros(2).permute('a')",
    "torch.onnx.export(1, f=2)",
    "pytorch_lightning.Trainer(max_epochs='many')",
    "wandb.init(project=1)",
    "Config(seed='one')",
]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_types(tmp_path: Path):
    """In one run, beside the other tests: it takes one core for half a minute."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text("\n".join(WRONG))
    command = [sys.executable, "-m", "mypy", "alexnet_pl", "hydra_plugins", str(wrong)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    errors = [line for line in said if ": error: " in line]
    assert [line for line in errors if not line.startswith(f"{wrong}:")] == []
    found = {int(line.removeprefix(f"{wrong}:").partition(":")[0]) for line in errors}
    assert found == set(range(3, len(WRONG) + 1)), said
