"""Which GPUs a job may use where several jobs run at once on one machine (hydra.sweeper.n_jobs)."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from itertools import product
from pathlib import Path

from alexnet_pl.errors import ConfigError
from alexnet_pl.files import lock
from alexnet_pl.parallel.layouts import gpu_count

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's environment variable for the devices that a process sees"""


def claim_gpus(count: int, jobs_per_gpu: int, held: ExitStack) -> dict[str, str] | None:
    """Claim `count` of the GPUs this process sees, if so many are not claimed by other jobs.

    A claim is a lock on a file for each place on a GPU, which ends with its process, or when `held` is closed. All GPUs
    have a first job before one has a second.

    Args:
        jobs_per_gpu: how many jobs may share a GPU, with as many places for each.
    Returns:
        The environment variable by which a job sees these GPUs only; None where too few are free.
    """
    seen = os.environ[VISIBLE].split(",") if os.environ.get(VISIBLE) else [str(number) for number in range(gpu_count())]
    claims, free = _claims(), list[str]()
    with ExitStack() as locks:
        for place, name in product(range(jobs_per_gpu), seen):
            folder = claims / (f"gpu-{name}" + f"-{place}" * (place > 0))
            folder.mkdir(exist_ok=True)
            try:
                if len(free) < count and name not in free and (claim := lock(folder)):
                    locks.enter_context(claim)
                    free.append(name)
            except BlockingIOError:
                continue
        if len(free) < count:
            return None
        held.push(locks.pop_all())
    return {VISIBLE: ",".join(free)}


def _claims() -> Path:
    """This user's folder for claims.

    Raises:
        ConfigError: somebody else made it first: a folder of temporary files is everybody's.
    """
    folder = Path(tempfile.gettempdir()) / f"alexnet_pl-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder} is not this user's own folder: remove it, or set TMPDIR to another place")
    return folder
