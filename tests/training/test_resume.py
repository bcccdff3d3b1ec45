"""Stopped at an awkward moment and started again, a run ends bit for bit as one that was never stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from alexnet_pl import train
from alexnet_pl.config.schema import as_dict
from alexnet_pl.data import datasets
from alexnet_pl.errors import Interrupted
from alexnet_pl.runs.run import Run
from alexnet_pl.training.module import ImageClassifier
from tests.conftest import composed
from tests.test_train import assert_same_training, last

NET = [
    "model=alexnet", "model.input_size=67", "data.batch_size=50", "train_eval_images=0",
    "train_error_window=150", "logger=csv",
    "model.widths={conv1: 4, conv2: 4, conv3: 4, conv4: 4, conv5: 4, fc6: 8, fc7: 8}",
    "trainer.limit_train_batches=8", "trainer.limit_val_batches=2", "data.resize=72", "data.crop_size=67",
    "data.random_flip=true",
]  # fmt: skip


def fit(folder: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch, stop_in: int | None = None) -> Run:
    """Train in this process; a signal arrives in the batch of this number, counted from 1."""
    cfg = composed(*NET, *overrides)
    run = Run(folder)
    run.start(as_dict(cfg), [])
    step, seen = ImageClassifier.training_step, 0

    def counted(self: ImageClassifier, *args: object) -> torch.Tensor:
        nonlocal seen
        seen += 1
        if seen == stop_in:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)  # type: ignore[arg-type]

    try:
        with monkeypatch.context() as patch:
            patch.setattr(ImageClassifier, "training_step", counted)
            patch.setattr(datasets, "SHAPES_SPLITS", {"train": (1000, 1), "val": (100, 2)})
            train.fit(cfg, run)
    finally:
        assert run.lock
        run.lock.close()  # as the end of its process would
    return run


@pytest.mark.parametrize(
    ("overrides", "batch", "saved_at"),
    [
        (["optim=released_170", "trainer.max_epochs=2"], 3, 3),
        (["optim=sgd_2012", "trainer.max_epochs=null", "trainer.max_steps=14"], 8, 8),
        (["optim=released_145", "trainer.max_epochs=2", "trainer.accumulate_grad_batches=3"], 4, 2),
        (["optim=paper", "optim.plateau_patience=1", "trainer.max_epochs=2", "trainer.val_check_interval=4"], 4, 5),
        (["optim=released_170", "trainer.max_epochs=2", "trainer.precision=64-true"], 3, 3),
    ],
    ids=["mid-epoch", "end of an epoch before max_steps", "mid-accumulation", "before a validation", "float64"],
)
def test_resumed_is_uninterrupted(
    overrides: list[str], batch: int, saved_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = fit(tmp_path / "whole", overrides, monkeypatch)
    with pytest.raises(Interrupted):
        fit(tmp_path / "stopped", overrides, monkeypatch, stop_in=batch)
    stopped = Run(tmp_path / "stopped")
    assert last(stopped)["global_step"] == saved_at
    fit(stopped.folder, overrides, monkeypatch)
    assert_same_training(stopped, whole)
    assert last(stopped).get("plateau") == last(whole).get("plateau")
    assert [row["lr"] for row in whole.metrics if "lr" in row]


def test_max_steps_ends_the_run_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = fit(tmp_path, ["optim=released_170", "trainer.max_epochs=9", "trainer.max_steps=12"], monkeypatch)
    assert last(run)["global_step"] == 12
    rates = [row["lr"] for row in run.metrics if "lr" in row]
    assert rates[0] == 0.01
    assert rates[-1] == pytest.approx(0.01 * 0.004), "shares are of 12 updates, not of 9 epochs"
