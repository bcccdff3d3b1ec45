"""The names of the package itself, as a notebook uses them: compose, build, fit, load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import alexnet_pl
from alexnet_pl.data import datasets
from alexnet_pl.errors import ConfigError, NotFinite
from alexnet_pl.runs.run import Run
from tests.helpers.runs import TINY

SMALL = (*TINY, "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2")


def test_fit_trains_once_and_returns_the_net_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets, "SHAPES_SPLITS", {"train": (1000, 1), "val": (100, 2)})
    cfg = alexnet_pl.compose(*SMALL)
    trained = alexnet_pl.fit(cfg, tmp_path / "run")
    assert trained.run
    assert trained.run.done["metrics"]["images_seen"] == 2 * 64
    assert not trained.net.training
    start = alexnet_pl.build(cfg).state_dict()
    last = trained.net.state_dict()
    assert not any(torch.equal(start[name], last[name]) for name in start)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    again = alexnet_pl.fit(cfg, str(tmp_path / "run")).net.state_dict()
    assert all(torch.equal(again[name], last[name]) for name in last)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == files
    with pytest.raises(ConfigError, match=r"holds a run of another configuration .*seed was 1 and is now 2"):
        alexnet_pl.fit(alexnet_pl.compose(*SMALL, "seed=2"), tmp_path / "run")


def test_a_fit_that_fails_says_why_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets, "SHAPES_SPLITS", {"train": (1000, 1), "val": (100, 2)})
    with pytest.raises(NotFinite) as failed:
        alexnet_pl.fit(alexnet_pl.compose(*SMALL, "optim.lr=1e30"), tmp_path / "run")
    run = Run(tmp_path / "run")
    assert run.failure == str(failed.value)
    assert not run.done


def test_fit_refuses_several_devices_before_it_writes(tmp_path: Path):
    cfg = alexnet_pl.compose(*SMALL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    with pytest.raises(ConfigError, match=r"^fit trains on one device: use alexnet-train for several$"):
        alexnet_pl.fit(cfg, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_importing_the_package_imports_no_torch():
    code = "import sys, alexnet_pl; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=alexnet_pl.ROOT, check=False).returncode == 0
