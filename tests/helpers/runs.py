"""Small runs: their configurations, training in this process, and comparing what they left."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from alexnet_pl import ROOT
from alexnet_pl.config.choices import LoggerName
from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.data import datasets
from alexnet_pl.jobs import checks
from alexnet_pl.jobs.compose import compose, find_mistakes, named_sweep, register, to_config, translated
from alexnet_pl.jobs.sweep import Composer
from alexnet_pl.runs.run import Run
from alexnet_pl.training.fit import fit as fit_run
from alexnet_pl.training.module import ImageClassifier

TINY = (
    "logger=csv",
    "model.width=0.125",
    "train_eval_images=200",
    "data.batch_size=64",
    "train_error_window=64",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=16",
    "trainer.limit_val_batches=1",
)
"""Overrides under which a run takes a second besides its start."""

NET = [
    "model=alexnet", "model.input_size=67", "data.batch_size=50", "train_eval_images=0",
    "train_error_window=150", "logger=csv",
    "model.widths={conv1: 4, conv2: 4, conv3: 4, conv4: 4, conv5: 4, fc6: 8, fc7: 8}",
    "trainer.limit_train_batches=8", "trainer.limit_val_batches=2", "data.resize=72", "data.crop_size=67",
    "data.random_flip=true",
]  # fmt: skip


def run_config(*overrides: str) -> Config:
    """Return the checked configuration of `alexnet-train OVERRIDES`."""
    if named_sweep(overrides) or find_mistakes(overrides):
        cfg = compose(overrides)
        checks.check(cfg)
        return cfg
    return job_config(*overrides)


def job_config(*overrides: str) -> Config:
    """Return the same as of a job of a sweep, which shares a composition with others: that takes a tenth of the time.

    Overrides that begin with `sweep=NAME` set all of the sweep's parameters.
    """
    with translated():
        cfg = to_config(composer().compose(OverridesParser.create().parse_overrides(list(overrides))))
    checks.check(cfg)
    return cfg


@functools.cache
def composer() -> Composer:
    """Return what composes for all tests of a process; tests/jobs/test_sweep.py compares it with Hydra."""
    register()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return Composer(loader.load_configuration("config", [], RunMode.MULTIRUN), loader)


def fit(folder: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch, stop_in: int | None = None) -> Run:
    """Train in this process; a signal arrives in the batch of this number, counted from 1."""
    cfg = run_config(*NET, *overrides)
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
            fit_run(cfg, run)
    finally:
        assert run.lock
        run.lock.close()  # as the end of its process would
    return run


def last_checkpoint(run: Run) -> dict:
    """Return what the last checkpoint of a run holds."""
    return torch.load(run.last, weights_only=True)


def assert_same_training(a: Run, b: Run) -> None:
    """Compare weights, velocities and every recorded number but the speed, bit for bit."""
    left, right = last_checkpoint(a), last_checkpoint(b)
    assert left["global_step"] == right["global_step"]
    for name, weights in left["state_dict"].items():
        assert torch.equal(weights, right["state_dict"][name]), name
    for i, state in left["optimizer_states"][0]["state"].items():
        assert torch.equal(state["velocity"], right["optimizer_states"][0]["state"][i]["velocity"])
    speed = {"images_per_second", "data_wait"}
    rows = [[{k: v for k, v in row.items() if k not in speed} for row in run.metrics] for run in (a, b)]
    assert rows[0] == rows[1]


def offline_run(folder: Path, *overrides: str) -> Run:
    """Return a run that is done, as far as W&B sees one; its W&B file is none that could be sent."""
    cfg = run_config(*overrides)
    run = Run(folder)
    run.start(as_dict(cfg), [])
    run.finish({"val/error": 0.5}, 1.0)
    run.release()
    if cfg.logger.name is LoggerName.wandb:
        part = folder / "wandb" / "offline-run-20260101_000000-abc" / "run-abc.wandb"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"x")
    return run
