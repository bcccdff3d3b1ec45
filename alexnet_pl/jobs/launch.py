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

from alexnet_pl import cpu
from alexnet_pl.errors import ConfigError
from alexnet_pl.parallel.layouts import Layout

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
STOP_SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
"""What asks a run to save and end; Slurm sends SIGUSR1 or SIGUSR2 before it preempts a job or its time is up"""
GRACE = 40.0
"""Seconds that the first process has to end once another has failed; it may have to finish with W&B"""
GRACE_OF_OTHERS = 5.0
"""Seconds that the others have"""
LOOK_EVERY = 5.0
"""Seconds between two looks at whether the run has failed on another machine"""
PARENT = "ALEXNET_PL_PARENT"
"""Environment variable with the process that watches this one"""


def rank() -> int:
    """Number of this process among those of its run; the first one writes the run folder."""
    return int(os.environ.get("RANK", 0))


def is_watched() -> bool:
    """Whether `run` started this process beside others, and will tell how they ended."""
    return PARENT in os.environ and int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > 1


def is_orphaned() -> bool:
    """Whether the process that watched this one is gone."""
    return os.environ.get(PARENT, str(os.getppid())) != str(os.getppid())


def in_process_group(where: Layout) -> bool:
    """Whether this process is one of the run's; else the run has to start them.

    Slurm's variables are told to Lightning and torch as torchrun's.

    Raises:
        ConfigError: torchrun or Slurm started another number of processes, or the run needs several machines and
            neither is there.
    """
    if PARENT in os.environ:
        return True
    tasks = slurm_tasks()
    given, by = (tasks, "Slurm") if tasks > 1 else (int(os.environ.get("WORLD_SIZE", 1)), "torchrun")
    if given == 1:  # left from something else, a number would make this process one that writes nothing
        for name in ("RANK", "LOCAL_RANK", "NODE_RANK"):
            os.environ.pop(name, None)
    if given == where.processes:
        if tasks > 1:
            own = slurm_variables(where)
            if own is None:
                raise ConfigError(
                    f"Slurm's {given} tasks are not {where.devices} on each of {where.nodes} machines, as "
                    "trainer.devices and trainer.num_nodes say: use srun --ntasks-per-node"
                )
            os.environ.update(own)
        return True
    if given > 1:
        raise ConfigError(
            f"{by} started {given} processes, but trainer.devices={where.devices} and trainer.num_nodes={where.nodes} "
            f"need {where.processes}: make them equal (trainer=ddp for one process per device)"
        )
    if where.nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={where.nodes} needs one process per device on each machine: start the command with "
            "torchrun on every machine, or use hydra/launcher=submitit_slurm"
        )
    return False


# ------------------------------------------------------------------------------------------------ Slurm


def slurm_tasks() -> int:
    """How many tasks srun started beside this one, itself included; 0 outside of srun."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 0)) if "SLURM_STEP_ID" in os.environ else 0


def slurm_variables(where: Layout) -> dict[str, str] | None:
    """torchrun's variables for a task that srun started; None for one that the run does not need.

    Jobs of one sweep have as many tasks as the largest needs.
    """
    local, node = int(os.environ["SLURM_LOCALID"]), int(os.environ["SLURM_NODEID"])
    if local >= where.devices or node >= where.nodes:
        return None
    job = int(os.environ["SLURM_JOB_ID"])
    address = os.environ["SLURM_LAUNCH_NODE_IPADDR"] if where.nodes > 1 else "127.0.0.1"
    return _variables(node * where.devices + local, local, node, where, address, 15_000 + job % 10_000)


def _variables(number: int, local: int, node: int, where: Layout, address: str, port: int) -> dict[str, str]:
    names = {
        "RANK": number,
        "LOCAL_RANK": local,
        "NODE_RANK": node,
        "WORLD_SIZE": where.processes,
        "LOCAL_WORLD_SIZE": where.devices,
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
    }
    return {name: str(value) for name, value in names.items()}


# ------------------------------------------------------------------------------------------------ processes


class Ending(NamedTuple):
    """How a run's processes ended."""

    code: int  # 0, or the exit code of the first that failed
    killed: str  # which process was killed by which signal, or nothing
    stopped: int  # the signal that asked this process for the end, or 0
    handler: Any  # what listened to that signal before


def run(command: list[str], where: Layout, more: dict[str, str], failed: Callable[[], object] = bool) -> Ending | None:
    """Run a command in as many processes as the layout needs, and pass on to them the signals that ask for the end.

    In a task of Slurm this is one process, its part of the run; None where the run does not need the task.

    Args:
        more: environment variables besides those that tell the processes about each other.
        failed: whether the run is known to have failed elsewhere, on another machine of a Slurm job.
    """
    count = where.processes
    variables: list[dict[str, str]] = [{}]
    if slurm_tasks() > 1 and count > 1:
        count = 1
        own = slurm_variables(where)
        if own is None:
            return None
        variables = [own]
    elif slurm_tasks() > 1 and int(os.environ["SLURM_PROCID"]):
        return None
    elif count > 1:
        port = _free_port()
        variables = [_variables(i, i, 0, where, "127.0.0.1", port) for i in range(count)]
        if "OMP_NUM_THREADS" not in os.environ:
            more = {"OMP_NUM_THREADS": str(max(1, cpu.count() // count)), **more}
    processes: list[subprocess.Popen[bytes]] = []
    stopped: list[int] = []

    def pass_on(signum: int, frame: Any) -> None:
        stopped.append(signum)
        for process in processes:
            _send(process, signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)

    before = {s: signal.signal(s, pass_on) for s in STOP_SIGNALS}
    try:
        for own in variables:
            env = {**os.environ, **more, **own, PARENT: str(os.getpid())}
            processes.append(start(command, env))
            if stopped:
                _send(processes[-1], signal.SIGTERM)
        watch = failed if slurm_tasks() else bool
        first = _wait(processes, lambda: len(stopped) > 1, watch)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for process in processes:
            process.kill()
    code = processes[first].returncode if first is not None else 0
    killed = f"killed by {signal.Signals(-code).name}" if code < 0 else ""
    if killed and count > 1:
        killed = f"process {first} of 0..{count - 1} was {killed}"
    return Ending(code, killed, stopped[0] if stopped else 0, before[stopped[0]] if stopped else None)


def start(command: list[str], env: dict[str, str], pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own: it hears signals from here only, whoever sends them."""
    return subprocess.Popen(command, env=env, start_new_session=True, pass_fds=pass_fds)


def _wait(
    processes: list[subprocess.Popen[bytes]], pressed: Callable[[], bool], failed: Callable[[], object]
) -> int | None:
    """Until all have ended; once one has failed, the others have little time. Returns which failed first.

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
            first = _failed(processes)
            if first is not None or pressed():
                since = min(since, now)
            elif now > looked + LOOK_EVERY:
                looked, since = now, min(since, now) if failed() else math.inf
        for number, process in enumerate(processes):
            if now > since + (GRACE_OF_OTHERS if number else GRACE):
                process.kill()
        time.sleep(0.05)
    return _failed(processes) if first is None else first


def _failed(processes: list[subprocess.Popen[bytes]]) -> int | None:
    """One that was killed rather than one that ended for it, should both have happened since the last look."""
    codes = {number: process.returncode for number, process in enumerate(processes) if process.returncode}
    return min(codes, key=lambda number: codes[number] > 0, default=None)


def _send(process: subprocess.Popen[bytes], signum: int) -> None:
    if process.poll() is None:
        process.send_signal(signum)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
