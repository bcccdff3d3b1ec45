"""Train one run, or a sweep of runs.

    python -m alexnet_pl.train model.activation=tanh           one run
    python -m alexnet_pl.train -m model.activation=relu,tanh   one run per value, each in a process of its own
    python -m alexnet_pl.train sweep=figure1                   a named sweep; again: it continues where it stopped

Hydra composes the configuration, we check it once, and the run claims its folder. A run on one device stays in this
process. A run on several devices, and each job of a sweep, gets processes of its own (training/fit.py). The import of
torch waits until a run starts, so that help and completion stay quick.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from alexnet_pl.config.help import all_keys_text, help_text
from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.console import exit_with, start_command
from alexnet_pl.errors import ConfigError, Disconnected, Interrupted, UserError
from alexnet_pl.files import ROOT
from alexnet_pl.jobs import checks, compose, launch, local
from alexnet_pl.jobs.mistakes import FOLDERS, find_mistakes, quote_text, user_error
from alexnet_pl.jobs.sweep import HydraCallback
from alexnet_pl.parallel import layouts
from alexnet_pl.runs.run import JOB_VARIABLE, JOBS_VARIABLE, Run

FLAGS = ("-m", "--multirun")
"""Flags that Hydra's parser wants before the overrides; people type them anywhere"""


def job(composed: DictConfig) -> None:
    """Run what Hydra composed: a run, or a job of a sweep as a task of Slurm. `jobs/sweep.py` has checked it."""
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
        UserError: the folder holds another run, or the run failed or was stopped.
    """
    where = layouts.layout(cfg.trainer)
    joined = launch.join_group(where)
    if launch.rank() == 0:
        run.start(as_dict(cfg), overrides)
    if joined or where.processes == 1:
        from alexnet_pl.training import fit

        try:
            fit.work(cfg, run)
        except ConfigError:
            if launch.rank() == 0:
                discard(run)
            raise
        fit.say_done(run)
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


def discard(run: Run) -> None:
    """Remove the folders that this process made for a run that was refused before it trained. Others stay."""
    made = HydraCallback.made
    trained = run.last.is_file() or (run.folder / "metrics.csv").is_file()
    if run.folder in made and not trained:
        with suppress(OSError):  # another run has come into one of them meanwhile
            shutil.rmtree(run.folder)  # before its lock goes: until then no other run can have begun in it
            for folder in made[1:]:
                folder.rmdir()
        run.release()


def refuse_mistakes(words: list[str]) -> None:
    """Raise all mistakes of the command at once. Hydra would stop at the first."""
    overrides = [word for word in words if ("=" in word and not word.startswith("-")) or word.startswith("~")]
    refuse_flags(words)
    asks_shell = {"-sc", "--shell-completion"} & set(words)  # what follows them are no overrides
    own = own_folders(words)
    mistakes = {} if asks_shell else find_mistakes(overrides, is_sweep(words), [*FOLDERS, *own])
    if not mistakes:
        return
    sentences = [sentence for said in mistakes.values() for sentence in said]
    if not is_sweep(words) and not own:
        try:
            checks.check(compose.compose([word for word in overrides if word not in mistakes]), to_run=False)
        except ConfigError as error:
            sentences += error.sentences
    raise ConfigError(*sentences)


def refuse_flags(words: list[str]) -> None:
    """Raise ConfigError for Hydra's flags that lack something, or that would bypass the checks here."""
    given, keys = set(words), {word.partition("=")[0] for word in words}
    if "--experimental-rerun" in keys:
        raise ConfigError("--experimental-rerun would bypass the checks of a run: leave it out")
    if "--resolve" in given and not given & {"--cfg", "-c"}:
        raise ConfigError("--resolve works only together with --cfg: add --cfg job")
    if empty := given & {"hydra.run.dir=", "hydra.sweep.dir="}:
        raise ConfigError(f"{min(empty)} is empty, perhaps by an unset variable: name a folder (. is the current one)")
    if given & {"-sc", "--shell-completion"} and not keys & {"install", "uninstall", "query"}:
        raise ConfigError("-sc takes install=SHELL, uninstall=SHELL or query=SHELL, as in -sc install=bash")


def own_folders(words: list[str]) -> list[Path]:
    """Return the folder of --config-dir, which has the user's own choices; none if it is not given."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd", nargs="?")
    folder = parser.parse_known_args(words)[0].config_dir
    return [Path(folder)] if folder and Path(folder).is_dir() else []


def is_sweep(words: list[str]) -> bool:
    """Return whether the command asks for several jobs."""
    return bool({*FLAGS, "hydra.mode=MULTIRUN"} & set(words) or compose.named_sweep(words))


def explain_sweep(words: list[str]) -> None:
    """Say on stderr how to see the settings of a sweep's jobs, which `--cfg` does not show."""
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    if named := compose.named_sweep(overrides):
        job = compose.first_job(overrides)
        print(f"{named} is several configurations; to see one of them, add {job}", file=sys.stderr)


def main() -> None:
    """Run the command. Exit code 0: done; 1: a mistake or a failure; 75: folder in use; 128 + signal: stopped.

    trainer.max_time counts as SIGALRM, exit code 142.
    """
    start_command(trains=True)
    os.environ.pop(JOB_VARIABLE, None)  # no sweep starts this command
    if {"--help", "-h"} & set(sys.argv):
        print(help_text(), end="")
        return
    if "--help-all" in sys.argv:
        print(all_keys_text(), end="")
        return
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to here, where they become sentences
    several = is_sweep(sys.argv[1:])
    sys.argv[1:] = sorted((quote_text(word, several) for word in sys.argv[1:]), key=lambda word: word not in FLAGS)
    try:
        launch.started()
        compose.register()
        refuse_mistakes(sys.argv[1:])
        if {"--cfg", "-c"} & set(sys.argv):
            explain_sweep(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")(job)()
    except KeyboardInterrupt:
        exit_with(Interrupted(signal.SIGINT, kept=""))
    except Exception as error:
        reason = user_error(error)
        if full or reason is None:
            raise
        exit_with(reason)


if __name__ == "__main__":
    import alexnet_pl.train  # under its own name, so that launchers find the job in their processes

    alexnet_pl.train.main()
