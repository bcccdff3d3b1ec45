"""Checkpoints: written whole or not at all, after every epoch and when someone asks the run to stop."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from alexnet_pl.errors import ConfigError, Interrupted
from alexnet_pl.files import beside
from alexnet_pl.runs import Run


class WholeFiles(TorchCheckpointIO):
    """Write each checkpoint beside its place, then rename: a kill or a full disk leaves the old one intact."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as part:
            torch.save(checkpoint, part)


def images_seen(path: Path) -> int:
    """The pictures a run had trained on when a checkpoint was written.

    Raises:
        ConfigError: the file is not a checkpoint of a run.
    """
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True)["progress"]["images_seen"])
    except Exception as error:  # whatever a damaged file makes torch say
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(f"{path} cannot be read ({reason}): remove it to start the run again") from error


def every_epoch(run: Run, with_validation: bool) -> list[pl.Callback]:
    """last.ckpt after each epoch, best.ckpt where the validation error was lowest."""
    keep = partial(ModelCheckpoint, run.last.parent, enable_version_counter=False, save_on_train_epoch_end=True)
    last = keep(filename="last")
    best = keep(filename="best", monitor="val/error", mode="min")
    return [last, best] if with_validation else [last]


class StopAfter(pl.Callback):
    """End the run after so many updates.

    Lightning's own max_steps takes a run that goes on after a whole epoch for one that stopped in its middle.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop |= trainer.global_step >= self.steps

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        trainer.should_stop |= trainer.global_step >= self.steps


class StopOnSignal(pl.Callback):
    """On SIGINT (Ctrl-C) or SIGTERM: finish the step, write last.ckpt, raise `Interrupted`.

    A second signal stops at once.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.signum: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals inside, and put back what was there before."""
        before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning has put a handler of its own in front by now: it would break off where we still go on."""
        for s in (signal.SIGINT, signal.SIGTERM):
            signal.signal(s, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.signum is None:
            return
        # First comes what a checkpoint would lose: an epoch's end, a validation that is due, gradients on their way.
        ends = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        validates = trainer.enable_validation and (batch_idx + 1) % (trainer.val_check_batch or math.inf) == 0
        if not ends and not validates and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            trainer.save_checkpoint(self.run.last)
            raise Interrupted(self.signum)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        if self.signum is not None and self.run.last.is_file():
            raise Interrupted(self.signum, "training is done and saved")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.signum is not None and self.run.last.is_file():
            raise Interrupted(self.signum)
