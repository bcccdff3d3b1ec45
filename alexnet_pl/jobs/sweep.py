"""A sweep: every job checked before the first starts, each in a process of its own, the outcome shown at the end.

Why own processes: a job that crashes or is killed ends no other, and each may take another number of devices.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import HydraContext
from omegaconf import DictConfig

from alexnet_pl import cpu
from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.console import exit_with
from alexnet_pl.errors import ConfigError, UserError
from alexnet_pl.jobs import checks, gpu_locks, launch, slurm
from alexnet_pl.jobs.compose import to_config, user_error
from alexnet_pl.parallel import layouts
from alexnet_pl.runs.run import JOB_VARIABLE, JOBS_VARIABLE, Run, find_checkpoint, record_sweep

CLAIM_WAIT = 120.0
"""Seconds that a task of Slurm waits for the first one to claim the run folder"""


class HydraCallback(Callback):
    """Refuse the mistakes of a single run before Hydra makes its folder."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check a run; Hydra passes `config` by name, and drops what is raised here, all but `SystemExit`."""
        try:
            cfg = to_config(config)
            os.environ.update(cpu.thread_environment(cfg.trainer.precision))  # before torch is imported, to count GPUs
            _check(cfg, Run(Path(config.hydra.run.dir)))
            launch.refuse_other_group(layouts.layout(cfg.trainer))
        except Exception as error:
            if reason := user_error(error):
                exit_with(reason)
            sys.exit(traceback.format_exc())


def run_sweep(
    words: list[str],
    composed: DictConfig,
    context: HydraContext,
    launch_jobs: Callable[[list[list[str]]], Sequence[JobReturn]],
) -> None:
    """Run the jobs of a sweep; exit with 1 where some are not done at the end. `hydra_plugins` calls it.

    Args:
        words: the overrides, some of them with several values.
        composed: what Hydra composed for the sweep as a whole.
        launch_jobs: launches jobs by their overrides.
    Raises:
        ConfigError: a sentence for each mistake in any of the jobs; none was started then.
    """
    folder = Path(composed.hydra.sweep.dir).absolute()
    on_slurm = "slurm" in str(composed.hydra.runtime.choices["hydra/launcher"])
    jobs, configs = _compose_jobs(words, composed, context.config_loader, folder, here=not on_slurm)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError("torchrun starts one run: start a sweep without it, each job gets processes of its own")
    trainers = [cfg.trainer for cfg in configs.values()]
    if on_slurm:
        slurm.request_devices(composed.hydra, trainers)
    elif any((t.num_nodes or 1) > 1 for t in trainers):
        raise ConfigError("a sweep of jobs on several machines needs hydra/launcher=submitit_slurm")
    record_sweep(folder, jobs)
    for name, cfg in configs.items():  # how finished runs are drawn may change
        run = Run(folder / name)
        if run.done:
            run.record(as_dict(cfg))
    os.environ[JOBS_VARIABLE] = str(len(jobs))
    for result in launch_jobs(list(jobs.values())):
        _ = result.return_value  # raises what the job has raised
    _show_outcome([Run(folder / name) for name in jobs], composed.hydra.launcher.get("submitit_folder"))


def _compose_jobs(
    words: list[str], composed: DictConfig, loader: ConfigLoader, folder: Path, here: bool
) -> tuple[dict[str, list[str]], dict[str, Config]]:
    """Return overrides and configuration of each job by its folder's name; a job asked for twice is one run.

    Raises:
        ConfigError: a sentence for each mistake.
    """
    jobs: dict[str, list[str]] = {}
    configs: dict[str, Config] = {}
    mistakes: list[str] = []
    for overrides in _expand(words, loader):
        try:
            job = loader.load_sweep_config(composed, overrides)
            name, cfg = str(job.hydra.sweep.subdir), to_config(job)
            if configs.setdefault(name, cfg) != cfg:
                raise ConfigError(
                    f"two jobs have the same folder {name}: {' '.join(jobs[name])} and {' '.join(overrides)} "
                    "differ in nothing that names it: give each a name=... of its own, in a command of its own"
                )
            jobs[name] = overrides
            _check(cfg, Run(folder / name), here)
        except Exception as error:
            if (reason := user_error(error)) is None:
                raise
            mistakes += [sentence for sentence in reason.sentences if sentence not in mistakes]
    if mistakes:
        raise ConfigError(*mistakes)
    if not jobs:
        raise ConfigError("the sweep has no job: a range or a choice in it is empty")
    return jobs, configs


def _show_outcome(runs: list[Run], logs: str | None) -> None:
    """Print how each job fared; exit with 1 where some are not done."""
    done = sum(run.status == "done" for run in runs)
    print(f"\n{done} of {len(runs)} jobs done in {runs[0].folder.parent}")
    for run in runs:
        print(f"  {run.status:10}  {run.folder.name}" + (f": {run.failure}" if run.failure else ""))
    if logs:
        print(f"what each job printed: {Path(logs).parent}")
    if done < len(runs):
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


def _expand(words: list[str], loader: ConfigLoader) -> list[list[str]]:
    """Return the overrides of each job: the product of the values of all keys, of a key given twice of the last.

    Raises:
        ConfigError: a kind of sweep without a list of values, as interval().
    """
    values: dict[str, list[str]] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(words):
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise ConfigError(f"{override.input_line} has no list of values: use choice(...) or range(...)")
    return [list(job) for job in product(*values.values())]


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
        if not slurm.requeue(ending.handler, ending.stopped):
            sys.exit(128 + ending.stopped)
        return
    if reason := failure_reason(ending, run, before):
        print(f"job {place} failed: {run.folder.name}: {reason}", file=sys.stderr, flush=True)


def _claim(run: Run, cfg: Config, overrides: list[str], where: layouts.Layout) -> bool:
    """Claim the run folder; of several tasks of Slurm the first does, and the others wait for it.

    Returns whether this task has a part in the run.
    """
    if slurm.is_first_task():
        mistakes = list(layouts.device_rules(cfg.trainer)) if slurm.task_count() else []
        if mistakes:  # the sweep was checked on another machine
            run.folder.mkdir(parents=True, exist_ok=True)
            run.fail(" ".join(mistakes))  # which ends the other tasks, and is shown with the outcome
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
    where = layouts.layout(cfg.trainer)
    env = cpu.process_environment(cfg.trainer.precision, 1 if slurm.task_count() > 1 else where.processes) | more
    held = (run.lock.fileno(),) if run.lock else ()
    failed = lambda: run.failed_at not in (0, failed_before)  # noqa: E731
    return launch.run(command, where, env, failed, held)


def failure_reason(ending: launch.Ending, run: Run, before: int) -> str:
    """Return why a run's processes failed, empty if they did not; kept in its folder where they could not do so.

    Args:
        before: when an earlier failure was written there.
    """
    if not ending.code:
        return ""
    if ending.killed or run.failed_at in (0, before):
        run.fail(ending.killed or f"exit code {ending.code}")
    return run.failure
