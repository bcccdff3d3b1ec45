"""Run jobs on this machine, each in processes of its own, several at once if asked for.

So a job that crashes or is killed ends no other, and each may take another number of devices.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from alexnet_pl import cpu
from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.errors import ConfigError, Disconnected, UserError
from alexnet_pl.jobs import gpu_locks, launch, slurm
from alexnet_pl.parallel import layouts
from alexnet_pl.runs.run import JOB_VARIABLE, Run

WORDS = ["alexnet_pl.training.fit"]
"""The module that a process of a run executes; its argument is the run folder"""
ASK_EVERY = 1.0
"""Seconds between two attempts to claim GPUs"""
CLAIM_WAIT = 120.0
"""Seconds that a task of Slurm waits for the first one to claim the run folder"""


@dataclass
class Job:
    """A job of a sweep, with what it holds once it is started."""

    run: Run
    cfg: Config
    overrides: list[str]
    place: str = "1 of 1"
    """its place among the jobs, `3 of 8`"""
    group: launch.Group | None = None
    failed_before: int = 0
    """time at which an earlier failure was written into its folder"""
    held: ExitStack = field(default_factory=ExitStack)
    """its folder's lock and its claims on GPUs"""
    asked: float = -math.inf
    """time at which it last found too few free GPUs"""


def run_jobs(jobs: Sequence[Job], at_once: int, jobs_per_gpu: int = 1) -> None:
    """Run jobs in their order. Print the reason of each that fails, and go on with the others.

    A signal that asks to end makes the running jobs save. Then this process exits with 128 + the signal.

    Args:
        at_once: how many may run at the same time; they share the cores, and each claims GPUs of its own.
        jobs_per_gpu: how many may share a GPU.
    """
    waiting, running, stopped = deque(jobs), list[Job](), list[str]()

    def ask_to_end(signum: int) -> None:
        for job in running:
            assert job.group
            job.group.ask_to_end(signum)

    with launch.passing_on_signals(ask_to_end) as stop:
        try:
            while running or (waiting and not stop.count):
                if (
                    waiting
                    and not stop.count
                    and len(running) < at_once
                    and _start(waiting[0], at_once, jobs_per_gpu, stop)
                ):
                    job = waiting.popleft()
                    if job.group:
                        running.append(job)
                        if stop.count:  # the signal came before the job was among those that hear it
                            job.group.ask_to_end(stop.signum)
                    continue
                for job in [job for job in running if job.group and not job.group.is_running(stop.count > 1)]:
                    running.remove(job)
                    stopped += [job.place] if stop.count else []
                    _finish(job, stop)
                time.sleep(launch.POLL_EVERY)
        except BaseException:  # a fault of ours: they save, and this process waits for them at its exit
            ask_to_end(signal.SIGTERM)
            raise
    if stop.count:
        where = f" at job {' and '.join(stopped)}" if stopped else ""
        print(f"sweep stopped{where}: the same command continues it", file=sys.stderr)
        if not slurm.requeue(stop.handler, stop.signum):
            sys.exit(128 + stop.signum)


def _start(job: Job, at_once: int, jobs_per_gpu: int, stop: launch.Stop) -> bool:
    """Claim a job's folder and start its processes, or print why it cannot start.

    Return false if it has to wait for GPUs.
    """
    run, where = job.run, layouts.layout(job.cfg.trainer)
    if run.done:
        print(f"job {job.place}: {run.folder.name} is done already", flush=True)
        return True
    job.failed_before = run.failed_at
    more = {JOB_VARIABLE: job.place}
    try:
        if at_once > 1 and layouts.resolve_accelerator(job.cfg.trainer) == "cuda":
            if time.monotonic() < job.asked + ASK_EVERY:
                return False
            if not (visible := gpu_locks.claim_gpus(where.devices, job.held, jobs_per_gpu)):
                if job.asked < 0:
                    print(f"job {job.place} waits for {where.devices} free GPU{'s' * (where.devices > 1)}", flush=True)
                job.asked = time.monotonic()
                return False
            more |= visible
        job.held.callback(run.release)
        if _claim(job, stop):
            job.group = start(run, job.cfg, more, job.failed_before, at_once)
    except (UserError, OSError, EOFError) as error:  # the last two: a process could not be started
        if not isinstance(error, UserError):
            run.fail(f"its process could not be started: {error}")
        print(f"job {job.place} failed: {run.folder.name}: {error}", file=sys.stderr, flush=True)
    if not job.group:
        job.held.close()
    return True


def _claim(job: Job, stop: launch.Stop) -> bool:
    """Claim the run folder. The first task of Slurm does so, and the others wait for it.

    Return whether this task has a part in the run.
    """
    run, trainer = job.run, job.cfg.trainer
    if slurm.is_first_task():
        mistakes = list(layouts.device_rules(trainer)) if slurm.task_count() else []
        if mistakes:  # the sweep was checked on another machine
            run.folder.mkdir(parents=True, exist_ok=True)
            run.fail(" ".join(mistakes))  # which ends the other tasks, and is shown with the outcome
            raise ConfigError(*mistakes)
        run.start(as_dict(job.cfg), job.overrides)
        return True
    if not launch.process_variables(layouts.layout(trainer)):
        return False
    deadline = time.monotonic() + CLAIM_WAIT
    while not (run.identity and run.config == as_dict(job.cfg)):
        if stop.count:
            return False
        if time.monotonic() > deadline:
            raise ConfigError(f"Slurm's first task has not claimed {run.folder} for {CLAIM_WAIT:g} s")
        time.sleep(0.2)
    return True


def _finish(job: Job, stop: launch.Stop) -> None:
    """Release what an ended job holds; print why it failed, unless a signal asked it to end."""
    assert job.group
    reason = "" if stop.count else failure_reason(job.group.ending(), job.run, job.failed_before)
    job.held.close()
    if reason:
        print(f"job {job.place} failed: {job.run.folder.name}: {reason}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------ one run


def start(run: Run, cfg: Config, more: dict[str, str], failed_before: int, at_once: int = 1) -> launch.Group:
    """Start the processes of a claimed run. They hold the folder's lock as well.

    Args:
        more: environment variables for them.
        failed_before: time at which an earlier failure was written into the folder.
        at_once: how many runs share the machine's cores.
    """
    where = layouts.layout(cfg.trainer)
    beside = 1 if slurm.task_count() > 1 else where.processes * at_once
    env = cpu.process_environment(cfg.trainer.precision, beside) | more
    return launch.Group(
        [*WORDS, str(run.folder)], where, env, lambda: run.failed_at not in (0, failed_before), run.lock
    )


def failure_reason(ending: launch.Ending, run: Run, failed_before: int) -> str:
    """Return why a run's processes failed, empty if they did not. Write it into the folder if they could not.

    Args:
        failed_before: time at which an earlier failure was written there.
    """
    if not ending.code:
        return ""
    reason = ending.killed or f"exit code {ending.code}"
    told = "" if run.failed_at in (0, failed_before) else run.failure
    if told and ending.killed:
        reason = ending.killed if told.startswith(Disconnected.words) else f"{told}; {ending.killed}"
    if ending.killed or not told:
        run.fail(reason)
    return run.failure or reason
