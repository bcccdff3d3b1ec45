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
import torch.distributed as dist
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.errors import ConfigError, Interrupted
from alexnet_pl.files import beside
from alexnet_pl.jobs import launch
from alexnet_pl.runs.naming import config_differences
from alexnet_pl.runs.run import Run

FIXED_KEYS = (
    "seed",
    "model.",
    "data.",
    "optim.",
    "trainer.precision",
    "trainer.accumulate_grad_batches",
    "trainer.gradient_clip",
    "trainer.limit_train_batches",
)
"""What a run cannot change when it moves to other devices"""
AGREE_EVERY = 16
"""Steps between two moments at which the processes on GPUs ask each other whether to stop"""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write each checkpoint beside its place, then rename: a kill or a full disk leaves the old one intact."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as part:
            torch.save(checkpoint, part)


def images_seen(path: Path) -> int:
    """The images a run had trained on when a checkpoint was written.

    Raises:
        ConfigError: the file is not a checkpoint of a run.
    """
    return int(_read(path, "remove it to start the run again")["progress"]["images_seen"])


def check_origin(path: Path, cfg: Config) -> None:
    """Refuse a checkpoint to start from that a run of this configuration could not have written; devices do not count.

    Raises:
        ConfigError: the file is not a checkpoint of a run, or one of another net, other data or another rule.
    """
    there = _read(path, "give another ckpt_path")["config"]
    changed = config_differences(there, as_dict(cfg))
    precisions = {_of_weights(value) for value in changed.get("trainer.precision", ())}
    if len(precisions) == 1:
        changed.pop("trainer.precision")
    for key in ("model.compile_lrn", "model.channels_last"):  # how it is computed, not what
        changed.pop(key, None)
    changed = {key: was for key, was in changed.items() if key.startswith(FIXED_KEYS)}
    if changed:
        said = ", ".join(f"{key} is {old} there and {new} here" for key, (old, new) in changed.items())
        raise ConfigError(f"ckpt_path={path} is of another run ({said}): a run can only change its devices and length")


def _of_weights(precision: str | None) -> str:
    """In which type a trainer.precision keeps the weights; the mixed ones compute in another."""
    return precision if precision in ("64-true", "64", "bf16-true", "16-true") else "32-true"


def _read(path: Path, advice: str) -> dict[str, Any]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return {key: checkpoint[key] for key in ("progress", "config")}
    except Exception as error:  # whatever a damaged file makes torch say
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(f"{path} cannot be read ({reason}): {advice}") from error


def epoch_checkpoints(run: Run, with_validation: bool) -> list[pl.Callback]:
    """last.ckpt after each epoch, best.ckpt where the validation error was lowest of the epochs in this folder."""
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
    """On a signal that asks for the end: finish the step, write last.ckpt, raise `Interrupted`, on all processes alike.

    SIGINT (Ctrl-C) as a second signal stops at once.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.signum = 0  # asked for by this signal; 0: by none
        self.agreed = False  # whether all processes know
        self.group: Any = None  # of all processes, over their CPUs

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals inside, and put back what was there before."""
        before = {s: signal.signal(s, self._note) for s in launch.STOP_SIGNALS}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning has put a handler of its own in front by now: it would break off where we still go on."""
        for s in launch.STOP_SIGNALS:
            signal.signal(s, self._note)

    on_test_start = on_train_start

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = self.signum or signum

    def _asked(self, trainer: pl.Trainer) -> bool:
        """Whether any process was asked to stop; all must call this at the same moment."""
        if launch.is_orphaned():
            self.signum = self.signum or signal.SIGTERM
        if trainer.world_size > 1 and not self.agreed:
            self.group = self.group or dist.new_group(backend="gloo")
            signum = torch.tensor(self.signum)
            dist.all_reduce(signum, dist.ReduceOp.MAX, group=self.group)
            self.signum = int(signum)
        self.agreed = self.signum != 0
        return self.agreed

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Agreeing takes as long as a small step on a GPU: there not after each.
        every = AGREE_EVERY if trainer.world_size > 1 and pl_module.device.type != "cpu" else 1
        if not self.agreed and (batch_idx % every or not self._asked(trainer)):
            return
        # First comes what a checkpoint would lose: an epoch's end, a validation that is due, gradients on their way.
        ends = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        validates = trainer.enable_validation and (batch_idx + 1) % (trainer.val_check_batch or math.inf) == 0
        if not ends and not validates and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            trainer.save_checkpoint(self.run.last)
            raise Interrupted(self.signum)

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if self._asked(trainer) and self._saved(trainer):
            raise Interrupted(self.signum, "training is done and saved")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._asked(trainer) and self._saved(trainer):
            raise Interrupted(self.signum)

    def _saved(self, trainer: pl.Trainer) -> bool:
        """Whether there is a checkpoint, as the first process sees it: file systems of clusters lag behind."""
        return trainer.strategy.broadcast(self.run.last.is_file())
