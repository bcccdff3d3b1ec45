"""What the tests share: one thread a process, and the command line as its users call it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch starts its threads; the tests themselves run in parallel

import pytest
import torch
from hydra import compose, initialize_config_dir

import alexnet_pl.train  # noqa: F401  registers what Hydra composes
from alexnet_pl import ROOT, checks
from alexnet_pl.config import Config

torch.set_num_threads(1)

Command = Callable[..., "subprocess.CompletedProcess[str]"]

TINY = (
    "logger=csv",
    "subset=200",
    "window=128",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=16",
    "trainer.limit_val_batches=1",
)
"""Overrides under which a run takes a second besides its start."""


def environment(home: Path) -> dict[str, str]:
    """The environment of a user without a W&B account."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    return kept | {"HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def composed(*overrides: str) -> Config:
    """The checked configuration of `alexnet-train OVERRIDES`."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return checks.check(compose("config", list(overrides)))


@pytest.fixture
def train(tmp_path: Path) -> Command:
    """`train("optim.lr=1", ...)`: python -m alexnet_pl.train in tmp_path."""

    def call(*args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "alexnet_pl.train", *args]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return call
