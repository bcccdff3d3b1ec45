"""Stopped at an awkward moment and started again, a run ends bit for bit as one that was never stopped."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from alexnet_pl.errors import Interrupted
from alexnet_pl.runs.run import Run
from tests.helpers.runs import assert_same_training, fit, last_checkpoint

slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("overrides", "batch", "saved_at"),
    [
        (["optim=released_170", "trainer.max_epochs=2"], 3, 3),
        slow(["optim=sgd_2012", "trainer.max_epochs=null", "trainer.max_steps=14"], 8, 8),
        slow(["optim=released_145", "trainer.max_epochs=2", "trainer.accumulate_grad_batches=3"], 4, 2),
        slow(["optim=paper", "optim.plateau_patience=1", "trainer.max_epochs=2", "trainer.val_check_interval=4"], 4, 5),
        slow(["optim=released_170", "trainer.max_epochs=2", "trainer.precision=64-true"], 3, 3),
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
    assert last_checkpoint(stopped)["global_step"] == saved_at
    fit(stopped.folder, overrides, monkeypatch)
    assert_same_training(stopped, whole)
    assert last_checkpoint(stopped).get("plateau") == last_checkpoint(whole).get("plateau")
    assert [row["lr"] for row in whole.metrics if "lr" in row]


def test_max_steps_ends_the_run_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = fit(tmp_path, ["optim=released_170", "trainer.max_epochs=9", "trainer.max_steps=12"], monkeypatch)
    assert last_checkpoint(run)["global_step"] == 12
    rates = [row["lr"] for row in run.metrics if "lr" in row]
    assert rates[0] == 0.01
    assert rates[-1] == pytest.approx(0.01 * 0.004), "shares are of 12 updates, not of 9 epochs"
