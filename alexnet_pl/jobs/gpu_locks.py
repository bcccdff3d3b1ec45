"""Which GPUs a job may use where several jobs run at once on one machine (hydra/launcher=joblib)."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alexnet_pl.errors import ConfigError
from alexnet_pl.files import lock
from alexnet_pl.parallel.layouts import gpu_count

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's environment variable for the devices that a process sees"""
ASK_EVERY = 1.0
"""Seconds between two attempts to get a GPU"""


@contextmanager
def acquire_gpus(count: int) -> Iterator[dict[str, str]]:
    """Wait until `count` of the GPUs this process sees are not claimed by another job, and keep them inside.

    A claim is a lock on a file for each GPU, which ends with its process.

    Yields:
        The environment variable by which a job sees these GPUs only; nothing for `count` 0.
    """
    if not count:
        yield {}
        return
    seen = os.environ[VISIBLE].split(",") if os.environ.get(VISIBLE) else [str(number) for number in range(gpu_count())]
    claims = _claims()
    said = False
    while True:
        with ExitStack() as locks:
            free: list[str] = []
            for name in seen:
                folder = claims / f"gpu-{name}"
                folder.mkdir(exist_ok=True)
                try:
                    if len(free) < count and (claim := lock(folder)):
                        locks.enter_context(claim)
                        free.append(name)
                except BlockingIOError:
                    continue
            if len(free) == count:
                yield {VISIBLE: ",".join(free)}
                return
        if not said:
            print(f"waiting for {count} free GPU{'s' * (count > 1)}", flush=True)
            said = True
        time.sleep(ASK_EVERY)


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
