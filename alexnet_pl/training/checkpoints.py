"""Write checkpoints, whole or not at all, after every epoch and when a signal asks the run to stop."""

from __future__ import annotations

import copy
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from alexnet_pl.config.schema import Config
from alexnet_pl.console import handling
from alexnet_pl.errors import Interrupted, first_line
from alexnet_pl.files import atomic_path, damaged, misfit
from alexnet_pl.jobs import launch
from alexnet_pl.runs import checkpoint as checkpoint_file
from alexnet_pl.runs.run import Run, find_checkpoint

AGREE_EVERY = 16
"""Steps between two times at which the processes on GPUs agree whether to stop"""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write each checkpoint beside its place, then rename it: a kill or a full disk leaves the old one intact.

    A second one of the same moment, such as last.ckpt after best.ckpt, becomes a hard link if the file system has them.
    If the run's folder was removed, it is not made again.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self._latest: tuple[Path, Any] | None = None  # the file that was written last, and Lightning's counts in it

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.run.require()
        path, moment = Path(path), copy.deepcopy(checkpoint.get("loops"))
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as part:
            if not (moment and self._latest and self._latest[1] == moment and _link(self._latest[0], part)):
                checkpoint_file.write(checkpoint, part)
        self._latest = path, moment


def _link(file: Path, name: Path) -> bool:
    """Give a file another name as a hard link; return whether that worked."""
    try:
        os.link(file, name)
    except OSError:
        return False
    return True


def find_start(cfg: Config, run: Run) -> Path | None:
    """Return the checkpoint to continue from, and drop the rows of metrics.csv from after it.

    Raises:
        ConfigError: it is damaged, or `ckpt_path` is of another net, other data or another rule.
    """
    resume, origin = run.last if os.path.lexists(run.last) else None, run
    if resume is None and cfg.ckpt_path:
        resume = find_checkpoint(cfg.ckpt_path)
        checkpoint_file.check_origin(resume, cfg)
        origin = Run(resume.parent.parent)
    if launch.rank() == 0:
        run.rewind(checkpoint_file.images_seen(resume) if resume else 0, origin)
    return resume


LIGHTNINGS = {
    "pytorch-lightning_version": str, "epoch": int, "global_step": int, "loops": {}, "callbacks": {},
    "optimizer_states": [{"state": {}, "param_groups": [{}]}], "lr_schedulers": [{}],
}  # fmt: skip
"""Lightning's own entries in a checkpoint"""


@contextmanager
def restoring(path: Path | None, net: nn.Module, stop: StopOnSignal) -> Iterator[None]:
    """Refuse a checkpoint of another net, or one that Lightning fails to restore inside, before training starts.

    Raises:
        ConfigError: it is damaged.
    """
    advice = "remove it to start the run again, or give another ckpt_path"
    try:
        if path:
            found = checkpoint_file.read(path, (*checkpoint_file.PROGRESS, *LIGHTNINGS), advice)
            if wrong := misfit(found, LIGHTNINGS) or _of_another_net(found, net):
                raise damaged(path, wrong, advice)
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if path is None or stop.has_started:
            raise
        raise damaged(path, f"it cannot be restored ({type(error).__name__}: {first_line(error)})", advice) from error


def _of_another_net(found: dict[str, Any], net: nn.Module) -> str:
    """Return why the weights or velocities of a checkpoint do not fit a net; empty if they fit."""
    here, there = (
        {name: tuple(p.shape) for name, p in state.items()} for state in (net.state_dict(), found["state_dict"])
    )
    if differing := [name for name in here | there if here.get(name) != there.get(name)]:
        name = differing[0]
        return f"{name} is of {there.get(name, 'no size')}, and the net's of {here.get(name, 'no size')}"
    states = [each["state"].values() for each in found["optimizer_states"]]
    if len(states) != 1:
        return f"it holds the states of {len(states)} optimisers"
    velocities = Counter(
        tuple(v.shape) for state in chain(*states) for v in dict(state).values() if isinstance(v, Tensor)
    )
    return "" if velocities <= Counter(here.values()) else "its velocities are of other sizes than the net's weights"


def epoch_checkpoints(run: Run, with_validation: bool) -> list[pl.Callback]:
    """Return callbacks that write last.ckpt after each epoch, and best.ckpt at the lowest validation error."""
    checkpoint = partial(ModelCheckpoint, run.last.parent, enable_version_counter=False, save_on_train_epoch_end=True)
    last = checkpoint(filename="last")
    best = checkpoint(filename="best", monitor="val/error", mode="min")
    return [best, last] if with_validation else [last]  # so that the last one knows the best


class StopAfter(pl.Callback):
    """End the run after a number of updates.

    If a run continues after a whole epoch, Lightning's own max_steps treats it as stopped in the middle of one.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop |= trainer.global_step >= self.steps

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        trainer.should_stop |= trainer.global_step >= self.steps


def is_between_updates(trainer: pl.Trainer, batches: int) -> bool:
    """Return whether a checkpoint after this many batches of an epoch loses nothing.

    It would lose the end of an epoch, a validation that is due, or gradients that accumulate. Lightning has no public
    way to ask for the first two. These are attributes of its loops in version 2.6.
    """
    ends_epoch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    validates = trainer.enable_validation and batches % (trainer.val_check_batch or math.inf) == 0
    accumulates = batches % trainer.accumulate_grad_batches != 0
    return not (ends_epoch or validates or accumulates)


class StopOnSignal(pl.Callback):
    """Stop on a signal: finish the step, write last.ckpt, raise `Interrupted`, on all processes at the same step.

    SIGINT (Ctrl-C) as a second signal stops at once.

    Args:
        seconds: seconds of training after which the run stops, too, as if by SIGALRM.
    """

    def __init__(self, run: Run, seconds: float = math.inf) -> None:
        self.run, self.seconds, self.deadline = run, seconds, math.inf
        self.has_started = False  # whether training has; all is restored by then
        self.heard: Container[int] = ()  # signals that were not ignored at the start
        self.signum = 0  # the first signal that asked for the end; 0: none yet
        self.agreed = False  # whether all processes know
        self.cpu_group: Any = None  # of all processes

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals inside, and restore the earlier handlers at the end."""
        with handling(launch.STOP_SIGNALS, self._remember) as before:
            self.heard = before
            yield

    def _listen_again(self) -> None:
        """Catch the signals again: Lightning has installed a handler of its own, which would stop too early."""
        for s in launch.STOP_SIGNALS:
            signal.signal(s, self._remember if s in self.heard else signal.SIG_IGN)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Catch the signals again, and start the clock."""
        self.has_started = True
        self._listen_again()
        self.deadline = time.monotonic() + self.seconds

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the test begin even if the time is over."""
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
        """Stop, if a process was asked to, as soon as a checkpoint loses nothing."""
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
        """Return whether the first process sees a checkpoint: on clusters, other machines may see a file later."""
        return trainer.strategy.broadcast(self.run.last.is_file())
