"""What the tests share: one thread a process, and the command line as its users call it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

from alexnet_pl.data import shapes

os.environ["OMP_NUM_THREADS"] = "1"  # before torch starts its threads; the tests themselves run in parallel

import functools

import pytest
import torch
from hydra import compose, initialize_config_dir

from alexnet_pl import ROOT
from alexnet_pl.config.schema import Config
from alexnet_pl.jobs import checks
from alexnet_pl.runs.run import Run
from alexnet_pl.train import main

torch.set_num_threads(1)
shapes.draw_shapes = functools.cache(shapes.draw_shapes)  # drawn once for all runs of a worker, and of its forks

TINY = (
    "logger=csv",
    "model.width=0.5",
    "train_eval_images=200",
    "data.batch_size=64",
    "train_error_window=64",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=16",
    "trainer.limit_val_batches=1",
)
"""Overrides under which a run takes a second besides its start."""


LONGEST = [
    "launch", "shard", "readme", "sweeps", "loggers", "prepare", "agent", "train", "export", "bench", "axes",
    "checks",
]  # fmt: skip
"""Files that take longest, the longest first: a worker has a whole file, and one at the end would leave others idle"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def environment(home: Path) -> dict[str, str]:
    """The environment of a user without a W&B account."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    return kept | {"HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def composed(*overrides: str) -> Config:
    """The checked configuration of `alexnet-train OVERRIDES`."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return checks.check(compose("config", list(overrides)))


class Command(Protocol):
    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`train("optim.lr=1", ...)`: alexnet-train in tmp_path, without the seconds that a process takes to start."""
    return trains(tmp_path, monkeypatch)


def trains(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """alexnet-train in a folder, in this process.

    Only the jobs of a sweep are processes here; what they print is not in the result.
    """

    def call(*args: str) -> subprocess.CompletedProcess[str]:
        out, err, code = io.StringIO(), io.StringIO(), None
        begun: list[Run] = []
        claim = Run.start

        def start(run: Run, config: dict[str, Any], overrides: list[str]) -> None:
            begun.append(run)
            claim(run, config, overrides)

        with monkeypatch.context() as patch, mock.patch.dict(os.environ, environment(folder), clear=True):
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["alexnet-train", *args])
            patch.setattr(Run, "start", start)
            with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
                # Python's own choice of warnings, and its way to tell them, instead of pytest's
                for unseen in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                    warnings.simplefilter("ignore", unseen)
                patch.setattr(warnings, "showwarning", lambda *said: err.write(warnings.formatwarning(*said[:4])))
                try:
                    main()
                except SystemExit as end:
                    code = end.code
        for run in begun:
            if run.lock:
                run.lock.close()  # as the end of its process would
        if isinstance(code, str):
            print(code, file=err)
            code = 1
        return subprocess.CompletedProcess(args, code or 0, out.getvalue(), err.getvalue())

    return call


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    """alexnet-train in a folder, as a process in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "alexnet_pl.train", *args],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def process(tmp_path: Path) -> Command:
    """As `train`, in a process of its own."""

    def call(*args: str) -> subprocess.CompletedProcess[str]:
        running = start(tmp_path, *args)
        out, err = running.communicate(timeout=200)
        return subprocess.CompletedProcess(args, running.returncode, out, err)

    return call
