"""Checkpoints: written whole or not at all, after every epoch and when someone asks the run to stop."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Container, Iterator
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
from alexnet_pl.console import handling
from alexnet_pl.errors import ConfigError, Interrupted, first_line
from alexnet_pl.files import atomic_path
from alexnet_pl.jobs import launch
from alexnet_pl.runs.naming import config_differences
from alexnet_pl.runs.run import Run, find_checkpoint

FIXED_KEYS = (
    "seed",
    "model.",
    "data.",
    "optim.",
    "trainer.precision",
    "trainer.accumulate_grad_batches",
    "trainer.gradient_clip",
    "trainer.more.gradient_clip_algorithm",
    "trainer.limit_train_batches",
)
"""Keys that a run cannot change when it moves to other devices"""
AGREE_EVERY = 16
"""Steps after which the processes on GPUs agree whether to stop"""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write each checkpoint beside its place, then rename: a kill or a full disk leaves the old one intact."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            torch.save(checkpoint, part)


def find_start(cfg: Config, run: Run) -> Path | None:
    """Return the checkpoint to go on from, and drop rows of metrics.csv from after it.

    Raises:
        ConfigError: `ckpt_path` is of another net, other data or another rule.
    """
    resume, origin = run.last if run.last.is_file() else None, run
    if resume is None and cfg.ckpt_path:
        resume = find_checkpoint(cfg.ckpt_path)
        check_origin(resume, cfg)
        origin = Run(resume.parent.parent)
    if launch.rank() == 0:
        run.rewind(images_seen(resume) if resume else 0, origin)
    return resume


def images_seen(path: Path) -> int:
    """Return how many images a run had trained on when a checkpoint was written.

    Raises:
        ConfigError: the file is not a checkpoint of a run.
    """
    return int(_read(path, "remove it to start the run again")["progress"]["images_seen"])


def check_origin(path: Path, cfg: Config) -> None:
    """Refuse a checkpoint to start from that a run of this configuration could not have written; devices do not count.

    Raises:
        ConfigError: the file is not a checkpoint of a run, or one of another net, other data or another rule.
    """
    changed = config_differences(_read(path, "give another ckpt_path")["config"], as_dict(cfg))
    precisions = {_weight_precision(value) for value in changed.get("trainer.precision", ())}
    if len(precisions) == 1:
        changed.pop("trainer.precision")
    for key in ("model.compile_lrn", "model.channels_last"):  # how it is computed, not what
        changed.pop(key, None)
    changed = {key: was for key, was in changed.items() if key.startswith(FIXED_KEYS)}
    if changed:
        differences = ", ".join(f"{key} is {old} there and {new} here" for key, (old, new) in changed.items())
        raise ConfigError(
            f"ckpt_path={path} is of another run ({differences}): a run can only change its devices and length"
        )


def _weight_precision(precision: str | None) -> str:
    """Return the precision in which a trainer.precision keeps the weights; the mixed ones compute in another."""
    return precision if precision in ("64-true", "64", "bf16-true", "16-true") else "32-true"


def _read(path: Path, advice: str) -> dict[str, Any]:
    """Return the progress and the configuration in a checkpoint.

    Raises:
        ConfigError: the file cannot be read; says `advice`.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return {key: checkpoint[key] for key in ("progress", "config")}
    except Exception as error:  # whatever a damaged file makes torch say
        raise ConfigError(f"{path} cannot be read ({first_line(error)}): {advice}") from error


def epoch_checkpoints(run: Run, with_validation: bool) -> list[pl.Callback]:
    """Return callbacks that write last.ckpt after each epoch, and best.ckpt where the validation error is lowest."""
    checkpoint = partial(ModelCheckpoint, run.last.parent, enable_version_counter=False, save_on_train_epoch_end=True)
    last = checkpoint(filename="last")
    best = checkpoint(filename="best", monitor="val/error", mode="min")
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


def is_between_updates(trainer: pl.Trainer, batches: int) -> bool:
    """Return whether a checkpoint after so many batches of an epoch loses nothing.

    It would lose an epoch's end, a validation that is due, and gradients that accumulate. Lightning has no public
    way to ask for the first two: these are attributes of its loops as of version 2.6.
    """
    ends_epoch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    validates = trainer.enable_validation and batches % (trainer.val_check_batch or math.inf) == 0
    accumulates = batches % trainer.accumulate_grad_batches != 0
    return not (ends_epoch or validates or accumulates)


class StopOnSignal(pl.Callback):
    """On a signal that asks for the end: finish the step, write last.ckpt, raise `Interrupted`, on all processes alike.

    SIGINT (Ctrl-C) as a second signal stops at once.

    Args:
        seconds: of training after which it stops as well; SIGALRM stands for that.
    """

    def __init__(self, run: Run, seconds: float = math.inf) -> None:
        self.run, self.seconds, self.deadline = run, seconds, math.inf
        self.heard: Container[int] = ()  # signals that were not ignored at the start
        self.signum = 0  # the first signal that asked for the end; 0: none yet
        self.agreed = False  # whether all processes know
        self.cpu_group: Any = None  # of all processes

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals inside, and put back what was there before."""
        with handling(launch.STOP_SIGNALS, self._remember) as before:
            self.heard = before
            yield

    def _listen_again(self) -> None:
        """Take the signals back: Lightning has put a handler of its own in place, which would stop too early."""
        for s in launch.STOP_SIGNALS:
            signal.signal(s, self._remember if s in self.heard else signal.SIG_IGN)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Catch the signals again, and start the clock."""
        self._listen_again()
        self.deadline = time.monotonic() + self.seconds

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the test begin, however late it is."""
        self.deadline = math.inf
        if self.signum == signal.SIGALRM:
            self.signum, self.agreed = 0, False

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Catch the signals once more."""
        self._listen_again()

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        """Remember the first signal; Python calls this."""
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = self.signum or signum

    def _must_stop(self, trainer: pl.Trainer) -> bool:
        """Return whether any process was asked to stop; every process must call this after the same step."""
        if launch.is_orphaned():
            self.signum = self.signum or signal.SIGTERM
        if time.monotonic() > self.deadline:
            self.signum = self.signum or signal.SIGALRM
        if trainer.world_size > 1 and not self.agreed:
            self.cpu_group = self.cpu_group or dist.new_group(backend="gloo")
            signum = torch.tensor(self.signum)
            dist.all_reduce(signum, dist.ReduceOp.MAX, group=self.cpu_group)
            self.signum = int(signum)
        self.agreed = self.signum != 0
        return self.agreed

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop, if that was asked for, as soon as a checkpoint loses nothing."""
        # Agreeing takes as long as a small step on a GPU: there not after each.
        every = AGREE_EVERY if trainer.world_size > 1 and pl_module.device.type != "cpu" else 1
        if not self.agreed and (batch_idx % every or not self._must_stop(trainer)):
            return
        if is_between_updates(trainer, batch_idx + 1):
            trainer.save_checkpoint(self.run.last)
            raise Interrupted(self.signum)

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if self._must_stop(trainer) and self._has_checkpoint(trainer):
            raise Interrupted(self.signum, "training is done and saved")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._must_stop(trainer) and self._has_checkpoint(trainer):
            raise Interrupted(self.signum)

    def _has_checkpoint(self, trainer: pl.Trainer) -> bool:
        """Return whether there is a checkpoint, as the first process sees it: file systems of clusters lag behind."""
        return trainer.strategy.broadcast(self.run.last.is_file())
