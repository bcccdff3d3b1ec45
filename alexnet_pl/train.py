"""Train: one run, or a sweep of runs.

    python -m alexnet_pl.train model.activation=tanh           one run
    python -m alexnet_pl.train -m model.activation=relu,tanh   one run per value, each in a process of its own
    python -m alexnet_pl.train sweep=figure1                   a named sweep; again: it continues where it stopped
    python -m alexnet_pl.train model=alexnet --describe        the net as a table; nothing runs
    python -m alexnet_pl.train model=alexnet --estimate        hours and memory of the run, from some measured steps

Only this file and sweep.py know Hydra; torch is imported when a run starts, so that help and completion stay quick.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from alexnet_pl import ROOT, cpu, describe
from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.errors import ConfigError, Interrupted, InUse, TrainingError, UserError
from alexnet_pl.jobs import checks, compose, launch, sweep  # noqa: F401
from alexnet_pl.parallel import layouts
from alexnet_pl.runs.run import Run, find_checkpoint

DESCRIBE, ESTIMATE, LINK = "--describe", "--estimate", "--link="
FULL_ERROR = "ALEXNET_PL_FULL_ERROR"
"""Environment variable: 1 where the user set Hydra's HYDRA_FULL_ERROR=1, for tracebacks"""


def fit(cfg: Config, run: Run) -> None:
    """Train one started run in its folder, from its last checkpoint if there is one, and set the done mark.

    Raises:
        ConfigError, TrainingError: a mistake or a failure, told in one sentence.
        Interrupted: a signal asked for the end; the checkpoint is written.
    """
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import EarlyStopping
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from alexnet_pl.data.datamodule import ImageDataModule
    from alexnet_pl.parallel import strategies
    from alexnet_pl.runs import trained
    from alexnet_pl.training import checkpoints, loggers, progress, watchdog
    from alexnet_pl.training.module import ImageClassifier

    started = time.perf_counter()
    if cfg.trainer.profiler is None:  # a profiler reports through Lightning's log
        _quieten()
    where, first = layouts.layout(cfg.trainer), launch.rank() == 0
    resume = run.last if run.last.is_file() else None
    origin = run
    if resume is None and cfg.ckpt_path:
        resume = find_checkpoint(cfg.ckpt_path)
        checkpoints.check_origin(resume, cfg)
        origin = Run(resume.parent.parent)
    if first:
        run.rewind(checkpoints.images_seen(resume) if resume else 0, origin)
    run_loggers = loggers.build_loggers(cfg, run) if first else []
    datamodule = ImageDataModule(cfg)
    classifier = ImageClassifier(cfg, datamodule.input_size)
    if cfg.pretrained and resume is None:
        trained.load_pretrained(classifier.net, cfg.pretrained)
    validates = cfg.trainer.limit_val_batches != 0
    stop = checkpoints.StopOnSignal(run)
    lines = progress.EpochLines(run.folder / "train.log" if first else None, run.folder.name)
    callbacks: list[pl.Callback] = [stop, watchdog.Watchdog(cfg, lines.say)]
    if cfg.trainer.enable_progress_bar is not False:
        callbacks.append(lines)
    if cfg.trainer.enable_checkpointing is not False:
        callbacks += checkpoints.epoch_checkpoints(run, validates)
    if cfg.stop_at_train_error is not None:
        callbacks.append(
            EarlyStopping(
                "train/epoch_error",
                stopping_threshold=cfg.stop_at_train_error,
                patience=10**9,  # only the threshold ends the run
                check_on_train_epoch_end=True,
            )
        )
    options = strategies.trainer_options(cfg.trainer, where, layouts.resolve_precision(cfg.trainer))
    options["plugins"].append(checkpoints.AtomicCheckpointIO())
    if options.get("max_steps", -1) > 0:
        callbacks.append(checkpoints.StopAfter(options.pop("max_steps")))
        options.setdefault("max_epochs", -1)
    try:
        with _refused(ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException):
            trainer = pl.Trainer(**options, logger=run_loggers, callbacks=callbacks)
        with _refused(MisconfigurationException), stop.listening():
            trainer.fit(classifier, datamodule, ckpt_path=resume)
            if cfg.test_views:
                trainer.test(classifier, datamodule, verbose=False)
    except BaseException as error:
        loggers.finish_wandb(exit_code=1)
        if where.processes > 1 and strategies.is_connection_error(error):
            raise TrainingError("another process of the run ended before its time") from error
        raise
    loggers.finish_wandb(exit_code=0)
    if first:
        run.finish(classifier.results | {"images_seen": classifier.images_seen}, time.perf_counter() - started)


@contextmanager
def _refused(*kinds: type[Exception]) -> Iterator[None]:
    """Tell in one sentence which options of the trainer group Lightning does not take."""
    try:
        yield
    except kinds as error:
        raise ConfigError(f"trainer: Lightning refuses these options: {' '.join(str(error).split())}") from error


