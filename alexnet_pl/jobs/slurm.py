"""Slurm: what a sweep asks it for, which part of a run a task has, and how a preempted job returns to the queue.

Hydra's launcher (submitit) starts the job, and the job starts the run. submitit's own handler would return a job to the
queue at once. Ours waits for the run to save, and then calls it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, read_write

from alexnet_pl.config.schema import Trainer
from alexnet_pl.errors import ConfigError
from alexnet_pl.parallel import layouts
from alexnet_pl.parallel.layouts import Layout, rank_variables


def require() -> None:
    """Raise ConfigError if this machine cannot send jobs to Slurm."""
    if shutil.which("srun") is None:
        raise ConfigError(
            "hydra/launcher=submitit_slurm sends jobs to Slurm, and there is no srun here: start it on a machine "
            "of the cluster, or leave the launcher out"
        )


def request_devices(hydra_config: DictConfig, trainers: Sequence[Trainer]) -> None:
    """Ask Slurm for one task per device, as many as the largest job of the sweep needs.

    Raises:
        ConfigError: the number of devices is open, or the launcher hides a job's GPUs from each other.
    """
    launcher, needed = hydra_config.launcher, [layouts.layout(t) for t in trainers]
    if launcher.gpus_per_task:
        raise ConfigError("hydra.launcher.gpus_per_task hides a job's GPUs from each other: use gpus_per_node")
    if any(str(t.devices) in ("-1", "auto", "None") for t in trainers):
        raise ConfigError("trainer.devices must be a number under Slurm, which has to know how many to ask for")
    with read_write(hydra_config):
        launcher.tasks_per_node = max(where.devices for where in needed)
        launcher.nodes = max(where.nodes for where in needed)
        if launcher.gpus_per_node is None and any(layouts.wants_gpus(t) for t in trainers):
            launcher.gpus_per_node = launcher.tasks_per_node
        launcher.max_num_timeout = launcher.max_num_timeout or 1000  # Hydra's 0 would not put a job back into the queue


def number(name: str, default: int | None = None) -> int:
    """Return an environment variable of Slurm or torchrun as a number.

    Raises:
        ConfigError: it is no number.
    """
    value = os.environ.get(name, "" if default is None else str(default))
    if not value.isdecimal():
        raise ConfigError(
            f"{name}={value} in the environment must be a number, as Slurm and torchrun set it: unset it if another "
            "program left it"
        )
    return int(value)


def task_count() -> int:
    """Return how many tasks srun started beside this one, itself included; 0 outside of srun."""
    return number("SLURM_STEP_NUM_TASKS", 0) if "SLURM_STEP_ID" in os.environ else 0


def is_first_task() -> bool:
    """Return whether this is the first task of a job; true outside of srun."""
    return task_count() <= 1 or number("SLURM_PROCID") == 0


def task_variables(where: Layout) -> dict[str, str] | None:
    """Return torchrun's variables for a task that srun started; None for one that the run does not need.

    All jobs of a sweep have as many tasks as the largest needs.

    Raises:
        ConfigError: srun's variables are missing, or are no numbers.
    """
    local, node = number("SLURM_LOCALID"), number("SLURM_NODEID")
    if local >= where.devices or node >= where.nodes:
        return None
    address = first_host() if where.nodes > 1 else "127.0.0.1"
    port = 15_000 + (number("SLURM_JOB_ID") + 100 * number("SLURM_STEP_ID")) % 10_000  # steps may share a machine
    return rank_variables(where, node * where.devices + local, local, node, address, port)


def first_host() -> str:
    """Return the first task's machine, the first in Slurm's list: gpu03 for gpu[03-05,9],big1.

    Raises:
        ConfigError: Slurm has not listed them.
    """
    hosts = os.environ.get("SLURM_STEP_NODELIST", "")
    if not hosts:
        raise ConfigError("SLURM_STEP_NODELIST is not set, which names the machines of a run: start it with srun")
    return re.sub(r"\[(\w+)[^]]*\]", r"\1", hosts).split(",")[0]


def requeue(handler: Any, signum: int) -> bool:
    """Call the handler of Slurm's launcher, if there is one, to return a stopped job to the queue.

    Return whether this task must end quietly. The first task calls the handler, and another's exit code could end it
    before.
    """
    if not callable(handler) or handler is signal.default_int_handler:
        return False
    handler(signum, None)
    return not is_first_task()
