"""Share GPUs among jobs that run at once on one machine (hydra.sweeper.n_jobs)."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import ExitStack
from itertools import product
from pathlib import Path

from alexnet_pl.errors import ConfigError
from alexnet_pl.files import lock
from alexnet_pl.parallel.layouts import gpu_count

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's environment variable that lists the devices a process sees"""
_ours: set[Path] = set()
"""Claims of this process's jobs. Without locks in the file system, only these keep its jobs apart."""


def claim_gpus(count: int, held: ExitStack, jobs_per_gpu: int = 1) -> dict[str, str] | None:
    """Claim `count` of the GPUs that this process sees, if so many are free.

    Each GPU has a place for each job that may share it, and a claim is a lock on the file of a place. The claim ends
    with its process, or when `held` is closed. Every GPU gets a first job before any gets a second.

    Args:
        jobs_per_gpu: how many jobs may share a GPU.
    Returns:
        The environment variable that shows a job these GPUs only; None if too few are free.
    Raises:
        ConfigError: the folder of the claims is not this user's own.
    """
    seen = os.environ[VISIBLE].split(",") if os.environ.get(VISIBLE) else [str(number) for number in range(gpu_count())]
    claims, free = _claims(), list[str]()
    with ExitStack() as locks:
        for place, name in product(range(jobs_per_gpu), seen):
            # the names of parts of GPUs have slashes
            folder = claims / (f"gpu-{name.replace('/', '_')}" + f"-{place}" * (place > 0))
            if len(free) == count or name in free or folder in _ours:
                continue
            folder.mkdir(exist_ok=True)
            try:
                claim = lock(folder)
            except BlockingIOError:
                continue
            if claim:
                locks.enter_context(claim)
            _ours.add(folder)
            locks.callback(_ours.discard, folder)
            free.append(name)
        if len(free) < count:
            return None
        held.push(locks.pop_all())
    return {VISIBLE: ",".join(free)}


def _claims() -> Path:
    """Return this user's folder for claims, among the temporary files.

    Raises:
        ConfigError: somebody else made it first, or may write there.
    """
    folder = Path(tempfile.gettempdir()) / f"alexnet_pl-{os.getuid()}"
    if not os.path.lexists(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigError(f"{folder} is not this user's own folder: remove it, or set TMPDIR to another place")
    return folder