def _quieten() -> None:
    """Silence what Lightning says about itself; what matters here is said by our own lines and errors."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")


# ------------------------------------------------------------------------------------------------ one job


def train(cfg: DictConfig) -> None:
    """What Hydra calls for each job: in a sweep, the same job again in its own process; else the run itself."""
    this = HydraConfig.get()
    run = Run(Path(this.runtime.output_dir))
    overrides = list(this.overrides.task)
    run_config = checks.check(cfg)
    where = layouts.layout(run_config.trainer)
    if this.mode is RunMode.MULTIRUN:
        at_once = str(this.launcher._target_).endswith("JoblibLauncher")
        share_gpus = at_once and layouts.wants_gpus(run_config.trainer) and layouts.gpu_count() > 0
        sweep.run_job(run, overrides, this.job.num, where, share_gpus)
        return
    plain = as_dict(run_config)
    joined, first = launch.in_process_group(where), launch.rank() == 0
    if run.done:
        if first:
            run.record(plain)
            print(f"{run.folder} is done already: remove the folder to train again")
        return
    if not joined:
        before = run.failed_at
        ending = launch.run(sweep.command(run, overrides), where, {})
        assert ending is not None
        _leave(ending, run, before)
        return
    if first:
        try:
            run.start(plain, overrides)
        except ConfigError as error:  # the folder is not ours: nothing is written there
            _end(error, aloud=True)
    try:
        fit(run_config, run)
        _leave_together()
    except BaseException as error:
        reason = sweep.user_error(error)
        if isinstance(reason, Interrupted):
            _leave_together()
        if not run.failure:  # of several processes, the first to fail knows why
            run.fail(str(reason or f"{type(error).__name__}: {error}"))
        if reason is None:
            raise
        _end(reason)  # here already: Hydra would add lines of its own
    if first:
        print(f"done: {run.folder}")


def _leave_together() -> None:
    """See `strategies.leave`; torch is imported by the time this is called."""
    from alexnet_pl.parallel import strategies

    strategies.shutdown_process_group()


def _leave(ending: launch.Ending, run: Run, before: int) -> None:
    """End as the run's processes did; the reason is told once."""
    if not ending.code:
        return
    if not ending.stopped:
        reason = sweep.failure_reason(ending, run, before)
        if ending.code != InUse.exit_code:
            print(f"error: {reason}", file=sys.stderr)
    elif run.failed_at not in (0, before):
        print(f"error: {run.failure}", file=sys.stderr)
    code = ending.code if ending.code > 0 else 128 - ending.code
    sys.exit(128 + ending.stopped if ending.stopped else code)


def _end(reason: UserError, aloud: bool = False) -> NoReturn:
    """Say why and exit; where `launch.run` watches several processes it will say so, unless this is to be `aloud`."""
    if aloud or not launch.is_watched():
        print(f"error: {reason}", file=sys.stderr)
    sys.exit(reason.exit_code)


def _quoted(word: str) -> str:
    """A path to a run as Hydra takes it."""
    key, _, path = word.partition("=")
    if key not in ("ckpt_path", "pretrained") or path[:1] in ("'", '"', "") or path == "null":
        return word
    return f"{key}={sweep.quoted(path)}"


def _look(words: list[str]) -> None:
    """Show what a configuration is, or what its run would take, and run nothing."""
    overrides = [word for word in words if word not in (DESCRIBE, ESTIMATE) and not word.startswith(LINK)]
    option = DESCRIBE if DESCRIBE in words else ESTIMATE
    if any(word.startswith("-") for word in overrides):
        raise ConfigError(f"{option} shows one configuration: give it overrides only, KEY=VALUE")
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = hydra.compose("config", overrides)
    os.environ.update(cpu.thread_environment(str(OmegaConf.select(composed, "trainer.precision") or "32-true")))
    cfg = checks.check(composed, to_run=False)
    if option == DESCRIBE:
        describe.show(cfg)
        return
    links = [word.removeprefix(LINK) for word in words if word.startswith(LINK)]
    try:
        link = float(links[-1]) if links else None
        if link is not None and not 0 < link < float("inf"):
            raise ValueError
    except ValueError as error:
        raise ConfigError(f"{LINK}{links[-1]} is not a rate: give gigabytes per second, {LINK}300") from error
    from alexnet_pl import estimate

    _quieten()
    estimate.show(cfg, link)


def main() -> None:
    """The command. Exit code 0: done; 1: a mistake or a failure; 75: the folder is in use; 128 + signal: stopped."""
    # What the user asked for; the processes of a run hear of it too.
    full = os.environ.setdefault(FULL_ERROR, os.environ.get("HYDRA_FULL_ERROR", "")) == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to here, where they become one sentence
    # Hydra's parser wants its flags before the overrides; people type them anywhere. And quotes around what holds = or
    # commas, as the names of run folders do.
    sys.argv[1:] = sorted(map(_quoted, sys.argv[1:]), key=lambda word: word not in ("-m", "--multirun"))
    try:
        if DESCRIBE in sys.argv or ESTIMATE in sys.argv:
            _look(sys.argv[1:])
            return
        hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")(train)()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        reason = sweep.user_error(error)
        if full or reason is None:
            raise
        _end(reason)


if __name__ == "__main__":
    import alexnet_pl.train  # under its own name, so that launchers find the job in their processes

    alexnet_pl.train.main()
