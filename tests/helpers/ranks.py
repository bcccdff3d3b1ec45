"""Run a function in several gloo processes on this machine, as the ranks of one run."""

from __future__ import annotations

import datetime
import os
import queue
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.helpers.processes import context as forkserver


def run(processes: int, function: Callable[..., Any], *args: Any, timeout: float = 60) -> list[Any]:
    """Return what the function returned in each process; the first failure is raised, and no process is left behind.

    The server that forks them has all imports done, and no port is needed: they meet in a file.
    """
    context = forkserver()
    with tempfile.TemporaryDirectory() as folder:
        answers: Queue[tuple[int, str]] = context.Queue()
        ranks = [
            context.Process(target=_rank, args=(rank, processes, folder, function, args, answers))
            for rank in range(processes)
        ]
        for process in ranks:
            process.start()
        deadline, failure, waiting = time.monotonic() + timeout, "", set(range(processes))
        while waiting and not failure:
            try:
                rank, failure = answers.get(timeout=max(0.1, deadline - time.monotonic()))
                waiting.discard(rank)
            except queue.Empty:
                failure = f"ranks {sorted(waiting)} did not answer within {timeout:g} s"
        for process in ranks:
            if failure:
                process.kill()
            process.join(20)
        if failure:
            raise RuntimeError(failure)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(processes)]


def _rank(
    rank: int,
    processes: int,
    folder: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    answers: Queue[tuple[int, str]],
) -> None:
    try:
        torch.set_num_threads(1)
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        os.environ.update({name: str(value) for name, value in names.items()})
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=processes,
            timeout=datetime.timedelta(seconds=40),
        )  # fmt: skip
        torch.save(function(*args), Path(folder) / f"{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()
        answers.put((rank, ""))
    except BaseException:
        answers.put((rank, f"rank {rank}:\n{traceback.format_exc()}"))
