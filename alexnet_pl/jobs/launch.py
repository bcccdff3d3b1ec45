"""The processes of a run, one per device: started together, watched, ended together.

Lightning could start them, by repeating the command from inside the first one. Started here they begin side by side,
and whichever of them dies, the others end too. torchrun or Slurm may have started them: then this process is one.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from alexnet_pl.errors import ConfigError
from alexnet_pl.jobs import slurm
from alexnet_pl.parallel.layouts import Layout, rank_variables

SIGNAL_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
STOP_SIGNALS = [getattr(signal, name) for name in SIGNAL_NAMES if hasattr(signal, name)]
"""What asks a run to save and end; Slurm sends SIGUSR1 or SIGUSR2 before it preempts a job or its time is up"""
GRACE = 40.0
"""Seconds that the first process has to end once another has failed; it may have to finish with W&B"""
GRACE_OF_OTHERS = 5.0
"""Seconds that the others have"""
LOOK_EVERY = 5.0
"""Seconds between two looks at whether the run has failed on another machine"""
PARENT = "ALEXNET_PL_PARENT"
"""Environment variable with the process that watches this one"""
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK")


def rank() -> int:
    """Return the number of this process among those of its run; the first one writes the run folder."""
    return int(os.environ.get("RANK", 0))


def is_orphaned() -> bool:
    """Return whether the process that watched this one is gone."""
    return os.environ.get(PARENT, str(os.getppid())) != str(os.getppid())


# ------------------------------------------------------------------------------------------------ torchrun and Slurm


def refuse_other_group(where: Layout) -> None:
    """Refuse a number of processes, started by torchrun or Slurm, that is not the run's.

    Raises:
        ConfigError: it is another number, or the run needs several machines and neither of them is there.
    """
    tasks = slurm.task_count()
    started, by = (tasks, "Slurm") if tasks > 1 else (int(os.environ.get("WORLD_SIZE", 1)), "torchrun")
    if started == where.processes:
        if tasks > 1 and slurm.task_variables(where) is None:
            raise ConfigError(
                f"Slurm's {tasks} tasks are not {where.devices} on each of {where.nodes} machines, as trainer.devices "
                "and trainer.num_nodes say: use srun --ntasks-per-node"
            )
    elif started > 1:
        raise ConfigError(
            f"{by} started {started} processes, but trainer.devices={where.devices} and trainer.num_nodes="
            f"{where.nodes} need {where.processes}: make them equal (trainer=ddp for one process per device)"
        )
    elif where.nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={where.nodes} needs one process per device on each machine: start the command with "
            "torchrun on every machine, or use hydra/launcher=submitit_slurm"
        )


def join_group(where: Layout) -> bool:
    """Return whether this process is one of several that torchrun or Slurm started for the run; make it ready for it.

    Slurm's variables become torchrun's, so that Lightning and torch know one way only. A process that is alone drops
    ranks that an earlier program has left: it is the first of its run.
    """
    if where.processes == 1:
        for name in RANK_VARIABLES:
            os.environ.pop(name, None)
        return False
    if slurm.task_count() == where.processes:
        os.environ.update(slurm.task_variables(where) or {})
    return int(os.environ.get("WORLD_SIZE", 1)) == where.processes


def process_variables(where: Layout) -> list[dict[str, str]]:
    """Return what tells each process of a run about the others; one entry for each that is to be started here.

    A task of Slurm starts its own part of the run, or nothing where the run does not need the task.
    """
    if slurm.task_count() > 1:
        if where.processes == 1:
            return [{}] if slurm.is_first_task() else []
        own = slurm.task_variables(where)
        return [] if own is None else [own]
    if where.processes == 1:
        return [{}]
    port = _free_port()
    return [rank_variables(where, number, number, 0, "127.0.0.1", port) for number in range(where.processes)]


# ------------------------------------------------------------------------------------------------ processes


class Ending(NamedTuple):
    """How a run's processes ended."""

    code: int  # 0, or the exit code of the first that failed
    killed: str  # which process was killed by which signal, or nothing
    stopped: int  # the signal that asked this process for the end, or 0
    handler: Any  # what listened to that signal before


def run(
    command: list[str],
    where: Layout,
    more: dict[str, str],
    failed: Callable[[], object] = bool,
    pass_fds: tuple[int, ...] = (),
) -> Ending | None:
    """Run a command in as many processes as the layout needs, and pass on to them the signals that ask for the end.

    Returns None in a task of Slurm that the run does not need.

    Args:
        more: environment variables besides those that tell the processes about each other.
        failed: whether the run is known to have failed elsewhere, on another machine of a Slurm job.
        pass_fds: descriptors that the processes inherit, as that of the run folder's lock.
    """
    variables = process_variables(where)
    if not variables:
        return None
    inherited = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
    processes: list[subprocess.Popen[bytes]] = []
    stopped: list[int] = []

    def pass_on(signum: int, frame: Any) -> None:
        stopped.append(signum)
        for process in processes:
            _send(process, signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)

    before = {s: signal.signal(s, pass_on) for s in STOP_SIGNALS}
    try:
        for own in variables:
            processes.append(start(command, {**inherited, **more, **own, PARENT: str(os.getpid())}, pass_fds))
            if stopped:
                _send(processes[-1], signal.SIGTERM)
        first = _wait(processes, lambda: len(stopped) > 1, failed if slurm.task_count() else bool)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for process in processes:
            process.kill()
    code = processes[first].returncode if first is not None else 0
    killed = f"killed by {signal.Signals(-code).name}" if code < 0 else ""
    if killed and len(processes) > 1:
        killed = f"process {first} of 0..{len(processes) - 1} was {killed}"
    return Ending(code, killed, stopped[0] if stopped else 0, before[stopped[0]] if stopped else None)


def start(command: list[str], env: dict[str, str], pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own: it hears signals from here only, whoever sends them."""
    return subprocess.Popen(command, env=env, start_new_session=True, pass_fds=pass_fds)


def _wait(
    processes: list[subprocess.Popen[bytes]], pressed: Callable[[], bool], failed: Callable[[], object]
) -> int | None:
    """Wait until all have ended; once one has failed, the others have little time. Return which failed first.

    Args:
        pressed: whether the user asked for the end more than once.
        failed: whether the run is known to have failed elsewhere.
    """
    first: int | None = None
    since = math.inf  # when the failure was seen
    looked = time.monotonic()
    while None in [process.poll() for process in processes]:
        now = time.monotonic()
        if first is None:
            first = _first_failure(processes)
            if first is not None or pressed():
                since = min(since, now)
            elif now > looked + LOOK_EVERY:
                looked, since = now, min(since, now) if failed() else math.inf
        for number, process in enumerate(processes):
            if now > since + (GRACE_OF_OTHERS if number else GRACE):
                process.kill()
        time.sleep(0.05)
    return _first_failure(processes) if first is None else first


def _first_failure(processes: list[subprocess.Popen[bytes]]) -> int | None:
    """Return one that failed, rather one that was killed than one that ended for it; None where none has."""
    failures = [number for number, process in enumerate(processes) if process.returncode]
    killed = [number for number in failures if (processes[number].returncode or 0) < 0]
    return next(iter(killed or failures), None)


def _send(process: subprocess.Popen[bytes], signum: int) -> None:
    if process.poll() is None:
        process.send_signal(signum)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
