"""Start the processes of a run, one per device, watch them, and end them together.

Lightning would start them by repeating the command from inside the first one. Started here they begin side by side, and
if one dies, the others end too. If torchrun or Slurm has started them, this process is one of them.
"""

from __future__ import annotations

import math
import multiprocessing as mp
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TextIO

from alexnet_pl import cpu
from alexnet_pl.console import RANK_VARIABLES, handling
from alexnet_pl.errors import ConfigError
from alexnet_pl.jobs import slurm
from alexnet_pl.jobs.process import STOP_SIGNALS, Process
from alexnet_pl.parallel.layouts import Layout, rank_variables

GRACE = 40.0
"""Seconds that the first process gets to end once another has failed; it may have to finish with W&B"""
GRACE_OF_OTHERS = 5.0
"""Seconds that the other processes get"""
POLL_EVERY = 0.05
"""Seconds between two checks whether the processes still run"""
LOOK_EVERY = 5.0
"""Seconds between two checks whether a process has written that the run failed"""


def rank() -> int:
    """Return the number of this process in its run. Process 0 writes the run folder."""
    return slurm.number("RANK", 0)


def is_orphaned() -> bool:
    """Return whether the process that watched this one is gone."""
    parent = mp.parent_process()
    return parent is not None and not parent.is_alive()


# ------------------------------------------------------------------------------------------------ torchrun and Slurm


def started() -> int:
    """Return how many processes torchrun or Slurm started, this one included. Alone, drop leftover ranks.

    Raises:
        ConfigError: their variables are not numbers, or do not make a group.
    """
    count = max(slurm.task_count(), slurm.number("WORLD_SIZE", 1))
    if count > 1 and slurm.task_count() <= 1:
        missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if missing or rank() >= count:
            reason = f"{missing[0]} is not set" if missing else f"RANK is {rank()}"
            raise ConfigError(
                f"WORLD_SIZE={count} says that torchrun started this process, but {reason}: unset WORLD_SIZE, or start "
                "the command with torchrun"
            )
    if count <= 1:
        for name in RANK_VARIABLES:
            os.environ.pop(name, None)
    return count


def refuse_other_group(where: Layout) -> None:
    """Refuse processes of torchrun or Slurm that are not as many as the run needs.

    Raises:
        ConfigError: it is another number, or the run needs several machines without torchrun and Slurm.
    """
    tasks = slurm.task_count()
    count, by = started(), "Slurm" if tasks > 1 else "torchrun"
    if count == where.processes:
        if tasks > 1 and slurm.task_variables(where) is None:
            raise ConfigError(
                f"Slurm's {tasks} tasks are not {where.devices} on each of {where.nodes} machines, as trainer.devices "
                "and trainer.num_nodes say: use srun --ntasks-per-node"
            )
    elif count > 1:
        raise ConfigError(
            f"{by} started {count} processes, but trainer.devices={where.devices} and trainer.num_nodes="
            f"{where.nodes} need {where.processes}: make them equal (trainer=ddp for one process per device)"
        )
    elif where.nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={where.nodes} needs one process per device on each machine: start the command with "
            "torchrun on every machine, or use hydra/launcher=submitit_slurm"
        )


def join_group(where: Layout) -> bool:
    """Return whether torchrun or Slurm started this process as one of several for the run; prepare it if so.

    Slurm's variables become torchrun's, so that Lightning and torch see only one way.
    """
    if where.processes == 1:
        return False
    if slurm.task_count() == where.processes:
        os.environ.update(slurm.task_variables(where) or {})
    return slurm.number("WORLD_SIZE", 1) == where.processes


