"""A sweep: every job checked before the first starts, each in a process of its own, the outcome shown at the end.

Why own processes: Lightning's multi-device launchers start a run's other processes by repeating its command line. In
a Hydra multirun that line is the whole sweep, and a failing job can leave two configurations in one process group.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write

from alexnet_pl import cpu
from alexnet_pl.config.schema import Config, Trainer, as_dict
from alexnet_pl.errors import ConfigError, InUse, UserError
from alexnet_pl.jobs import checks, gpu_locks, launch
from alexnet_pl.jobs.compose import to_config, user_error
from alexnet_pl.parallel import layouts
from alexnet_pl.runs.run import JOB_VARIABLE, JOBS_VARIABLE, Run, find_checkpoint, record_sweep

CLAIM_WAIT = 120.0
"""Seconds that a task of Slurm waits for the first one to claim the run folder"""


class HydraCallback(Callback):
    """Refuse mistakes before Hydra makes any folder; show at the end how each job of a sweep fared.

    Hydra drops what a callback raises, all but `SystemExit`: so these exit.
    """

    # Hydra passes `config` by name.
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        def prepare() -> None:
            cfg = to_config(config)
            os.environ.update(cpu.thread_environment(cfg.trainer.precision))  # before torch is imported, to count GPUs
            _check(cfg, Run(Path(config.hydra.run.dir)))
            launch.refuse_other_group(layouts.layout(cfg.trainer))

        _or_exit(prepare)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _or_exit(lambda: self._prepare(config))

    def _prepare(self, composed: DictConfig) -> None:
        """Compose and check every job, and record what the sweep asks for."""
        self.folder = Path(composed.hydra.sweep.dir).absolute()
        self.jobs: dict[str, list[str]] = {}
        launcher = str(composed.hydra.runtime.choices["hydra/launcher"])
        configs, mistakes = self._compose_jobs(composed, here="slurm" not in launcher)
        if mistakes:
            raise ConfigError(*mistakes)
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ConfigError("torchrun starts one run: start a sweep without it, each job gets processes of its own")
        trainers = [cfg.trainer for cfg in configs.values()]
        if "slurm" in launcher:
            _ask_slurm(composed, trainers)
        elif any((t.num_nodes or 1) > 1 for t in trainers):
            raise ConfigError("a sweep of jobs on several machines needs hydra/launcher=submitit_slurm")
        record_sweep(self.folder, self.jobs)
        for name, cfg in configs.items():  # how finished runs are drawn may change
            run = Run(self.folder / name)
            if run.done:
                run.record(as_dict(cfg))
        os.environ[JOBS_VARIABLE] = str(len(self.jobs))

    def _compose_jobs(self, composed: DictConfig, here: bool) -> tuple[dict[str, Config], list[str]]:
        """Return the configuration of each job by its folder's name, and a sentence for each mistake."""
        configs: dict[str, Config] = {}
        mistakes: list[str] = []
        loader = _config_loader()
        for overrides in _expand(composed):
            try:
                job = loader.load_sweep_config(composed, overrides)
                name, cfg = str(job.hydra.sweep.subdir), to_config(job)
                other = configs.setdefault(name, cfg)  # asked for twice, a job is one run
                if other != cfg:
                    raise ConfigError(
                        f"two jobs have the same folder {name}: {' '.join(self.jobs[name])} and {' '.join(overrides)} "
                        "differ in nothing that names it: give each a name=... of its own, in a command of its own"
                    )
                _check(cfg, Run(self.folder / name), here)
                self.jobs[name] = overrides
            except Exception as error:
                if (reason := user_error(error)) is None:
                    raise
                mistakes += [sentence for sentence in reason.sentences if sentence not in mistakes]
        return configs, mistakes

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


def _check(cfg: Config, run: Run, here: bool = True) -> None:
    """Refuse a configuration that cannot run, or whose folder holds another one."""
    checks.check(cfg, here=here)
    if not run.last.is_file():  # later it goes on from its own
        if cfg.ckpt_path:
            find_checkpoint(cfg.ckpt_path)
        if cfg.pretrained:
            find_checkpoint(cfg.pretrained, "pretrained")
    run.refuse_another(as_dict(cfg))


def _expand(composed: DictConfig) -> list[list[str]]:
    """Return the overrides of each job, as Hydra's basic sweeper will expand them; its function for it is private."""
    params = composed.hydra.sweeper.get("params") or {}
    lines = [f"{key}={value}" for key, value in params.items()] + list(composed.hydra.overrides.task)
    parsed = OverridesParser.create(config_loader=_config_loader()).parse_overrides(lines)
    return BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]


def _config_loader() -> Any:
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return hydra.config_loader


