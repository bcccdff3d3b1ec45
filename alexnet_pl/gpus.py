"""Which GPUs a job may use where several jobs run at once on one machine (hydra/launcher=joblib)."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alexnet_pl.files import lock
from alexnet_pl.layouts import gpus

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's environment variable for the devices that a process sees"""
ASK_EVERY = 1.0
"""Seconds between two attempts to get a GPU"""


@contextmanager
def claimed(count: int) -> Iterator[dict[str, str]]:
    """Wait until `count` of the GPUs this process sees are not claimed by another job, and keep them inside.

    A claim is a lock on a file for each GPU, which ends with its process.

    Yields:
        The environment variable by which a job sees these GPUs only; nothing for `count` 0.
    """
    if not count:
        yield {}
        return
    seen = os.environ[VISIBLE].split(",") if os.environ.get(VISIBLE) else [str(number) for number in range(gpus())]
    said = False
    while True:
        with ExitStack() as locks:
            free: list[str] = []
            for name in seen:
                folder = Path(tempfile.gettempdir()) / f"alexnet_pl-{os.getuid()}" / f"gpu-{name}"
                folder.mkdir(parents=True, exist_ok=True)
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