def process_variables(where: Layout) -> list[dict[str, str]]:
    """Return the environment variables of each process to start here, which tell it about the others.

    A task of Slurm starts its own part of the run, or nothing if the run does not need the task.
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
    killed: str  # which process was killed by which signal, unless it was ended here; or nothing


class Stop:
    """The signal that asked this process to end, and how often one did."""

    def __init__(self) -> None:
        self.signum, self.count = 0, 0
        self.handler: Any = None  # what listened to that signal before


@contextmanager
def passing_on_signals(ask_to_end: Callable[[int], None]) -> Iterator[Stop]:
    """Pass signals that ask to end on to the processes of runs, instead of ending at once."""
    stop, before = Stop(), dict[int, Any]()

    def pass_on(signum: int, frame: Any) -> None:
        if not stop.signum:
            stop.signum, stop.handler = signum, before.get(signum)
        stop.count += 1
        ask_to_end(signum)

    with handling(STOP_SIGNALS, pass_on) as earlier:
        before |= earlier
        yield stop


class Group:
    """The processes of one run, as many as its layout needs here; none in a task of Slurm that the run does not need.

    Args:
        words: the module whose `main` each of them calls, and its arguments.
        more: environment variables besides those that tell the processes about each other.
        failed: returns whether a process has written that the run failed, here or on another machine. It may hang
            after that: NCCL waits for the others as it closes, and they wait for it.
        held: a file that they keep open, such as the run folder's lock.
    """

    def __init__(
        self,
        words: Sequence[str],
        where: Layout,
        more: dict[str, str],
        failed: Callable[[], object] = bool,
        held: TextIO | None = None,
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
        self.processes: list[Process] = []
        self.failed = failed
        self.first: int | None = None  # the number of the first that failed
        self.since = math.inf  # when a failure was seen, or the end was asked for again
        self.looked = time.monotonic()
        self.overdue: set[int] = set()  # the numbers of those that had to be ended here
        self.oom_kills = cpu.oom_kills()
        try:
            for own in process_variables(where):
                self.processes.append(Process(words, {**inherited, **more, **own}, held))
        except BaseException:  # those that are started would wait for the others
            self.kill()
            raise

    def ask_to_end(self, signum: int) -> None:
        """Ask them to save and end."""
        for process in self.processes:
            process.send_signal(signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)

    def is_running(self, hurry: bool = False) -> bool:
        """Check them once, and end the others some time after one has failed. Return whether one still runs.

        Args:
            hurry: whether a signal asked them to end more than once.
        """
        if all(process.returncode is not None for process in self.processes):
            self.first = self._first_failure() if self.first is None else self.first
            return False
        now = time.monotonic()
        if self.first is None:
            self.first = self._first_failure()
            if self.first is not None or hurry:
                self.since = min(self.since, now)
            elif now > self.looked + LOOK_EVERY:
                self.looked, self.since = now, min(self.since, now) if self.failed() else math.inf
        for number, process in enumerate(self.processes):
            if now > self.since + (GRACE_OF_OTHERS if number else GRACE) and process.returncode is None:
                self.overdue.add(number)
                process.send_signal(signal.SIGKILL)
        return True

    def kill(self) -> None:
        """Kill those that still run."""
        for process in self.processes:
            process.send_signal(signal.SIGKILL)

    def ending(self) -> Ending:
        """Return how they ended, after all have ended."""
        code = (self.processes[self.first].returncode or 0) if self.first is not None else 0
        killed = f"killed by {signal.Signals(-code).name}" if code < 0 and self.first not in self.overdue else ""
        if killed and len(self.processes) > 1:
            killed = f"process {self.first} of 0..{len(self.processes) - 1} was {killed}"
        if killed and code == -signal.SIGKILL and cpu.oom_kills() > self.oom_kills:
            killed += ", most likely as memory ran out: Linux has ended a process for it meanwhile"
        return Ending(code, killed)

    def _first_failure(self) -> int | None:
        """Return a process that failed; None if none did. A killed one comes before those that ended because of it."""
        failures = [number for number, process in enumerate(self.processes) if process.returncode]
        killed = [number for number in failures if (self.processes[number].returncode or 0) < 0]
        return next(iter(killed or failures), None)


def run(start: Callable[[], Group]) -> tuple[Ending, Stop]:
    """Start the processes of one run and wait for their end."""
    groups: list[Group] = []

    def ask_to_end(signum: int) -> None:
        for group in groups:
            group.ask_to_end(signum)

    with passing_on_signals(ask_to_end) as stop:
        groups.append(start())
        if stop.count:  # it came before the processes could hear it
            groups[0].ask_to_end(stop.signum)
        try:
            while groups[0].is_running(hurry=stop.count > 1):
                time.sleep(POLL_EVERY)
        finally:
            groups[0].kill()
    return groups[0].ending(), stop


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
