"""How a run ends before its time: what it says, what it leaves, and that the same command goes on."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest

from alexnet_pl.config.schema import Trainer, as_dict
from alexnet_pl.errors import Disconnected, Interrupted, NotFinite, UserError
from alexnet_pl.runs.run import Run
from alexnet_pl.training import fit as training
from tests.helpers.runs import assert_same_training, fit, last_checkpoint, run_config

CUT = ["optim=released_170", "trainer.max_epochs=2", "trainer.max_time=00:00:00:00"]


@pytest.mark.slow
def test_max_time_cuts_a_run_off_and_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Run(tmp_path / "cut")
    for steps in (1, 2):
        with pytest.raises(Interrupted, match=r"trainer\.max_time is over; .*: the same command continues"):
            fit(run.folder, CUT, monkeypatch)
        assert not run.done
        assert last_checkpoint(run)["global_step"] == steps, "the time begins anew"
    monkeypatch.setattr(training, "seconds_at_a_time", lambda trainer: 1e6)
    fit(run.folder, CUT, monkeypatch)
    assert run.done
    assert_same_training(run, fit(tmp_path / "whole", CUT, monkeypatch))


@pytest.mark.slow
def test_max_time_does_not_cut_off_what_is_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = fit(tmp_path, [*CUT, "trainer.max_epochs=1", "trainer.limit_train_batches=1", "test_views=1"], monkeypatch)
    assert "test/error" in run.done["metrics"]


@pytest.mark.parametrize(
    ("trainer", "seconds"),
    [
        (Trainer(max_epochs=2), math.inf),
        (Trainer(max_epochs=2, max_time="01:00:00:05"), 24 * 3600 + 5),
        (Trainer(max_steps=2, max_time="00:01:00:00"), 3600),
        (Trainer(max_epochs=-1, max_time="00:01:00:00"), math.inf),
    ],
)
def test_max_time_alone_is_how_long_a_run_is(trainer: Trainer, seconds: float):
    """Then Lightning ends it, and it is done."""
    assert training.seconds_at_a_time(trainer) == seconds


@pytest.mark.slow
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As nohup has it with SIGHUP."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        run = fit(tmp_path, ["trainer.max_epochs=1", "trainer.limit_train_batches=3"], monkeypatch, stop_in=2)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert run.done


@pytest.mark.parametrize(
    ("error", "earlier", "reason"),
    [
        (KeyboardInterrupt(), "", "stopped by SIGINT"),
        (Disconnected("closed"), "", str(Disconnected("closed"))),
        (Disconnected("closed"), "the loss became nan", "the loss became nan"),
        (NotFinite("the loss became nan"), str(Disconnected("closed")), "the loss became nan"),
        (NotFinite("the loss became nan"), "no space left", "no space left"),
    ],
)
def test_a_run_says_why_it_ended(
    error: BaseException, earlier: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of several processes the first that knows."""

    def fails(cfg: object, run: Run) -> None:
        raise error

    monkeypatch.setattr(training, "fit", fails)
    run = Run(tmp_path)
    if earlier:
        run.fail(earlier)
    with pytest.raises(UserError):
        training.work(run_config(), run)
    assert run.failure == reason


@pytest.mark.slow
def test_ctrl_c_for_the_second_time_is_told_as_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lightning makes an exit of it."""
    cfg = run_config("logger=csv", "trainer.max_epochs=1", "model.width=0.25")
    run = Run(tmp_path)
    run.start(as_dict(cfg), [])
    monkeypatch.setattr(training.ImageClassifier, "training_step", lambda *args: [press(), press()])

    def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped by SIGINT"):
        training.work(cfg, run)
    assert run.failure == "stopped by SIGINT"
    run.release()
