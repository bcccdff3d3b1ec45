"""The CPU: how many cores this process may use, its name, and how a process uses memory and threads."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path

KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**60)}
"""Make glibc's malloc keep the memory of freed tensors. By default each large block comes fresh from the system, and
its page faults cost more than the arithmetic of a float batch. AlexNet's step on a CPU gains a tenth. malloc reads
these only when a process starts."""
COMPILE_HERE = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
"""Compile in the process that trains. By default torch.compile starts a process per core, in each process of a run, for
the few kernels of a net. torch reads this when it is loaded."""
READ_AT_START = (*KEEP_FREED_MEMORY, "OMP_WAIT_POLICY")
"""Environment variables that are read only when an interpreter starts, or when it loads torch"""

LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says how much memory a container has: control groups of version 2 and 1"""


def count() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Return the bytes of memory that this process may use: those of the machine, or the limit of its container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else sys.maxsize
    for file in LIMITS:
        if file.is_file() and (limit := file.read_text().strip()).isdecimal():
            total = min(total, int(limit))
    return total


def name() -> str:
    """Return the CPU's name, as the system reports it."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def wanted_threads(env: Mapping[str, str]) -> int:
    """Return the number in OMP_NUM_THREADS. If it is no number, return 0, as OpenMP does."""
    first = env.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # the others are for threads of threads
    return int(first) if first.isdecimal() else 0


def oom_kills() -> int:
    """Return how many processes Linux has killed for lack of memory since its start; 0 if it does not count them."""
    counts = Path("/proc/vmstat")
    found = re.search(r"^oom_kill (\d+)$", counts.read_text() if counts.is_file() else "", re.MULTILINE)
    return int(found[1]) if found else 0


def thread_environment(precision: str) -> dict[str, str]:
    """Return the variable that sets how OpenMP's threads wait, unless the user has set it. torch reads it when loaded.

    In fp32 they wait passively, so that two runs on one machine do not starve each other: 2,200 instead of 1,000
    images/s each. In bf16 they keep the default, since oneDNN's convolutions spin anyway. Passive waiting would drop
    to 130 images/s.

    Args:
        precision: trainer.precision; auto is fp32 on a CPU.
    """
    passive = precision in ("auto", "32-true", "32", "64-true", "64") and "OMP_WAIT_POLICY" not in os.environ
    return {"OMP_WAIT_POLICY": "passive"} if passive else {}


def process_environment(precision: str, processes: int = 1) -> dict[str, str]:
    """Return the environment variables for a process that trains; those that the user set stay.

    Args:
        precision: trainer.precision.
        processes: number of processes on this machine that share its cores.
    """
    wanted = KEEP_FREED_MEMORY | COMPILE_HERE
    if processes > 1:
        wanted["OMP_NUM_THREADS"] = str(max(1, count() // processes))
    return {key: value for key, value in wanted.items() if key not in os.environ} | thread_environment(precision)
