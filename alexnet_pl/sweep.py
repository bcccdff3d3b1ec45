"""A sweep: every job checked before the first starts, each in a process of its own, the outcome told at the end.

Why own processes: Lightning's multi-device launchers start a run's other processes by repeating its command line. In
a Hydra multirun that line is the whole sweep, and a failing job can leave two configurations in one process group.

Hydra calls the hooks of `Checks` at set moments, before it makes any folder. (It drops what a hook raises, all but
`SystemExit`; so the hooks exit.)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from alexnet_pl import checks, runs
from alexnet_pl.errors import ConfigError, UserError

JOBS = "ALEXNET_PL_JOBS"
"""Environment variable that carries the number of jobs from the sweep's start to its jobs."""


class Checks(Callback):
    """Refuse a mistake before anything is written; say at the end how each job of a sweep fared."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _or_exit(lambda: _check(config))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _or_exit(lambda: self._prepare(config))

    def _prepare(self, sweep_config: DictConfig) -> None:
        jobs = {}
        for overrides in _expand(sweep_config):
            job = _config_loader().load_sweep_config(sweep_config, overrides)
            _check(job)
            jobs[Path(job.hydra.sweep.subdir).name] = overrides
        self.folder = Path(sweep_config.hydra.sweep.dir).absolute()
        self.jobs = jobs
        runs.record_sweep(self.folder, jobs)
        os.environ[JOBS] = str(len(jobs))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        table = Table(title=f"{self.folder}", title_justify="left")
        for column in ("job", "outcome", "why"):
            table.add_column(column, overflow="fold")
        all_done = True
        for name in self.jobs:
            run = runs.Run(self.folder / name)
            all_done &= run.status == "done"
            table.add_row(name, run.status, run.failure)
        Console().print(table)
        if not all_done:
            sys.exit("some jobs did not finish: the same command runs those again and skips the others")


def run_job(run: runs.Run, overrides: list[str], number: int) -> None:
    """Run one job of a sweep as a plain run in its own process, unless it is done; tell at once if it failed."""
    place = f"{number + 1} of {os.environ.get(JOBS, '?')}"
    if run.done:
        print(f"job {place}: {run.folder.name} is done already", flush=True)
        return
    folder = str(run.folder).replace("\\", "\\\\").replace("'", "\\'")
    command = [sys.executable, "-m", "alexnet_pl.train", *overrides, "hydra.mode=RUN", f"hydra.run.dir='{folder}'"]
    process = subprocess.Popen(command, env=os.environ | {"ALEXNET_PL_JOB": place})
    stopped: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        stopped.append(signum)
        if signum == signal.SIGTERM or len(stopped) > 1:  # Ctrl-C has reached the job from the terminal already
            process.send_signal(signum)

    before = {s: signal.signal(s, pass_on) for s in (signal.SIGINT, signal.SIGTERM)}
    code = process.wait()
    for signum, handler in before.items():
        signal.signal(signum, handler)
    if stopped:
        print(f"sweep stopped at job {place}: the same command continues it", file=sys.stderr)
        sys.exit(128 + stopped[0])
    if code:
        if not run.failure:  # it was killed, or died before it could say why
            run.folder.mkdir(parents=True, exist_ok=True)
            run.fail(f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")
        print(f"job {place} failed: {run.folder.name}: {run.failure}", file=sys.stderr, flush=True)


def _expand(sweep_config: DictConfig) -> list[list[str]]:
    """The overrides of each job, as Hydra's basic sweeper will expand them."""
    params = sweep_config.hydra.sweeper.get("params") or {}
    lines = [f"{key}={value}" for key, value in params.items()] + list(sweep_config.hydra.overrides.task)
    parser = OverridesParser.create(config_loader=_config_loader())
    return BasicSweeper.split_arguments(parser.parse_overrides(lines), max_batch_size=None)[0]


def _config_loader() -> Any:
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return hydra.config_loader


def _check(composed: DictConfig) -> None:
    job = composed.copy()
    with open_dict(job):
        del job["hydra"]
    checks.check(job)


def _or_exit(action: Any) -> None:
    try:
        action()
    except Exception as error:
        reason = told(error)
        if reason is None:
            raise SystemExit(_traceback()) from error
        sys.exit(f"error: {reason}")


def _traceback() -> str:
    import traceback

    return traceback.format_exc()


def told(error: BaseException | None) -> UserError | None:
    """The user's mistake behind an error of Hydra or OmegaConf, in one sentence; None for a bug."""
    while error is not None:
        if isinstance(error, UserError):
            return error
        if isinstance(error, MissingConfigException) and error.options is not None:
            group, _, choice = str(error.missing_cfg_file).rpartition("/")
            return ConfigError(f"{group}={choice} is not a choice: {checks.nearest(choice, list(error.options))}")
        if isinstance(error, OmegaConfBaseException):
            return ConfigError(checks.explain(error))
        if isinstance(error, OSError):
            return UserError(f"{error.filename or 'the file system'}: {error.strerror}")
        if isinstance(error, HydraException) and error.__cause__ is None:
            return ConfigError(" ".join(str(error).split()))
        error = error.__cause__ or error.__context__
    return None
