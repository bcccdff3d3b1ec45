"""Show progress while a run trains: a bar on a terminal, and a line per epoch in a log."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alexnet_pl.console import make_console
from alexnet_pl.data.length import length_summary
from alexnet_pl.files import naming
from alexnet_pl.parallel.memory import sharing_summary
from alexnet_pl.runs.run import JOB_VARIABLE
from alexnet_pl.training.module import ImageClassifier

SLOW = 0.1
"""Share of an epoch's time spent waiting for data; above it, the log has a hint"""


class EpochLines(ProgressBar):
    """Print one line per epoch on standard output and in train.log. On a terminal, show a bar over the whole run.

    Without a log it prints nothing; only the first process of a run has a log.
    """

    def __init__(self, log: Path | None, title: str) -> None:
        super().__init__()
        self.log_file, self.title, self.show, self.hinted = log, title, True, False
        self.console = make_console()
        self.bar: Progress | None = None
        self.started = 0.0

    def say(self, text: str) -> None:
        """Print a line, and add it to train.log."""
        if self.log_file is None:
            return
        with naming(self.log_file), self.log_file.open("a", encoding="utf-8") as file:
            print(text, file=file)
        if self.show:
            (self.bar.console if self.bar else self.console).print(text)

    def on_train_start(self, trainer: pl.Trainer, pl_module: ImageClassifier) -> None:  # type: ignore[override]
        self.started = time.perf_counter()
        epochs = trainer.max_epochs or 0
        place = f"job {os.environ[JOB_VARIABLE]}: " if JOB_VARIABLE in os.environ else ""
        resumed = f", continued after {trainer.global_step:,} steps" if trainer.global_step else ""
        self.say(f"{place}{self.title}{resumed}")
        cfg = pl_module.cfg
        for line in (sharing_summary(cfg), length_summary(cfg, pl_module.images_per_epoch)):
            if line:
                self.say(f"  {line}")
        if self.log_file and self.show and self.console.is_terminal:
            total = trainer.num_training_batches * epochs if epochs > 0 else None
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps, at most"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self.console,
            )
            self.task = self.bar.add_task(place.rstrip(": ") or "training", total=total, completed=trainer.global_step)
            self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if self.bar:
            self.bar.update(self.task, completed=trainer.global_step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: ImageClassifier) -> None:  # type: ignore[override]
        names = {"val/error": "validation", "train_eval/error": "training subset"}
        results = pl_module.eval_results
        shown = [f"{name} {results[key]:.3f}" for key, name in names.items() if key in results]
        speed = pl_module.epoch_speed()
        waiting = (
            f" ({100 * speed['data_wait']:.0f} % of the time waiting for data)" if speed["data_wait"] > 0.01 else ""
        )
        epoch, of = trainer.current_epoch + 1, f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        minutes, seconds = divmod(round(time.perf_counter() - self.started), 60)
        self.say(
            f"  epoch {epoch:3d}{of}  error: training {pl_module.epoch_error():.3f}  "
            f"{'  '.join(shown)}  {speed['images_per_second']:,.0f} images/s{waiting}  {minutes}:{seconds:02d}"
        )
        if speed["data_wait"] > SLOW and not self.hinted:
            self.hinted = True
            self.say(
                "  hint: the net is faster than its data. A raw store is read many times as fast as one of JPEGs; more "
                "data.workers help as long as there are CPUs; a store should lie on a fast disk of this machine"
            )

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        names = {"test/error": "error", "test/top5_error": "top-5"}
        metrics = trainer.callback_metrics
        shown = "  ".join(f"{name} {metrics[key]:.3f}" for key, name in names.items() if key in metrics)
        self.say(f"  test, {pl_module.cfg.test_views} views averaged: {shown}")  # type: ignore[union-attr]

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    def disable(self) -> None:
        self.show = False

    def enable(self) -> None:
        self.show = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        self.say(" ".join(map(str, args)))
