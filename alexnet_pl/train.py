"""Train: one run, or a sweep of runs.

    python -m alexnet_pl.train model.activation=tanh           one run
    python -m alexnet_pl.train -m model.activation=relu,tanh   one run per value, each in a process of its own
    python -m alexnet_pl.train sweep=figure1                   a named sweep; again: it continues where it stopped

Hydra composes, we check once, the folder is claimed. A run on one device stays in this process. Several devices, and
each job of a sweep, are processes of their own (training/fit.py). torch is imported when a run starts, so that help
and completion stay quick.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from alexnet_pl.config.help import help_text
from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.console import exit_with, start_command
from alexnet_pl.errors import ConfigError, Disconnected, Interrupted, UserError
from alexnet_pl.files import ROOT
from alexnet_pl.jobs import checks, compose, launch, local
from alexnet_pl.parallel import layouts
from alexnet_pl.runs.run import JOB_VARIABLE, JOBS_VARIABLE, Run

FLAGS = ("-m", "--multirun")
"""Hydra's parser wants them before the overrides; people type them anywhere"""


def job(composed: DictConfig) -> None:
    """Run what Hydra composed: the run itself, or a job of a sweep as a task of Slurm. `sweep` has checked it."""
    hydra_config = HydraConfig.get()
    cfg = compose.to_config(composed)
    run, overrides = Run(Path(hydra_config.runtime.output_dir)), list(hydra_config.overrides.task)
    if hydra_config.mode is RunMode.MULTIRUN:
        place = f"{hydra_config.job.num + 1} of {os.environ.get(JOBS_VARIABLE, '?')}"
        local.run_jobs([local.Job(run, cfg, overrides, place)], at_once=1)
    elif run.done:
        launch.join_group(layouts.layout(cfg.trainer))
        if launch.rank() == 0:
            run.record(as_dict(cfg))
            print(f"{run.folder} is done already: remove the folder to train again")
    else:
        try:
            train(cfg, run, overrides)
        except UserError as error:  # here already: Hydra would add lines of its own
            exit_with(error)


def train(cfg: Config, run: Run, overrides: list[str]) -> None:
    """Claim the run's folder, and train in this process, or in one for each device.

    Raises:
        UserError: the folder is another's, or the run failed or was stopped.
    """
    where = layouts.layout(cfg.trainer)
    joined = launch.join_group(where)
    if launch.rank() == 0:
        run.start(as_dict(cfg), overrides)
    if joined or where.processes == 1:
        from alexnet_pl.training import fit

        fit.work(cfg, run)
        return
    before = run.failed_at
    ending, stop = launch.run(lambda: local.start(run, cfg, {}, before))
    if not ending.code:
        return
    if stop.signum:
        told = "" if run.failed_at in (0, before) else run.failure
        known = told and not told.startswith(Disconnected.words)  # else they were stopped as they started
        print(f"error: {told if known else Interrupted(stop.signum, kept='')}", file=sys.stderr)
        sys.exit(128 + stop.signum)
    print(f"error: {local.failure_reason(ending, run, before)}", file=sys.stderr)
    sys.exit(ending.code if ending.code > 0 else 128 - ending.code)


def quote_path(word: str) -> str:
    """Return an override whose value is a path as Hydra takes it, whatever is in its name."""
    key, _, path = word.partition("=")
    if key not in ("ckpt_path", "pretrained") or path[:1] in ("'", '"', "") or path == "null":
        return word
    escaped = path.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def refuse_mistakes(words: list[str]) -> None:
    """Raise all mistakes among the overrides at once, and those of the rest; Hydra would stop at the first."""
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    asks_shell = {"-sc", "--shell-completion"} & set(words)  # what follows them are no overrides
    mistakes = {} if asks_shell else compose.find_mistakes(overrides)
    if not mistakes:
        return
    sentences = list(mistakes.values())
    if not set(FLAGS) & set(words) and not compose.named_sweep(words):
        try:
            checks.check(compose.compose([word for word in overrides if word not in mistakes]), to_run=False)
        except ConfigError as error:
            sentences += error.sentences
    raise ConfigError(*sentences)


def explain_sweep(words: list[str]) -> None:
    """Say on stderr what `--cfg` does not show of a sweep: the settings of its jobs."""
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    if named := compose.named_sweep(overrides):
        job = compose.first_job(overrides)
        print(f"{named} is several configurations; to see one of them, add {job}", file=sys.stderr)


def main() -> None:
    """Run the command. Exit code 0: done; 1: a mistake or a failure; 75: folder in use; 128 + signal: stopped.

    SIGALRM stands for trainer.max_time: exit code 142.
    """
    start_command(trains=True)
    os.environ.pop(JOB_VARIABLE, None)  # no sweep starts this command
    if {"--help", "-h"} & set(sys.argv):
        print(help_text(), end="")
        return
    os.environ.pop("MPLBACKEND", None)  # as `exit_on_error` does
    compose.register()
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to here, where they become sentences
    sys.argv[1:] = sorted(map(quote_path, sys.argv[1:]), key=lambda word: word not in FLAGS)
    try:
        launch.started()
        refuse_mistakes(sys.argv[1:])
        if {"--cfg", "-c"} & set(sys.argv):
            explain_sweep(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")(job)()
    except KeyboardInterrupt:
        exit_with(Interrupted(signal.SIGINT, kept=""))
    except Exception as error:
        reason = compose.user_error(error)
        if full or reason is None:
            raise
        exit_with(reason)


if __name__ == "__main__":
    import alexnet_pl.train  # under its own name, so that launchers find the job in their processes

    alexnet_pl.train.main()
