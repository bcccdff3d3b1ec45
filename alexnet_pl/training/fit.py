"""Train one run whose folder is claimed: in the process that was typed, or as one of several that it started.

python -m alexnet_pl.training.fit FOLDER     what is started; the configuration is FOLDER/config.yaml
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, Timer
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from alexnet_pl.config.schema import Config, Trainer, from_dict
from alexnet_pl.data.datamodule import ImageDataModule
from alexnet_pl.errors import ConfigError, Disconnected, Interrupted, UserError, find_user_error
from alexnet_pl.jobs import launch
from alexnet_pl.model.build import set_arithmetic
from alexnet_pl.parallel import layouts, strategies
from alexnet_pl.runs import pretrained
from alexnet_pl.runs.run import Run
from alexnet_pl.training import checkpoints, loggers, watchdog
from alexnet_pl.training.module import ImageClassifier
from alexnet_pl.training.progress import EpochLines


def fit(cfg: Config, run: Run) -> None:
    """Train a claimed run from its last checkpoint, if there is one, and set the done mark.

    Raises:
        ConfigError, TrainingError: a mistake or a failure, in one sentence.
        Interrupted: a signal asked for the end; the checkpoint is written.
    """
    started, first = time.perf_counter(), launch.rank() == 0
    if cfg.trainer.profiler is None:  # a profiler reports through Lightning's log
        silence_lightning()
    set_arithmetic(cfg.trainer.benchmark is True)
    resume = checkpoints.find_start(cfg, run)
    lines = EpochLines(run.folder / "train.log" if first else None, run.folder.name)
    lines.say(layouts.device_summary(cfg.trainer))
    run_loggers = loggers.build_loggers(cfg, run)
    try:
        datamodule = ImageDataModule(cfg)
        classifier = ImageClassifier(cfg, datamodule.input_size)
        if cfg.pretrained and resume is None:
            for line in pretrained.load_pretrained(classifier.net, cfg):
                lines.say(line)
        stop = checkpoints.StopOnSignal(run, seconds_at_a_time(cfg.trainer))
        trainer = build_trainer(cfg, run, run_loggers, [stop, *build_callbacks(cfg, run, lines)])
        with translated_refusals(MisconfigurationException), stop.listening():
            with checkpoints.restoring(resume, classifier, stop):
                trainer.fit(classifier, datamodule, ckpt_path=resume)
            if cfg.test_views:
                trainer.test(classifier, datamodule, verbose=False)
    except BaseException as error:
        loggers.finish_wandb(exit_code=1)
        if layouts.layout(cfg.trainer).processes > 1 and (reason := strategies.lost_connection(error)):
            raise Disconnected(reason) from error
        raise
    metrics = classifier.results | {"images_seen": classifier.images_seen}
    loggers.keep_checkpoint(run, cfg.logger.log_model, {"metrics": metrics})
    loggers.finish_wandb(exit_code=0)
    if first:
        run.finish(metrics, time.perf_counter() - started)


def build_callbacks(cfg: Config, run: Run, lines: EpochLines) -> list[pl.Callback]:
    """Return what watches, shows and saves a run."""
    callbacks: list[pl.Callback] = [watchdog.Watchdog(cfg, lines.say)]
    if cfg.trainer.enable_progress_bar is not False:
        callbacks.append(lines)
    if cfg.trainer.enable_checkpointing is not False:
        callbacks += checkpoints.epoch_checkpoints(run, cfg.trainer.limit_val_batches != 0)
    if cfg.stop_at_train_error is not None:
        callbacks.append(
            EarlyStopping(
                "train/epoch_error",
                stopping_threshold=cfg.stop_at_train_error,
                patience=10**9,  # only the threshold ends the run
                check_on_train_epoch_end=True,
            )
        )
    if (cfg.trainer.max_steps or -1) > 0:
        callbacks.append(checkpoints.StopAfter(cfg.trainer.max_steps or -1))
    return callbacks


def build_trainer(
    cfg: Config, run: Run, run_loggers: list[pl.loggers.Logger], callbacks: list[pl.Callback]
) -> pl.Trainer:
    """Return Lightning's Trainer for a run.

    Raises:
        ConfigError: Lightning refuses an argument.
    """
    options = strategies.trainer_options(cfg.trainer)
    if options.pop("max_steps", -1) > 0:  # `StopAfter` does it
        options.setdefault("max_epochs", -1)
    if seconds_at_a_time(cfg.trainer) < math.inf:  # `StopOnSignal` does it
        del options["max_time"]
    options["plugins"].append(checkpoints.AtomicCheckpointIO(run))
    for name in [name for name in os.environ if name.startswith("PL_")]:  # Lightning would add them to the options
        del os.environ[name]
    with translated_refusals(ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException):
        trainer = pl.Trainer(**options, logger=run_loggers, callbacks=callbacks, enable_model_summary=False)
    # Lightning 2.6 broadcasts and waits for the device in each step of several processes, to ask whether one has had
    # SIGTERM (Lightning-AI/pytorch-lightning issue 21487). `StopOnSignal` asks, without the device.
    if hasattr(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor"):
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer


def seconds_at_a_time(t: Trainer) -> float:
    """Return after how many seconds trainer.max_time cuts a run off, which the same command continues.

    Infinite without it, and where it alone says how long the run is: Lightning ends that one, and it is done.

    Raises:
        ConfigError: it is no time.
    """
    if t.max_time is None or max(t.max_epochs or -1, t.max_steps or -1) < 0:
        return math.inf
    with translated_refusals(MisconfigurationException):
        return Timer(t.max_time).time_remaining() or 0.0


@contextmanager
def translated_refusals(*kinds: type[Exception]) -> Iterator[None]:
    """Raise what Lightning refuses of the trainer group as one sentence."""
    try:
        yield
    except kinds as error:
        raise ConfigError(f"trainer: Lightning refuses these options: {' '.join(str(error).split())}") from error


def silence_lightning() -> None:
    """Silence what Lightning prints about itself; our own lines and errors say what matters here."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")


# ------------------------------------------------------------------------------------------------ one process


def work(cfg: Config, run: Run) -> None:
    """Do this process's part of a run to its end; of several processes, the first to fail says why in the folder.

    Raises:
        UserError: the run failed or was stopped, in one sentence.
    """
    try:
        fit(cfg, run)
        strategies.shutdown_process_group()
    except BaseException as error:
        reason = find_user_error(error)
        if isinstance(reason, Interrupted) and isinstance(error, Exception):  # all of them stop
            strategies.shutdown_process_group()
        run.require()  # else there is no place to leave a word in
        if not run.failure or (run.failure.startswith(Disconnected.words) and not isinstance(reason, Disconnected)):
            run.fail(str(reason or f"{type(error).__name__}: {error}"))
        strategies.exit_without_farewell(reason.exit_code if reason else 1)
        if reason is None or reason is error:
            raise
        raise reason from error


def say_done(run: Run) -> None:
    """Print where a run is that ended well; of several processes, the first speaks."""
    if launch.rank() == 0:
        print(f"done: {run.folder}", flush=True)


def main() -> None:
    """Run as a process that the command started. It prints no reason: the one that started it does, once."""
    run = Run(Path(sys.argv[1]))
    try:
        run.id = run.identity.get("id", "")
        work(from_dict(run.config), run)
    except UserError as reason:
        sys.exit(reason.exit_code)
    say_done(run)


if __name__ == "__main__":
    main()
