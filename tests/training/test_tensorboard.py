"""logger=tensorboard: event files hold what metrics.csv holds, also of a run that was stopped and continued."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from alexnet_pl.config.choices import LoggerName
from alexnet_pl.config.schema import Logger
from alexnet_pl.errors import ConfigError, Interrupted
from alexnet_pl.jobs import checks
from tests.helpers.runs import fit, run_config


def test_event_files_hold_the_rows_of_metrics_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    own = ["logger=tensorboard", "trainer.max_epochs=2"]
    with pytest.raises(Interrupted):
        fit(tmp_path / "run", own, monkeypatch, stop_in=7)
    run = fit(tmp_path / "run", own, monkeypatch)
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    names = {name for row in run.metrics for name in row} - {"step"}
    assert {"train/error", "train/loss", "val/error", "images_seen"} <= names
    assert names - set(events.Tags()["scalars"]) <= {"epoch"}
    for name in names - {"epoch"}:
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        wanted = [(row["step"], row[name]) for row in run.metrics if name in row]
        assert [step for step, _ in shown] == [step for step, _ in wanted], name
        assert [value for _, value in shown] == pytest.approx([value for _, value in wanted], rel=1e-6), name
    assert not (run.folder / "wandb").exists()


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    cfg = run_config("logger=csv")
    cfg.logger = Logger(LoggerName.tensorboard)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    checks.check(cfg, to_run=False)
    with pytest.raises(
        ConfigError, match=r"^logger=tensorboard needs the package tensorboard: pip install tensorboard$"
    ):
        checks.check(cfg)
