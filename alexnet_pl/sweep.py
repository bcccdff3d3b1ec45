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
import traceback
from collections.abc import Callable
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

from alexnet_pl import checks, config, runs
from alexnet_pl.errors import ConfigError, UserError, nearest

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Checks(Callback):
    """Refuse a mistake before anything is written; say at the end how each job of a sweep fared."""

    # Hydra passes `config` by name.
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _or_exit(lambda: _check(config, Path(config.hydra.run.dir)))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _or_exit(lambda: self._prepare(config))

    def _prepare(self, sweep_config: DictConfig) -> None:
        self.folder = Path(sweep_config.hydra.sweep.dir).absolute()
        self.jobs: dict[str, list[str]] = {}
        configs = {}
        for overrides in _expand(sweep_config):
            job = _config_loader().load_sweep_config(sweep_config, overrides)
            name = str(job.hydra.sweep.subdir)
            if name in self.jobs:
                raise ConfigError(f"the sweep asks for {name} twice: give each value once")
            configs[name] = _check(job, self.folder / name)
            self.jobs[name] = overrides
        runs.record_sweep(self.folder, self.jobs)
        for name, checked in configs.items():  # how finished runs are drawn may change
            run = runs.Run(self.folder / name)
            if run.done:
                run.record(checked)
        os.environ[runs.JOBS] = str(len(self.jobs))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        jobs = [runs.Run(self.folder / name) for name in self.jobs]
        done = sum(run.status == "done" for run in jobs)
        print(f"\n{done} of {len(jobs)} jobs done in {self.folder}")
        for run in jobs:
            print(f"  {run.status:10}  {run.folder.name}" + (f": {run.failure}" if run.failure else ""))
        if done < len(jobs):
            sys.exit("some jobs did not finish: the same command runs those again and skips the others")


def run_job(run: runs.Run, overrides: list[str], number: int) -> None:
    """Run one job of a sweep as a plain run in its own process, unless it is done; tell at once if it failed."""
    place = f"{number + 1} of {os.environ.get(runs.JOBS, '?')}"
    if run.done:
        print(f"job {place}: {run.folder.name} is done already", flush=True)
        return
    folder = str(run.folder).replace("\\", "\\\\").replace("'", "\\'")
    command = [sys.executable, "-m", "alexnet_pl.train", *overrides, "hydra.mode=RUN", f"hydra.run.dir='{folder}'"]
    process: subprocess.Popen[bytes] | None = None
    stopped: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        stopped.append(signum)
        if process:
            process.send_signal(signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)

    before = {s: signal.signal(s, pass_on) for s in STOPS}
    # In a session of its own the job hears signals from here only, whoever sends them.
    process = subprocess.Popen(command, env=os.environ | {runs.JOB: place}, start_new_session=True)
    if stopped:
        process.send_signal(signal.SIGTERM)
    code = process.wait()
    for signum, handler in before.items():
        signal.signal(signum, handler)
    if stopped:
        print(f"sweep stopped at job {place}: the same command continues it", file=sys.stderr)
        sys.exit(128 + stopped[0])
    if code < 0:  # it could not say why itself
        run.folder.mkdir(parents=True, exist_ok=True)
        run.fail(f"killed by {signal.Signals(-code).name}")
    if code:
        reason = run.failure or f"exit code {code}"
        print(f"job {place} failed: {run.folder.name}: {reason}", file=sys.stderr, flush=True)


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


def _check(composed: DictConfig, folder: Path) -> dict[str, Any]:
    """Refuse a configuration that cannot run, or whose folder holds another one; return it as a plain dict."""
    job = composed.copy()
    with open_dict(job):
        del job["hydra"]
    checked = config.as_dict(checks.check(job))
    runs.Run(folder).refuse_another(checked)
    return checked


def _or_exit(action: Callable[[], object]) -> None:
    try:
        action()
    except Exception as error:
        reason = told(error)
        if reason is None:
            sys.exit(traceback.format_exc())
        sys.exit(f"error: {reason}")


def told(error: BaseException | None) -> UserError | None:
    """The user's mistake behind an error of Hydra or OmegaConf, in one sentence; None for a bug."""
    while error is not None:
        if isinstance(error, UserError):
            return error
        if isinstance(error, MissingConfigException) and error.options is not None:
            group, _, choice = str(error.missing_cfg_file).rpartition("/")
            return ConfigError(f"{group}={choice} is not a choice: {nearest(choice, list(error.options))}")
        if isinstance(error, OmegaConfBaseException):
            return ConfigError(checks.explain(error))
        if isinstance(error, OSError):
            return UserError(f"{error.filename or 'the file system'}: {error.strerror or error}")
        if isinstance(error, HydraException) and error.__cause__ is None:
            return ConfigError(" ".join(str(error).split()))
        error = error.__cause__
    return None
