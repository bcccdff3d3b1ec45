"""A sweep: every job checked before the first starts, each in a process of its own, the outcome told at the end.

Why own processes: Lightning's multi-device launchers start a run's other processes by repeating its command line. In
a Hydra multirun that line is the whole sweep, and a failing job can leave two configurations in one process group.

Hydra calls the hooks of `Checks` at set moments, before it makes any folder. (It drops what a hook raises, all but
`SystemExit`; so the hooks exit.)
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from alexnet_pl import cpu
from alexnet_pl.config.schema import Config, Trainer, as_dict
from alexnet_pl.errors import ConfigError, InUse, UserError, nearest
from alexnet_pl.jobs import checks, gpu_locks, launch
from alexnet_pl.parallel import layouts
from alexnet_pl.parallel.layouts import Layout
from alexnet_pl.runs.run import JOB_VARIABLE, JOBS_VARIABLE, Run, find_checkpoint, record_sweep


class Checks(Callback):
    """Refuse a mistake before anything is written; say at the end how each job of a sweep fared."""

    # Hydra passes `config` by name.
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        def check() -> None:
            # first, as torch is loaded where GPUs are counted
            precision = str(OmegaConf.select(config, "trainer.precision") or "32-true")
            os.environ.update(cpu.thread_environment(precision))
            launch.in_process_group(layouts.layout(_check(config, Path(config.hydra.run.dir)).trainer))

        _or_exit(check)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _or_exit(lambda: self._prepare(config))

    def _prepare(self, sweep_config: DictConfig) -> None:
        self.folder = Path(sweep_config.hydra.sweep.dir).absolute()
        self.jobs: dict[str, list[str]] = {}
        configs = {}
        slurm = str(sweep_config.hydra.launcher._target_).endswith("SlurmLauncher")
        jobs = _expand(sweep_config)
        trainers = []
        for overrides in jobs:
            job = _config_loader().load_sweep_config(sweep_config, overrides)
            name = str(job.hydra.sweep.subdir)  # asked for twice, a job is one run
            checked = _check(job, self.folder / name, here=not slurm)
            configs[name] = as_dict(checked)
            trainers.append(checked.trainer)
            self.jobs[name] = overrides
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ConfigError("torchrun starts one run: start a sweep without it, each job gets processes of its own")
        if slurm:
            _ask_slurm(sweep_config, trainers)
        elif any((t.num_nodes or 1) > 1 for t in trainers):
            raise ConfigError("a sweep of jobs on several machines needs hydra/launcher=submitit_slurm")
        record_sweep(self.folder, self.jobs)
        for name, plain in configs.items():  # how finished runs are drawn may change
            run = Run(self.folder / name)
            if run.done:
                run.record(plain)
        os.environ[JOBS_VARIABLE] = str(len(jobs))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        jobs = [Run(self.folder / name) for name in self.jobs]
        done = sum(run.status == "done" for run in jobs)
        print(f"\n{done} of {len(jobs)} jobs done in {self.folder}")
        for run in jobs:
            print(f"  {run.status:10}  {run.folder.name}" + (f": {run.failure}" if run.failure else ""))
        if logs := config.hydra.launcher.get("submitit_folder"):
            print(f"what each job printed: {Path(logs).parent}")
        if done < len(jobs):
            sys.exit("some jobs did not finish: the same command runs those again and skips the others")


def run_job(run: Run, overrides: list[str], number: int, where: Layout, share_gpus: bool) -> None:
    """Run one job of a sweep as a plain run in processes of its own, unless it is done; tell at once if it failed.

    Args:
        share_gpus: whether other jobs run at the same time, so that this one must claim its GPUs.
    """
    place = f"{number + 1} of {os.environ.get(JOBS_VARIABLE, '?')}"
    if run.done:
        print(f"job {place}: {run.folder.name} is done already", flush=True)
        return
    before = run.failed_at  # of an earlier sitting
    with gpu_locks.acquire_gpus(where.devices if share_gpus else 0) as visible:
        ending = launch.run(
            command(run, overrides), where, {JOB_VARIABLE: place, **visible}, lambda: run.failed_at not in (0, before)
        )
    if ending is None:
        return
    if ending.stopped:
        print(f"sweep stopped at job {place}: the same command continues it", file=sys.stderr)
        if callable(ending.handler) and ending.handler is not signal.default_int_handler:
            ending.handler(ending.stopped, None)  # Slurm's launcher puts the job back into the queue
            if launch.slurm_tasks() and int(os.environ["SLURM_PROCID"]):
                return  # its first task does; an exit code of another could end it before
        sys.exit(128 + ending.stopped)
    reason = failure_reason(ending, run, before)
    if reason:
        print(f"job {place} failed: {run.folder.name}: {reason}", file=sys.stderr, flush=True)


def failure_reason(ending: launch.Ending, run: Run, before: int) -> str:
    """Why a run's processes failed; kept in its folder where they could not say so themselves. Empty if they did not.

    Args:
        before: when an earlier failure was written there.
    """
    if not ending.code:
        return ""
    if ending.code == InUse.exit_code:  # the folder is another's
        return "another process is training there"
    if ending.killed or run.failed_at in (0, before):
        run.folder.mkdir(parents=True, exist_ok=True)
        run.fail(ending.killed or f"exit code {ending.code}")
    return run.failure


def command(run: Run, overrides: list[str]) -> list[str]:
    """A plain run in its folder, whatever it is a part of."""
    plain = ["hydra.mode=RUN", f"hydra.run.dir={quoted(str(run.folder))}"]
    return [sys.executable, "-m", "alexnet_pl.train", *overrides, *plain]


def quoted(path: str) -> str:
    """A path as a value of an override, whatever is in its name."""
    escaped = path.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


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


def _check(composed: DictConfig, folder: Path, here: bool = True) -> Config:
    """Refuse a configuration that cannot run, or whose folder holds another one."""
    job = composed.copy()
    with open_dict(job):
        del job["hydra"]
    checked = checks.check(job, here=here)
    run = Run(folder)
    if checked.ckpt_path and not run.last.is_file():  # later it goes on from its own
        find_checkpoint(checked.ckpt_path)
    if checked.pretrained and not run.last.is_file():
        find_checkpoint(checked.pretrained, "pretrained")
    run.refuse_another(as_dict(checked))
    return checked


def _ask_slurm(sweep_config: DictConfig, trainers: list[Trainer]) -> None:
    """Have Slurm start one task per device, as many as the largest job of the sweep needs."""
    if sweep_config.hydra.launcher.gpus_per_task:
        raise ConfigError("hydra.launcher.gpus_per_task hides a job's GPUs from each other: use gpus_per_node")
    if any(str(t.devices) in ("-1", "auto", "None") for t in trainers):
        raise ConfigError("trainer.devices must be a number under Slurm, which has to know how many to ask for")
    launcher, layouts_ = sweep_config.hydra.launcher, [layouts.layout(t) for t in trainers]
    with read_write(sweep_config.hydra):
        launcher.tasks_per_node = max(where.devices for where in layouts_)
        launcher.nodes = max(where.nodes for where in layouts_)
        if launcher.gpus_per_node is None and any(layouts.wants_gpus(t) for t in trainers):
            launcher.gpus_per_node = launcher.tasks_per_node
        launcher.max_num_timeout = launcher.max_num_timeout or 1000  # Hydra's 0 would not put a job back into the queue


def _or_exit(action: Callable[[], object]) -> None:
    try:
        action()
    except Exception as error:
        reason = user_error(error)
        if reason is None:
            sys.exit(traceback.format_exc())
        sys.exit(f"error: {reason}")


def user_error(error: BaseException | None) -> UserError | None:
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