def _ask_slurm(composed: DictConfig, trainers: list[Trainer]) -> None:
    """Have Slurm start one task per device, as many as the largest job of the sweep needs."""
    if composed.hydra.launcher.gpus_per_task:
        raise ConfigError("hydra.launcher.gpus_per_task hides a job's GPUs from each other: use gpus_per_node")
    if any(str(t.devices) in ("-1", "auto", "None") for t in trainers):
        raise ConfigError("trainer.devices must be a number under Slurm, which has to know how many to ask for")
    launcher, needed = composed.hydra.launcher, [layouts.layout(t) for t in trainers]
    with read_write(composed.hydra):
        launcher.tasks_per_node = max(where.devices for where in needed)
        launcher.nodes = max(where.nodes for where in needed)
        if launcher.gpus_per_node is None and any(layouts.wants_gpus(t) for t in trainers):
            launcher.gpus_per_node = launcher.tasks_per_node
        launcher.max_num_timeout = launcher.max_num_timeout or 1000  # Hydra's 0 would not put a job back into the queue


def _or_exit(action: Callable[[], object]) -> None:
    try:
        action()
    except Exception as error:
        reason = user_error(error)
        sys.exit("\n".join(f"error: {line}" for line in reason.sentences) if reason else traceback.format_exc())


# ------------------------------------------------------------------------------------------------ one job


def run_job(run: Run, cfg: Config, overrides: list[str], number: int, at_once: bool) -> None:
    """Run one job of a sweep in processes of its own, unless it is done; print at once if it failed.

    Args:
        at_once: whether other jobs run at the same time, so that this one must claim its GPUs.
    """
    place = f"{number + 1} of {os.environ.get(JOBS_VARIABLE, '?')}"
    if run.done:
        print(f"job {place}: {run.folder.name} is done already", flush=True)
        return
    where = layouts.layout(cfg.trainer)
    before = run.failed_at  # of an earlier sitting
    share_gpus = at_once and layouts.resolve_accelerator(cfg.trainer) == "cuda"
    try:
        if not _claim(run, cfg, overrides, where):
            return
        with gpu_locks.acquire_gpus(where.devices if share_gpus else 0) as visible:
            ending = supervise(run, cfg, {JOB_VARIABLE: place, **visible}, before)
    except UserError as error:
        print(f"job {place} failed: {run.folder.name}: {error}", file=sys.stderr, flush=True)
        return
    finally:
        run.release()
    if ending is None:
        return
    if ending.stopped:
        print(f"sweep stopped at job {place}: the same command continues it", file=sys.stderr)
        if callable(ending.handler) and ending.handler is not signal.default_int_handler:
            ending.handler(ending.stopped, None)  # Slurm's launcher puts the job back into the queue
            if launch.slurm_tasks() and int(os.environ["SLURM_PROCID"]):
                return  # its first task does; an exit code of another could end it before
        sys.exit(128 + ending.stopped)
    if reason := failure_reason(ending, run, before):
        print(f"job {place} failed: {run.folder.name}: {reason}", file=sys.stderr, flush=True)


def _claim(run: Run, cfg: Config, overrides: list[str], where: layouts.Layout) -> bool:
    """Claim the run folder; of several tasks of Slurm the first does, and the others wait for it.

    Returns whether this task has a part in the run.
    """
    if not launch.slurm_tasks() or int(os.environ["SLURM_PROCID"]) == 0:
        mistakes = list(layouts.device_rules(cfg.trainer)) if launch.slurm_tasks() else []
        if mistakes:  # the sweep was checked on another machine
            raise ConfigError(*mistakes)
        run.start(as_dict(cfg), overrides)
        return True
    if not launch.process_variables(where):
        return False
    deadline = time.monotonic() + CLAIM_WAIT
    while not (run.identity and run.config == as_dict(cfg)):
        if time.monotonic() > deadline:
            raise ConfigError(f"Slurm's first task has not claimed {run.folder} for {CLAIM_WAIT:g} s")
        time.sleep(0.2)
    return True


def supervise(run: Run, cfg: Config, more: dict[str, str], failed_before: int) -> launch.Ending | None:
    """Start the processes of a claimed run, and wait for their end. They hold the folder's lock as well.

    Args:
        more: environment variables for them.
        failed_before: when an earlier failure was written into the folder.
    """
    command = [sys.executable, "-m", "alexnet_pl.training.fit", str(run.folder)]
    env = cpu.process_environment(cfg.trainer.precision) | more
    held = (run.lock.fileno(),) if run.lock else ()
    failed = lambda: run.failed_at not in (0, failed_before)  # noqa: E731
    return launch.run(command, layouts.layout(cfg.trainer), env, failed, held)


def failure_reason(ending: launch.Ending, run: Run, before: int) -> str:
    """Return why a run's processes failed, empty if they did not; kept in its folder where they could not do so.

    Args:
        before: when an earlier failure was written there.
    """
    if not ending.code:
        return ""
    if ending.code == InUse.exit_code:  # the folder is another's
        return "another process is training there"
    if ending.killed or run.failed_at in (0, before):
        run.fail(ending.killed or f"exit code {ending.code}")
    return run.failure
